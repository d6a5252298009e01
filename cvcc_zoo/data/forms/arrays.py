"""Images and labels as arrays: NumPy arrays, tensors, and the files .npz and .npy."""

import re
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cvcc_zoo.data.classes import as_text
from cvcc_zoo.data.forms.items import CHANNELS, Items, Values, channels_last, channels_refused
from cvcc_zoo.data.images import Split
from cvcc_zoo.data.layout import NAMES
from cvcc_zoo.files.own import shown

IMAGES, LABELS, CLASSES = ("images", "x", "data"), ("labels", "y", "targets"), ("classes", "class_names", "label_names")
KEYS = "train_images and train_labels, test_images and test_labels (or x_train, y_train, x_test, y_test)"


class Arrays:
    """Images (N, H, W, C) of any type with labels (N,): `source[n]` is a pair."""

    def __init__(self, images: Values, labels: Values) -> None:
        self.images, self.labels = images, labels

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, number: int) -> tuple[Values, int]:
        image = self.images[number]
        return (image[..., 0] if image.shape[-1] == 1 else image), int(self.labels[number])

    def only(self, numbers: Sequence[int]) -> "Arrays":
        """Return some of the images."""
        return Arrays(self.images[list(numbers)], self.labels[list(numbers)])


def is_arrays(value: Any) -> bool:
    """Return whether a value is a pair of arrays or tensors: images and labels."""
    kinds = np.ndarray | torch.Tensor
    return isinstance(value, tuple | list) and len(value) == 2 and isinstance(value[0], kinds)


def array_items(images: Any, labels: Any, place: str) -> Items:
    """Return the items of arrays: images (N, H, W), (N, H, W, C) or (N, C, H, W), and labels (N,) or (N, 1).

    A tensor with four sides is always (N, C, H, W). Raises ValueError for other shapes, unequal lengths, and labels
    that are not integers.
    """
    is_tensor = isinstance(images, torch.Tensor)
    if is_tensor:  # NumPy has no bfloat16
        values = (images.float() if images.dtype == torch.bfloat16 else images).detach().cpu().numpy()
    else:
        values = np.asanyarray(images)
    if values.ndim not in (3, 4) or 0 in values.shape:
        raise ValueError(
            f"{place} has images of the shape {values.shape}; give uint8 as (N, H, W), (N, H, W, C) or (N, C, H, W)"
        )
    if values.ndim == 3:
        values = values[..., None]
    elif not is_tensor:
        values = channels_last(values, place)
    elif values.shape[1] in CHANNELS:
        values = np.moveaxis(values, 1, -1)
    else:
        raise ValueError(
            f"{place} has images in a tensor of the shape {values.shape}, not (N, C, H, W) with C 1 or 3; "
            f"{channels_refused(values.shape, is_tensor=True)}"
        )
    numbers = labels.detach().cpu().numpy() if isinstance(labels, torch.Tensor) else np.asarray(labels)
    if numbers.ndim == 2 and numbers.shape[1] == 1:
        numbers = numbers[:, 0]
    if numbers.ndim != 1:
        rows = "; for one-hot rows take labels.argmax(1); several labels for one image are not supported"
        more = rows * (numbers.ndim == 2)
        raise ValueError(f"{place} has labels of the shape {numbers.shape}; give one for each image, (N,){more}")
    if len(numbers) != len(values):
        raise ValueError(f"{place} has {len(values):,} images and {len(numbers):,} labels; give one for each")
    if not np.issubdtype(numbers.dtype, np.integer):
        raise ValueError(
            f"{place} has labels of type {numbers.dtype}, which must be integers from 0; for names, "
            "classes, labels = numpy.unique(labels, return_inverse=True)"
        )
    return Items(Arrays(values, numbers), place)


def array_file(path: Path) -> tuple[dict[Split, Items], tuple[str, ...] | None]:
    """Return the splits in a .npz file, or in a .npy file and those beside it, and the names of the classes, if any.

    A .npy file is recognised by its own name, such as x_train.npy, and is memory-mapped. Nothing is unpickled. Raises
    FileNotFoundError, or ValueError for a file that is not what its name says, whose name says nothing, or without
    training images and labels.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {shown(path)}; give the path of a .npz or .npy file")
    if path.suffix.lower() != ".npz" and _meaning(path.stem) is None:
        raise ValueError(f"the name of {shown(path)} does not say what it holds; expected {KEYS}, each with .npy")
    try:
        if path.suffix.lower() == ".npz":
            with np.load(path, allow_pickle=False) as file:
                found = {key: file[key] for key in file.files if _meaning(key)}
                names: Iterable[str] = file.files
        else:
            beside = {each.stem: each for each in sorted(path.parent.iterdir()) if each.suffix.lower() == ".npy"}
            alike = [each for each in beside.values() if each.stem.casefold() == path.stem.casefold()]
            if not any(each.samefile(path) for each in alike):  # as where the disk ignores case
                beside[path.stem] = path
            names = list(beside)
            found = {key: np.load(beside[key], mmap_mode="r", allow_pickle=False) for key in names if _meaning(key)}
    except (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile, AttributeError) as error:
        reason = "it is not a NumPy file" if "pickled (object)" in str(error) else error  # advises allow_pickle=True
        raise ValueError(
            f"{shown(path)} cannot be read ({reason}); save plain arrays with numpy.savez or numpy.save, without "
            "objects"
        ) from error
    return _splits(found, names, path)


def _splits(
    found: Mapping[str, Values], names: Iterable[str], path: Path
) -> tuple[dict[Split, Items], tuple[str, ...] | None]:
    """Sort arrays by what their names mean."""
    parts: dict[tuple[Split, str], str] = {}
    classes = None
    for key in found:
        meaning = _meaning(key)
        assert meaning is not None
        if meaning == "classes":
            classes = tuple(map(as_text, found[key].ravel()))
        elif meaning in parts:
            raise ValueError(f"{shown(path)} has {parts[meaning]} and {key} for the same; remove one of them")
        else:
            parts[meaning] = key
    if ("train", "images") not in parts:
        raise ValueError(f"{shown(path)} has the arrays {', '.join(map(repr, names)) or 'none'}; expected {KEYS}")
    splits: dict[Split, Items] = {}
    for split in ("train", "val", "test"):
        if (images := parts.get((split, "images"))) is None:
            continue
        if (labels := parts.get((split, "labels"))) is None:
            raise ValueError(f"{shown(path)} has {images!r}, but no labels for it; expected {KEYS}")
        splits[split] = array_items(found[images], found[labels], f"{images} of {shown(path)}")
    return splits, classes


def _meaning(key: str) -> Any:
    """Return (split, "images" or "labels") or "classes" for the name of an array, or None."""
    words = re.findall(r"[a-z]+", key.casefold())
    if "_".join(words) in CLASSES:
        return "classes"
    kinds = ["images" if word in IMAGES else "labels" for word in words if word in (*IMAGES, *LABELS)]
    splits = [NAMES[word] for word in words if word in NAMES]
    if len(kinds) != 1 or len(splits) > 1 or len(words) != len(kinds) + len(splits):
        return None
    return (splits[0] if splits else "train"), kinds[0]
