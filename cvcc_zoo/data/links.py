"""The files of a folder, and where links among them may lead."""

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from cvcc_zoo.files.own import shown

JUNK = {"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "__macosx", "$recycle.bin", "system volume information",
        "@eadir", "lost+found"}  # fmt: skip
"""What Windows, macOS, Synology and Linux leave in folders."""


def is_junk(name: str) -> bool:
    """Whether a file or folder is hidden, or one that a system leaves behind."""
    return name.startswith(".") or name.casefold() in JUNK


@dataclass(frozen=True)
class Links:
    """Lists what is below `root`; a link that leads out of it is followed only if `follow` says so."""

    root: Path
    follow: bool

    @cached_property
    def _inside(self) -> Path:
        return self.root.resolve()

    def check(self, path: Path) -> None:
        """Raise ValueError for a link to nothing, and for one that leads out of the root if it must not."""
        if not path.is_symlink():
            return
        target = Path(os.path.realpath(path))
        if not target.exists():
            raise ValueError(f"{shown(path)} is a link to {shown(target)}, which is not there; mend it or remove it")
        if not self.follow and not target.is_relative_to(self._inside):
            raise ValueError(
                f"{shown(path)} is a link that leads out of {shown(self.root)}, to {shown(target)}; put the file "
                "itself there, or follow links: --data.follow_links=true"
            )

    def entries(self, folder: Path) -> list[os.DirEntry[str]]:
        """What lies in a folder and is no junk, by name. Raises ValueError as `check` does, and without a right."""
        try:
            with os.scandir(folder) as scanned:
                found = sorted((entry for entry in scanned if not is_junk(entry.name)), key=lambda entry: entry.name)
        except OSError as error:
            raise ValueError(
                f"the folder {shown(folder)} cannot be listed ({error.strerror}); give yourself the right to read it, "
                "or move it away"
            ) from error
        for entry in found:
            if entry.is_symlink():
                self.check(Path(entry.path))
        return found

    def files(self, folder: Path, came: tuple[Path, ...] = ()) -> list[str]:
        """The files in a folder and those below it, by name at each level.

        Raises ValueError as `entries` does, and for links in a circle.
        """
        found: list[str] = []  # text: a Path for each of 60,000 images takes half of the time
        for entry in self.entries(folder):
            if not entry.is_dir():
                found.append(entry.path)
                continue
            path = Path(entry.path)
            real = Path(os.path.realpath(path))
            if real in came or Path(os.path.realpath(folder)).is_relative_to(real):
                raise ValueError(f"{shown(path)} is a link to {shown(real)}, which it lies in; remove it")
            found += self.files(path, (*came, real))
        return found
