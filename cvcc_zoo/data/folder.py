"""An image folder as a data set: `train/<class>/*`, `test/<class>/*` and, if there is one, `val/<class>/*`."""

import hashlib
import os
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from cvcc_zoo.data.decode import MAX_PIXELS, Decoding, decode_all, is_grey, open_image
from cvcc_zoo.data.images import Images, Split, data_home
from cvcc_zoo.data.links import Links
from cvcc_zoo.files import shown

LONGEST_TITLE = 60  # characters
STALE = 3600  # seconds since anything was written
SPLITS: tuple[Split, ...] = ("train", "val", "test")


@dataclass(frozen=True)
class ImageFolder:
    """Images that Pillow reads, decoded once into a memory-mapped file in the cache.

    `files` holds for each split its (path, label) pairs.
    """

    title: str
    root: Path
    classes: tuple[str, ...]
    files: dict[Split, list[tuple[str, int]]]
    decoding: Decoding
    mirror: bool = True
    _prepared: dict[Split, Path] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def in_channels(self) -> int:
        """1 for grey, 3 for colour."""
        return self.decoding.in_channels

    @property
    def image_size(self) -> int:
        """Height and width in pixels."""
        return self.decoding.image_size

    def prepare(self) -> None:
        """Decode every split whose cache is missing or older than its files."""
        for split in self.files:
            self._prepared[split] = self._cached(split)

    def load(self, split: Split) -> Images | None:
        """The memory-mapped images of a split; None if the folder has no `val`."""
        if split not in self.files:
            return None
        path, shape = self._prepared.get(split), self._shape(split)
        if path is None or not path.is_file():
            path = self._cached(split)
        size = torch.Size(shape).numel()
        images = torch.from_file(str(path), shared=False, size=size, dtype=torch.uint8).view(shape)
        return Images(images, torch.tensor([label for _, label in self.files[split]]))

    def _shape(self, split: Split) -> tuple[int, int, int, int]:
        return (len(self.files[split]), self.in_channels, self.image_size, self.image_size)

    def _cached(self, split: Split) -> Path:
        """The decoded file of a split, named after everything that it depends on; an outdated one is deleted.

        Raises ValueError if a file changes while it is decoded, and as `decode_all` does; then there is no cache.
        """
        paths = [path for path, _ in self.files[split]]
        name = os.fsencode(self.root.resolve()) + f" {split} {self.decoding}".encode()
        place, state = hashlib.sha256(name).hexdigest()[:12], fingerprint(paths)
        cache = data_home() / "decoded"
        target = cache / f"{self.title}-{split}-{place}-{state[:16]}.uint8"
        if not (target.is_file() and target.stat().st_size == torch.Size(self._shape(split)).numel()):
            decode_all(paths, target, self.decoding, f"{self.title}/{split}")
            if not _unchanged(paths, state):
                target.unlink(missing_ok=True)
                raise ValueError(
                    f"the files in {shown(self.root / split)} changed while they were read; start again when nothing "
                    "writes into the folder"
                )
            for other in cache.glob(f"*-{split}-{place}-*.uint8"):
                if other != target:
                    other.unlink(missing_ok=True)
            for other in cache.glob(f".*-{split}-{place}-*.uint8-*"):  # of a process that was killed
                if time.time() - other.stat().st_mtime > STALE:
                    other.unlink(missing_ok=True)
        return target


def fingerprint(paths: Sequence[str]) -> str:
    """A hash of names, sizes, places on the disk and times of files; it is another one when a file was changed."""
    state = hashlib.sha256()
    for path in paths:
        name = os.fsencode(path)
        try:
            found = os.stat(name)  # noqa: PTH116  (a Path for each takes as long again)
        except OSError as error:
            raise ValueError(f"{shown(path)} cannot be read ({error.strerror}); start again without it") from error
        state.update(name)
        state.update(f" {found.st_size} {found.st_ino} {found.st_mtime_ns} {found.st_ctime_ns}\n".encode())
    return state.hexdigest()


def _unchanged(paths: Sequence[str], state: str) -> bool:
    try:
        return fingerprint(paths) == state
    except ValueError:  # one of them is gone
        return False


def image_folder(
    root: Path,
    image_size: int | None = None,
    in_channels: int | None = None,
    *,
    follow_links: bool = False,
    max_pixels: int = MAX_PIXELS,
) -> ImageFolder:
    """List an image folder; nothing is decoded yet but the header of the first training image.

    Without `image_size` or `in_channels` they are those of the first training image, and all others must agree;
    with them every image is resized or turned grey or colour. Links that lead out of the root are followed only with
    `follow_links`; the root itself may be one. Images of more than `max_pixels` pixels are refused. Raises
    FileNotFoundError or ValueError where the root is missing, has no images, or its splits have different classes.
    """
    layout = "expected train/<class>/<image> and test/<class>/<image> (and val/<class>/<image> if you have one)"
    if not root.is_dir():
        raise FileNotFoundError(f"the image folder {root} does not exist; {layout}. Set it with --data.root=...")
    for split in ("train", "test"):
        if not (root / split).is_dir():
            raise FileNotFoundError(f"the image folder {root} has no folder {split!r}; {layout}")
    links = Links(root, follow_links)
    found: dict[Split, dict[str, list[str]]] = {s: _classes(root / s, links) for s in SPLITS if (root / s).is_dir()}
    classes = tuple(sorted(found["train"]))
    if len(classes) < 2:
        raise ValueError(f"{root / 'train'} has {len(classes)} class folders, at least 2 are needed; {layout}")
    for split, others in found.items():
        for name in sorted(set(classes) ^ set(others)):
            here, there = ("train", split) if name in classes else (split, "train")
            raise ValueError(
                f"the class {name!r} is in {root / here} but not in {root / there}; "
                "every split needs the same class folders: add its images or remove the folder"
            )
    files: dict[Split, list[tuple[str, int]]] = {
        split: [(path, label) for label, name in enumerate(classes) for path in paths[name]]
        for split, paths in found.items()
    }
    first = files["train"][0][0]
    with open_image(Path(first), max_pixels) as image:
        size, grey = image.size, is_grey(image)
    if image_size is None and size[0] != size[1]:
        raise ValueError(
            f"{shown(first)} has {size[0]}x{size[1]} pixels, and images must be square; "
            "give the size to resize all images to: --data.image_size=32"
        )
    decoding = Decoding(
        image_size=image_size or size[0],
        in_channels=in_channels or (1 if grey else 3),
        same_size=image_size is None,
        grey_only=in_channels is None and grey,
        max_pixels=max_pixels,
    )
    title = re.sub(r"[^\w.+ -]", "_", root.resolve().name, flags=re.ASCII)[:LONGEST_TITLE] or "folder"
    return ImageFolder(title, root, classes, files, decoding)


def _classes(folder: Path, links: Links) -> dict[str, list[str]]:
    """Class name to its files by name, in subfolders too; hidden files and folders are not looked at."""
    classes = {}
    links.check(folder)
    for entry in links.entries(folder):
        place = shown(entry.path)
        if not entry.is_dir():
            raise ValueError(f"{place} is a file, where only class folders belong; move it away")
        if not entry.name.isprintable():
            raise ValueError(f"the class folder {place} has a name that cannot be shown; rename it")
        paths = links.files(Path(entry.path))
        if not paths:
            raise ValueError(f"the class folder {place} has no images; add some or remove the folder")
        classes[entry.name] = paths
    return classes
