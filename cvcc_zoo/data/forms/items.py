"""Labelled images in the forms in which Python code has them: PIL images, NumPy arrays and tensors."""

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, UnidentifiedImageError
from torch.utils.data import Subset

from cvcc_zoo.data.classes import as_text, listed
from cvcc_zoo.data.opening import UnreadableImageError, check_size

TRIED = 8  # items that are read again to see whether they change
TIMES = 3  # how often each is read; a flip of half of the images escapes with a probability of 4^-8
CHANNELS = (1, 3)  # grey and colour
FOUR = (
    "4 channels could be bands, or colours and opacity; give three of them, images of Pillow (mode RGBA) if they have "
    "transparency, or all four by a DataLoader of your own: docs/networks.md"
)
OTHERS = "other numbers of channels need a DataLoader of your own and model.whitening.fit(images): docs/networks.md"
Values = npt.NDArray[Any]


@dataclass(frozen=True)
class Items:
    """The labelled images of a split: `source[n]` is a pair (image, label), `place` is its name in messages.

    `key` changes whenever the images do; it names their decoded copy in the cache. None if that cannot be known.
    """

    source: Any
    place: str
    key: str | None = None

    def __len__(self) -> int:
        return len(self.source)

    def name(self, number: int) -> str:
        """Return the name of an item in messages, such as train[12]."""
        return f"{self.place}[{number}]"

    def pair(self, number: int, max_pixels: int) -> tuple[Image.Image, int]:
        """Return a decoded image and its label. Raises ValueError, which names the item, if one of them is invalid."""
        image, label = self._pair(number)
        return self._decoded(image, number, max_pixels), as_label(label, self.name(number))

    def picture(self, number: int, max_pixels: int) -> Image.Image:
        """Return a decoded image, whatever its label is. Raises the errors of `pair`."""
        return self._decoded(self._pair(number)[0], number, max_pixels)

    def _decoded(self, image: Any, number: int, max_pixels: int) -> Image.Image:
        found = as_picture(image, self.name(number))
        check_size(self.name(number), found.size, max_pixels)
        try:
            found.load()  # also closes its file
        except (OSError, SyntaxError) as error:
            raise UnreadableImageError(f"{self.name(number)} cannot be decoded ({error}); remove it") from error
        return found

    def _pair(self, number: int) -> tuple[Any, Any]:
        try:
            item = self.source[number]
        except OSError as error:  # of a data set that opens its files itself
            unknown = isinstance(error, UnidentifiedImageError)  # whose message names an object in memory
            reason = "its format is not known" if unknown else error
            raise UnreadableImageError(
                f"{self.name(number)} is not an image that can be read ({reason}); repair or remove it"
            ) from error
        if isinstance(item, Mapping) and {"image", "label"} <= set(item):  # torchgeo's form
            return item["image"], item["label"]
        if not isinstance(item, tuple | list) or len(item) != 2:
            raise ValueError(
                f"{self.name(number)} is a {type(item).__name__}, not a pair (image, label); give a Dataset or a "
                "list of such pairs, list(zip(images, labels))"
            )
        return item[0], item[1]

    def only(self, numbers: Sequence[int]) -> "Items":
        """Return some of the items, in this order."""
        key = self.key and f"{self.key} {torch.tensor(numbers).numpy().tobytes().hex()}"
        take = getattr(self.source, "only", None) or (lambda chosen: Subset(self.source, chosen))
        return Items(take(numbers), self.place, key)


