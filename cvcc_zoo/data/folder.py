"""An image folder as a data set: `train/<class>/*`, `test/<class>/*` and, if there is one, `val/<class>/*`."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image, UnidentifiedImageError

from cvcc_zoo.data.decode import Decoding, decode_all, is_grey, unreadable
from cvcc_zoo.data.images import Images, Split, data_home

SPLITS: tuple[Split, ...] = ("train", "val", "test")


@dataclass(frozen=True)
class ImageFolder:
    """Images that Pillow reads, decoded once into a memory-mapped file in the cache.

    `files` holds for each split its (path, label) pairs.
    """

    title: str
    root: Path
    classes: tuple[str, ...]
    files: dict[Split, list[tuple[Path, int]]]
    decoding: Decoding
    mirror: bool = True

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
            self._cached(split)

    def load(self, split: Split) -> Images | None:
        """The memory-mapped images of a split; None if the folder has no `val`."""
        if split not in self.files:
            return None
        path, shape = self._cached(split), self._shape(split)
        size = torch.Size(shape).numel()
        images = torch.from_file(str(path), shared=False, size=size, dtype=torch.uint8).view(shape)
        return Images(images, torch.tensor([label for _, label in self.files[split]]))

    def _shape(self, split: Split) -> tuple[int, int, int, int]:
        return (len(self.files[split]), self.in_channels, self.image_size, self.image_size)

    def _cached(self, split: Split) -> Path:
        """The decoded file of a split, named after everything that it depends on; an outdated one is deleted."""
        files = self.files[split]
        place = hashlib.sha256(f"{self.root.resolve()} {split} {self.decoding}".encode()).hexdigest()[:12]
        state = hashlib.sha256()
        for path, _ in files:
            stat = path.stat()
            state.update(f"{path} {stat.st_size} {stat.st_mtime_ns}\n".encode(errors="surrogateescape"))
        cache = data_home() / "decoded"
        target = cache / f"{self.title}-{split}-{place}-{state.hexdigest()[:16]}.uint8"
        if not (target.is_file() and target.stat().st_size == torch.Size(self._shape(split)).numel()):
            cache.mkdir(parents=True, exist_ok=True)
            decode_all([path for path, _ in files], target, self.decoding, f"{self.title}/{split}")
            for other in cache.glob(f"*-{split}-{place}-*.uint8"):
                if other != target:
                    other.unlink(missing_ok=True)
        return target


def image_folder(root: Path, image_size: int | None = None, in_channels: int | None = None) -> ImageFolder:
    """List an image folder; nothing is decoded yet but the header of the first training image.

    Without `image_size` or `in_channels` they are those of the first training image, and all others must agree;
    with them every image is resized or turned grey or colour. Raises FileNotFoundError or ValueError where the root
    is missing, has no images, or its splits have different classes.
    """
    layout = "expected train/<class>/<image> and test/<class>/<image> (and val/<class>/<image> if you have one)"
    if not root.is_dir():
        raise FileNotFoundError(f"the image folder {root} does not exist; {layout}. Set it with --data.root=...")
    for split in ("train", "test"):
        if not (root / split).is_dir():
            raise FileNotFoundError(f"the image folder {root} has no folder {split!r}; {layout}")
    found: dict[Split, dict[str, list[Path]]] = {s: _classes(root / s) for s in SPLITS if (root / s).is_dir()}
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
    files: dict[Split, list[tuple[Path, int]]] = {
        split: [(path, label) for label, name in enumerate(classes) for path in paths[name]]
        for split, paths in found.items()
    }
    first = files["train"][0][0]
    size, grey = _header(first)
    if image_size is None and size[0] != size[1]:
        raise ValueError(
            f"{first} has {size[0]}x{size[1]} pixels, and images must be square; "
            "give the size to resize all images to: --data.image_size=32"
        )
    decoding = Decoding(
        image_size=image_size or size[0],
        in_channels=in_channels or (1 if grey else 3),
        same_size=image_size is None,
        grey_only=in_channels is None and grey,
    )
    return ImageFolder(root.resolve().name, root, classes, files, decoding)


def _classes(folder: Path) -> dict[str, list[Path]]:
    """Class name to its sorted files, in subfolders too; hidden files and folders are not looked at."""
    classes = {}
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith("."):
            continue
        if not entry.is_dir():
            raise ValueError(f"{entry} is a file, where only class folders belong; move it away")
        paths = []
        for place, folders, names in os.walk(entry):
            folders[:] = [name for name in folders if not name.startswith(".")]
            paths += [Path(place, name) for name in names if not name.startswith(".")]
        if not paths:
            raise ValueError(f"the class folder {entry} has no images; add some or remove the folder")
        classes[entry.name] = sorted(paths)
    return classes


def _header(path: Path) -> tuple[tuple[int, int], bool]:
    """Width and height, and whether the image is grey."""
    try:
        with Image.open(path) as image:
            return image.size, is_grey(image)
    except (UnidentifiedImageError, OSError) as error:
        raise unreadable(path, error) from error
