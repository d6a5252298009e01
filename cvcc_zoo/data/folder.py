"""An image folder as a data set: `train/<class>/*`, `test/<class>/*`, `val/<class>/*`, or `<class>/*` alone."""

import hashlib
import os
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch

from cvcc_zoo.data.classes import DIGITS_NOTE, are_digits
from cvcc_zoo.data.decode import DecodedDataset, Decoding, read_header
from cvcc_zoo.data.decoded import decode_all, raise_all, remove_decoded, tell_remarks
from cvcc_zoo.data.finding import Links
from cvcc_zoo.data.images import Images, Split, data_home, mapped
from cvcc_zoo.data.layout import LAYOUT, check_same_classes, check_several, find_classes, find_splits, labelled
from cvcc_zoo.data.opening import MAX_PIXELS, NeedsOptionError, UnreadableImageError
from cvcc_zoo.data.shaping import UNCHANGED, Shaping
from cvcc_zoo.data.split import stratified_split
from cvcc_zoo.data.workers import read_each
from cvcc_zoo.files.own import STALE, remove_unfinished, shown

FILES = (
    "unpack an archive, and give its folder; arrays (.npz, .npy) are given by --data.dataset=FILE, tables with images "
    "(.parquet, .arrow) by --data.dataset=hf:FILE; if it lists images and classes, such as a .csv, copy the images "
    "into a folder for each class, and give the folder around these"
)
"""What to do with a file that is given as a folder of images."""
LONGEST_TITLE = 60  # characters
SPLITS: tuple[Split, ...] = ("train", "val", "test")


@dataclass(frozen=True)
class ImageFolder(DecodedDataset):
    """A folder of image files, each split of which is decoded once into a memory-mapped file in the cache.

    `files` holds the (path, label) pairs of each split. With `only_classes` there are no folders of splits, and every
    folder in the root is a class.
    """

    title: str
    root: Path
    classes: tuple[str, ...]
    files: dict[Split, list[tuple[str, int]]]
    decoding: Decoding
    mirror: bool = True
    notes: tuple[str, ...] = ()
    public: bool = False
    only_classes: bool = False
    _prepared: dict[Split, Path] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def splits(self) -> tuple[Split, ...]:
        """The splits that there are."""
        return tuple(self.files)

    def prepare(self) -> None:
        """Decode every split whose cache is missing or outdated. Raises the errors of `decode_all`."""
        broken: list[ValueError] = []
        for split in self.files:
            try:
                self._prepared[split] = self._cached(split)
            except UnreadableImageError as error:
                broken += error.each
        raise_all(broken)

    def load(self, split: Split) -> Images | None:
        """Load the memory-mapped images of a split; None if the folder does not have it."""
        if split not in self.files:
            return None
        path, shape = self._prepared.get(split), self._shape(split)
        if path is None or not path.is_file():
            path = self._cached(split)
        return Images(mapped(path, shape), torch.tensor([label for _, label in self.files[split]]))

    def _shape(self, split: Split) -> tuple[int, int, int, int]:
        return (len(self.files[split]), self.in_channels, self.image_size, self.image_size)

    def _cached(self, split: Split) -> Path:
        """Return the decoded file of a split, named after everything that it depends on; delete outdated ones.

        Raises ValueError if a file changes during decoding, and the errors of `decode_all`; neither leaves a cache.
        """
        paths = [path for path, _ in self.files[split]]
        name = os.fsencode(self.root.resolve()) + f" {split} {self.decoding}".encode()
        place, state = hashlib.sha256(name).hexdigest()[:12], fingerprint(paths)
        cache = data_home() / "decoded"
        target = cache / f"{self.title}-{split}-{place}-{state[:16]}.uint8"
        if not (target.is_file() and target.stat().st_size == torch.Size(self._shape(split)).numel()):
            decode_all(paths, target, self.decoding, f"{self.title}/{split}")
            if not _unchanged(paths, state):
                remove_decoded(target)
                raise ValueError(
                    f"the files in {shown(self.root / split)} changed while they were read; start again when nothing "
                    "writes to the folder"
                )
            for other in cache.glob(f"*-{split}-{place}-*.uint8"):
                if other != target:
                    with suppress(OSError):  # another process has removed it, or is using it, or it is another user's
                        remove_decoded(other)
            remove_unfinished(cache, older=STALE)
        elif split not in self._prepared:
            tell_remarks(target, f"{self.title}/{split}")
        return target


