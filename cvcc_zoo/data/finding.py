"""Find files in folders: list the files of a folder, check where links lead, and list the files of paths."""

import os
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from cvcc_zoo.files.own import shown

JUNK = {"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "__macosx", "$recycle.bin", "system volume information",
        "@eadir", "lost+found"}  # fmt: skip
"""Files that Windows, macOS, Synology and Linux leave in folders."""


def is_junk(name: str) -> bool:
    """Return whether a file or folder is hidden, or left behind by an operating system."""
    return name.startswith(".") or name.casefold() in JUNK


def order(*names: str) -> tuple[list[str], tuple[str, ...]]:
    """Return a key that sorts names, or the parts of paths, alike on all systems.

    Names are compared in Unicode's composed form first, because macOS writes them decomposed.
    """
    return [unicodedata.normalize("NFC", name) for name in names], names


@dataclass(frozen=True)
class Links:
    """A lister of the files below `root`; with `follow` it follows links that lead out of it."""

    root: Path
    follow: bool

    @cached_property
    def _inside(self) -> Path:
        return self.root.resolve()

    def check(self, path: Path) -> None:
        """Raise ValueError for a broken link, and without `follow` for one that leads out of the root."""
        if not path.is_symlink():
            return
        target = Path(os.path.realpath(path))
        if not target.exists():
            raise ValueError(f"{shown(path)} is a link to {shown(target)}, which does not exist; fix it or remove it")
        if not self.follow and not target.is_relative_to(self._inside):
            raise ValueError(
                f"{shown(path)} is a link that leads out of {shown(self.root)}, to {shown(target)}; put the file "
                "itself there, or follow links: --data.follow_links=true"
            )

    def entries(self, folder: Path) -> list[os.DirEntry[str]]:
        """List a folder by name, without junk. Raises ValueError if it may not be read, and for links as `check`."""
        try:
            with os.scandir(folder) as scanned:
                found = [entry for entry in scanned if not is_junk(entry.name)]
        except OSError as error:
            raise ValueError(
                f"the folder {shown(folder)} cannot be listed ({error.strerror}); give yourself permission to read it, "
                "or move it away"
            ) from error
        found.sort(key=lambda entry: order(entry.name))
        for entry in found:
            if entry.is_symlink():
                self.check(Path(entry.path))
        return found

    def files(self, folder: Path, parents: tuple[Path, ...] = ()) -> list[str]:
        """List the files in and below a folder, by name at each level; `parents` are the folders above it, resolved.

        Raises ValueError for circular links, and as `entries` does.
        """
        found: list[str] = []  # not Path, which for 60,000 images takes half of the time
        for entry in self.entries(folder):
            if not entry.is_dir():
                found.append(entry.path)
                continue
            path = Path(entry.path)
            real = Path(os.path.realpath(path))
            if real in parents or Path(os.path.realpath(folder)).is_relative_to(real):
                raise circular(path, real)
            found += self.files(path, (*parents, real))
        return found


def circular(link: Path, real: Path | str) -> ValueError:
    """Return the error for a link to a folder that contains it; `real` is this folder."""
    return ValueError(f"{shown(link)} is a link to {shown(real)}, which contains it; remove the link")


def find_files(given: Sequence[Path]) -> list[Path]:
    """List the given files and, sorted and without hidden ones, the files below the given folders; links are followed.

    Raises FileNotFoundError for a missing path, and ValueError for a link to a folder that contains it.
    """
    for place in given:
        if not place.exists():
            raise FileNotFoundError(f"there is no image or folder {shown(place)}")
    return [path for place in given for path in (_below(place) if place.is_dir() else [place])]


def _below(folder: Path) -> list[Path]:
    """List the files below a folder and below the folders to which links in it lead, each folder once."""
    paths, waiting, listed = list[Path](), [folder], set[Path]()
    while waiting:
        for place, folders, names in os.walk(waiting.pop(0), onerror=_cannot_list):  # which follows no links
            real = Path(os.path.realpath(place))
            if real in listed:
                folders.clear()
                continue
            listed.add(real)
            folders[:] = sorted((name for name in folders if not is_junk(name)), key=order)
            for link in (path for name in folders if (path := Path(place, name)).is_symlink()):
                if real.is_relative_to(target := os.path.realpath(link)):
                    raise circular(link, target)
                waiting.append(link)
            paths += [Path(place, name) for name in names if not is_junk(name)]
    return sorted(paths, key=lambda path: order(*path.parts))


def _cannot_list(error: OSError) -> None:
    raise ValueError(
        f"the folder {shown(error.filename)} cannot be listed ({error.strerror}); give yourself permission to read it, "
        "or leave it out"
    ) from error
