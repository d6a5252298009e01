"""Find the splits and the classes of an image folder."""

import os
import unicodedata
from pathlib import Path

from cvcc_zoo.data.classes import is_printable
from cvcc_zoo.data.finding import Links
from cvcc_zoo.data.images import Split
from cvcc_zoo.files.own import LOCK, shown

NAMES: dict[str, Split] = {
    "train": "train", "training": "train",
    "val": "val", "valid": "val", "validation": "val", "dev": "val",
    "test": "test", "testing": "test",
}  # fmt: skip
"""Names of folders that are splits, in any case."""
LAYOUT = (
    "expected train/<class>/<image>, test/<class>/<image> and, if you have one, val/<class>/<image>; "
    "or only <class>/<image>, which is then split"
)
Classes = dict[str, list[str]]


def find_splits(root: Path, links: Links) -> tuple[dict[Split, Path], list[str]]:
    """Return the folder of each split, and the names of the other folders; no splits if all folders are classes.

    A folder `train` is a class if it has no folders and there are other classes. Raises ValueError if two folders are
    the same split, and FileNotFoundError if there is no `train`.
    """
    found: dict[Split, Path] = {}
    others = []
    for entry in links.entries(root):
        if not entry.is_dir():
            continue
        path, split = Path(entry.path), NAMES.get(entry.name.casefold())
        if split is None:
            others.append(entry.name)
        elif split in found:
            raise ValueError(f"{shown(found[split])} and {shown(path)} are the same split; keep one of them")
        else:
            found[split] = path
    if others and not any(entry.is_dir() for path in found.values() for entry in links.entries(path)):
        return {}, []
    if "train" not in found:
        raise FileNotFoundError(f"the image folder {shown(root)} has no folder 'train'; {LAYOUT}")
    return found, others


def find_classes(folder: Path, links: Links) -> Classes:
    """Map each class name to its files by name, including subfolders but not hidden files and folders.

    Names are normalised to Unicode's composed form, because macOS writes them decomposed.
    """
    classes: Classes = {}
    links.check(folder)
    for entry in links.entries(folder):
        place = shown(entry.path)
        if not entry.is_dir():
            raise ValueError(f"{place} is a file, where only class folders belong; move it away")
        if not is_printable(entry.name):
            raise ValueError(f"the class folder {place} has a name with unprintable characters; rename it")
        paths = links.files(Path(entry.path))
        if runs := [path for path in paths if os.path.basename(path) == "config.yaml"]:  # noqa: PTH119
            raise ValueError(
                f"{place} has {shown(runs[0])}, like a training run, but each folder here is a class; move it elsewhere"
            )
        if not paths and any(Path(entry.path).rglob(LOCK)):
            raise ValueError(
                f"{place} is the folder of a command, and would be a class here; give that command one outside of the "
                "images, or remove this one if none is running"
            )
        if not paths:
            raise ValueError(f"the class folder {place} has no images; add some or remove the folder")
        classes.setdefault(unicodedata.normalize("NFC", entry.name), []).extend(paths)
    return classes


def check_several(folder: Path, classes: Classes) -> None:
    """Raise ValueError if there are fewer than two classes."""
    if len(classes) < 2:
        raise ValueError(f"{shown(folder)} has {len(classes)} class folders, but at least 2 are needed; {LAYOUT}")


def check_same_classes(found: dict[Split, Classes], folders: dict[Split, Path]) -> None:
    """Raise ValueError if a split has other classes than `train`."""
    classes = set(found["train"])
    for split, others in found.items():
        for name in sorted(classes ^ set(others)):
            places = [folders["train"], folders[split]]
            here, there = map(shown, places if name in classes else reversed(places))
            raise ValueError(
                f"the class {name!r} is in {here} but not in {there}; "
                "every split needs the same class folders: add its images or remove the folder"
            )


def labelled(classes: Classes) -> list[tuple[str, int]]:
    """Return (path, label) pairs, class by class in the order of their names."""
    return [(path, label) for label, name in enumerate(sorted(classes)) for path in classes[name]]