def checked_items(source: Any, place: str) -> Items:
    """Return the items of a torch Dataset, or of a list of pairs.

    Raises ValueError for objects of other kinds, for one without items, and if its images change from one reading to
    the next: decoded only once, they would be frozen.
    """
    if isinstance(source, str | Path):
        raise ValueError(f"{place} is the name {str(source)!r}; files and names are the first argument, dataset=...")
    if isinstance(source, Mapping):
        raise ValueError(f"{place} is a dict; give a pair of arrays (images, labels), or a Dataset of pairs")
    if not hasattr(source, "__len__") or not hasattr(source, "__getitem__"):
        loader = f"; give its Dataset: {place}=loader.dataset" if hasattr(source, "dataset") else ""
        advice = loader or "; images that come as a stream become a list: list(dataset)"
        raise ValueError(
            f"{place} is a {type(source).__name__}, which has no length and no index, not a torch Dataset{advice}"
        )
    items = Items(source, place)
    if not len(items):
        raise ValueError(f"{place} has no images")
    for number in sorted({n * len(items) // TRIED for n in range(TRIED)}):
        first, *others = (np.asarray(as_picture(items._pair(number)[0], items.name(number))) for _ in range(TIMES))
        if not all(np.array_equal(first, other) for other in others):
            raise ValueError(
                f"{items.name(number)} changes each time it is read, and images are decoded only once; remove the "
                "random transforms from the Dataset, and choose augmentations instead: augmentations=..."
            )
    return items


def as_picture(image: Any, where: str) -> Image.Image:
    """Return an image as a PIL image, without copying it if it is one.

    Tensors are (C, H, W) or (H, W), NumPy arrays (H, W), (H, W, C) or (C, H, W) with 1 or 3 channels; both have
    values uint8 or float in [0, 1]. Raises ValueError, which begins with `where`, for anything else.
    """
    if isinstance(image, Image.Image):
        return image
    if isinstance(image, torch.Tensor):
        values = image.detach().cpu()
        values = values.float() if values.is_floating_point() else values
        array = values.numpy() if values.ndim != 3 else values.permute(1, 2, 0).numpy()
        if array.ndim == 3 and array.shape[2] not in CHANNELS:
            raise ValueError(
                f"{where} is a tensor of the shape {tuple(image.shape)}, not (C, H, W) with C 1 or 3; "
                f"{channels_refused(image.shape, is_tensor=True)}"
            )
    elif isinstance(image, np.ndarray):
        array = image if image.ndim != 3 else channels_last(image, where)
    else:
        raise ValueError(f"{where} has a {type(image).__name__} as its image, not a PIL image, NumPy array or tensor")
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    if array.ndim not in (2, 3) or 0 in array.shape:
        raise ValueError(f"{where} has the shape {tuple(image.shape)}; an image is (H, W), (H, W, C) or (C, H, W)")
    return Image.fromarray(np.ascontiguousarray(eight_bit(array, where)))


def eight_bit(values: Values, where: str) -> npt.NDArray[np.uint8]:
    """Return values as uint8; floats are scaled from [0, 1]. Raises ValueError for other types and values."""
    if values.dtype == np.uint8:
        return values
    if not np.issubdtype(values.dtype, np.floating):
        raise ValueError(
            f"{where} has values of type {values.dtype}; images are uint8, 0 to 255: scale larger values with one "
            "factor for all images, and convert them"
        )
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and high <= 1):  # also for NaN
        raise ValueError(
            f"{where} has float values from {low:g} to {high:g}, which must be in [0, 1]; remove Normalize from its "
            "transforms (models whiten images themselves), or scale the values with one factor for all images"
        )
    return (values * 255).round().astype(np.uint8)


def channels_last(values: Values, where: str) -> Values:
    """Return an array (..., H, W, C) or (..., C, H, W) as a view (..., H, W, C), by which side can be channels.

    Raises ValueError if both sides can be, or none.
    """
    first, last = values.shape[-3] in CHANNELS, values.shape[-1] in CHANNELS
    if first and last:
        raise ValueError(
            f"{where} has the shape {values.shape}, and the channels could be the first or the last side; give "
            "(N, H, W, C) or (N, C, H, W) with larger sides, or a torch tensor, which is always (N, C, H, W)"
        )
    if not (first or last):
        refused = channels_refused(values.shape)
        raise ValueError(f"{where} has the shape {values.shape}, and no side has 1 or 3 channels; {refused}")
    return values if last else np.moveaxis(values, -3, -1)


def channels_refused(shape: Sequence[int], *, is_tensor: bool = False) -> str:
    """Return what to do with images of a shape (..., H, W, C) or (..., C, H, W) in which C is not 1 or 3."""
    if is_tensor and shape[-1] in CHANNELS:
        return "give images.movedim(-1, -3), as the channels of a tensor come first"
    return FOUR if 4 in (shape[-3], shape[-1]) else OTHERS


def as_label(label: Any, where: str) -> int:
    """Return a label as a number. Raises ValueError unless it is an integer of at least 0."""
    if label is None:
        raise ValueError(f"{where} has no label; remove it, or leave out the whole split if it has no labels")
    try:
        number = operator.index(label.item() if getattr(label, "size", None) == 1 else label)
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(
            f"{where} has the label {str(label)[:50]!r}, which is not an integer; number the classes from 0, and give "
            "their names as classes=[...]"
        ) from None
    if number < 0:
        raise ValueError(f"{where} has the label {number}; labels begin at 0, so leave out a split without labels")
    return number


def class_names(source: Any) -> tuple[str, ...] | None:
    """Return the names in `source.classes`, also through Subset and the like, or None if there are none.

    Of several synonyms, as in ImageNet, the first is the name.
    """
    while not hasattr(source, "classes") and hasattr(source, "dataset"):
        source = source.dataset
    if (names := listed(getattr(source, "classes", None))) is None:
        return None
    return tuple(as_text(name[0] if isinstance(name, list | tuple) else name) for name in names)