def fingerprint(paths: Sequence[str]) -> str:
    """Hash the names, sizes, inodes and times of files; the hash differs if a file has changed.

    Their folders do not count, because the same file can be reached by several paths.
    """
    state = hashlib.sha256()
    for path in paths:
        try:
            found = os.stat(path)  # noqa: PTH116  (Path objects would double the time)
        except OSError as error:
            raise ValueError(f"{shown(path)} cannot be read ({error.strerror}); start again without it") from error
        state.update(os.fsencode(os.path.basename(path)))  # noqa: PTH119
        state.update(f" {found.st_size} {found.st_ino} {found.st_mtime_ns} {found.st_ctime_ns}\n".encode())
    return state.hexdigest()


def _unchanged(paths: Sequence[str], state: str) -> bool:
    try:
        return fingerprint(paths) == state
    except ValueError:  # a file no longer exists
        return False


def image_folder(
    root: Path,
    shaping: Shaping = UNCHANGED,
    *,
    test: float = 0.0,
    split_seed: int = 0,
    follow_links: bool = False,
    max_pixels: int = MAX_PIXELS,
) -> ImageFolder:
    """List an image folder; only the header of the first training image is read.

    If the folder has classes but no splits, a share `test` of each class, chosen by `split_seed`, is the test split.
    A size or channels that `shaping` leaves open are those of the first training image, with which all others must then
    agree; otherwise every image is made square (see `Decoding`) or converted to grey or colour. Links that lead out of
    the root are followed only with `follow_links`; the root itself may be a link. Images of more than `max_pixels`
    pixels are refused. Classes called 0 to 9 are digits, whose mirror images are others. Raises FileNotFoundError or
    ValueError if the root is missing, has no images, or its splits have different classes.
    """
    if root.is_file():
        raise ValueError(f"{shown(root)} is a file, not a folder of images: {FILES}")
    if not root.is_dir():
        where = "" if root.is_absolute() else f" in {shown(Path.cwd())}"
        raise FileNotFoundError(
            f"the image folder {shown(root)} does not exist{where}; {LAYOUT}. Set it with --data.root=..."
        )
    links, notes = Links(root, follow_links), list[str]()
    folders, others = find_splits(root, links)
    found = {split: find_classes(folder, links) for split, folder in sorted(folders.items())}
    if found:
        check_several(folders["train"], found["train"])
        check_same_classes(found, folders)
        files = {split: labelled(found[split]) for split in SPLITS if split in found}
        classes = tuple(sorted(found["train"]))
    else:
        whole = find_classes(root, links)
        check_several(root, whole)
        classes = tuple(sorted(whole))
        files = split_off(labelled(whole), classes, test, split_seed)
        of = f"{len(files.get('test', [])):,} of {sum(map(len, files.values())):,} images"
        notes.append(f"no train and test folders: {of} are held out for testing (--data.test={test:g})")
    if others:
        notes.append(f"ignored, because they are not train, val or test: {', '.join(map(shown, others))}")
    if digits := are_digits(classes):
        notes.append(DIGITS_NOTE)
    first, size, grey = first_readable(files["train"], max_pixels)
    decoding = Decoding.like_first(first, size, grey, shaping, max_pixels)
    title = plain_title(root.resolve().name) or "folder"
    return ImageFolder(
        title, root, classes, files, decoding, mirror=not digits, notes=tuple(notes), only_classes=not found
    )


def plain_title(name: str) -> str:
    """Return a name without the characters that a title, which is part of the names of files, must not have."""
    return re.sub(r"[^\w.+ -]", "_", name, flags=re.ASCII)[:LONGEST_TITLE]


def split_off(
    files: list[tuple[str, int]], classes: Sequence[str], share: float, seed: int
) -> dict[Split, list[tuple[str, int]]]:
    """Split off a stratified share of the files for the test; without a test split if it is 0."""
    labels = torch.tensor([label for _, label in files])
    kept, held_out = stratified_split(labels, share, seed, classes, "test")
    found: dict[Split, list[tuple[str, int]]] = {"train": [files[n] for n in kept.tolist()]}
    return found | ({"test": [files[n] for n in held_out.tolist()]} if share else {})


def first_readable(files: Sequence[tuple[str, int]], max_pixels: int) -> tuple[str, tuple[int, int], bool]:
    """Return the first image whose header can be read, its size, and if it is grey. Raises UnreadableImageError."""
    broken = list[ValueError]()
    for path, _ in files:
        ((_, found),) = read_each([path], partial(read_header, max_pixels=max_pixels))
        if isinstance(found, NeedsOptionError):
            raise found
        if not isinstance(found, ValueError):
            return path, *found
        broken.append(found)
    raise_all(broken)
    raise AssertionError("a class has files")


def file_of(dataset: object, split: Split, index: int) -> str:
    """Return the path of an image in its data set's folder, with "/" on all systems; "" if it is not a file."""
    if not isinstance(dataset, ImageFolder):
        return ""
    return Path(dataset.files[split][index][0]).relative_to(dataset.root).as_posix()
