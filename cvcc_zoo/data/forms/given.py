"""A data set made of items: decoded once, with checked labels."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_info

from cvcc_zoo.data.classes import DIGITS_NOTE, are_digits, check_class_names, check_same_classes, renamed
from cvcc_zoo.data.decode import DecodedDataset, Decoding, Tally
from cvcc_zoo.data.decoded import keep_remarks, tell_remarks
from cvcc_zoo.data.folder import plain_title
from cvcc_zoo.data.forms.arrays import Arrays, array_items, is_arrays
from cvcc_zoo.data.forms.items import Items, checked_items, class_names
from cvcc_zoo.data.images import Images, Split, data_home, mapped, share
from cvcc_zoo.data.shaping import Shaping, is_grey
from cvcc_zoo.files.own import whole_file
from cvcc_zoo.printing.progress import tracked


@dataclass(frozen=True)
class GivenDataset(DecodedDataset):
    """A data set of items. Each split is decoded when it is first loaded, into a memory-mapped file in the cache."""

    title: str
    classes: tuple[str, ...]
    items: dict[Split, Items]
    decoding: Decoding
    mirror: bool = True
    notes: tuple[str, ...] = ()
    public: bool = False
    loaded: dict[Split, Images] = field(default_factory=dict, repr=False, compare=False)

    @property
    def splits(self) -> tuple[Split, ...]:
        """The splits that there are."""
        return tuple(self.items)

    def prepare(self) -> None:
        """Decode every split. Raises ValueError for the first image or label that does not fit."""
        for split in self.items:
            self.load(split)

    def load(self, split: Split) -> Images | None:
        """Load the decoded images of a split; None if there is no such split."""
        if split not in self.items:
            return None
        if split not in self.loaded:
            found = decoded(self.items[split], self.decoding, f"{self.title}-{split}")
            check_labels(found.labels, self.classes, self.items[split], whole=split == "train")
            self.loaded[split] = found
        return self.loaded[split]


def given_dataset(
    title: str,
    items: dict[Split, Items],
    classes: Sequence[str] | None,
    shaping: Shaping,
    max_pixels: int,
    notes: tuple[str, ...] = (),
    **more: Any,
) -> GivenDataset:
    """Return a data set of items. The first training image is read; without `classes`, all training images are.

    Unless `mirror` is given, classes called 0 to 9 are digits, whose mirror images are others; numbers without names
    are not. Raises ValueError if that image does not fit, or there are fewer than two classes.
    """
    first = items["train"].picture(0, max_pixels)
    decoding = Decoding.like_first(items["train"].name(0), first.size, is_grey(first), shaping, max_pixels)
    title, loaded = plain_title(title) or "images", dict[Split, Images]()
    if "mirror" not in more and classes is not None and are_digits(classes):
        more["mirror"] = False
        notes += (DIGITS_NOTE,)
    if classes is None:
        loaded["train"] = decoded(items["train"], decoding, f"{title}-train")
        classes = numbered_classes(loaded["train"].labels, items["train"])
    if len(set(classes)) < max(2, len(classes)):
        raise ValueError(f"{items['train'].place} needs at least two classes with different names, got {list(classes)}")
    check_class_names(tuple(map(str, classes)), items["train"].place)
    return GivenDataset(title, tuple(map(str, classes)), items, decoding, notes=notes, loaded=loaded, **more)


def from_objects(
    given: Mapping[Split, Any], classes: Sequence[str] | None, shaping: Shaping, max_pixels: int
) -> GivenDataset:
    """Return the data set of objects: for each split a torch Dataset, or a pair of arrays (images, labels).

    Raises ValueError if there are no training images, if the names of the classes differ between splits, unless they
    are given, and if `classes` are the names of a split in another order.
    """
    if given.get("train") is None:
        raise ValueError("val, test and classes as objects belong to training images; give train=... too")
    items: dict[Split, Items] = {}
    names: dict[Split, tuple[str, ...] | None] = {}
    for split, value in given.items():
        if value is None:
            continue
        if is_arrays(value):
            items[split], names[split] = array_items(value[0], value[1], split), None
        elif type(value).__module__.partition(".")[0] == "datasets":  # Hugging Face's
            from cvcc_zoo.data.forms.hugging_face import hugging_face_items

            known = None if split == "train" else [each for each in (names["train"], classes) if each]
            items[split], names[split] = hugging_face_items(value, split, classes, known)
        else:
            items[split], names[split] = checked_items(value, split), class_names(value)
        if classes is None and names["train"] is not None and (own := names[split]) is not None:
            check_same_classes(names["train"], own, split)
        renamed(classes, names[split], split)
    return given_dataset("images", items, renamed(classes, names["train"], "train"), shaping, max_pixels)


def decoded(items: Items, decoding: Decoding, title: str) -> Images:
    """Return the images of a split as the decoding makes them, from the cache if they are there."""
    source = items.source
    if isinstance(source, Arrays) and _is_done(source, decoding):
        pixels = torch.from_numpy(np.require(np.moveaxis(source.images, -1, 1), requirements=["C", "W"]))
        return Images(share(pixels, title), torch.from_numpy(source.labels.astype(np.int64)))
    if items.key is None:
        found, _ = _read(items, decoding, title)
        return Images(share(found.images, title), found.labels)
    shape = (len(items), decoding.in_channels, decoding.image_size, decoding.image_size)
    name = hashlib.sha256(f"{items.key} {decoding}".encode()).hexdigest()[:16]
    return _kept(f"{title}-{name}.items", shape, title, lambda: _read(items, decoding, title))


def _is_done(source: Arrays, decoding: Decoding) -> bool:
    """Return whether the arrays are what decoding would make of them."""
    shape = (decoding.image_size, decoding.image_size, decoding.in_channels)
    return source.images.dtype == np.uint8 and source.images.shape[1:] == shape


def _read(items: Items, decoding: Decoding, title: str) -> tuple[Images, Tally]:
    """Decode all items in this process, count them, and print what a user should know about them."""
    images = torch.empty((len(items), *decoding.none().shape[1:]), dtype=torch.uint8)
    labels, tally = torch.empty(len(items), dtype=torch.int64), Tally()
    for number in tracked(range(len(items)), f"decoding {title}", len(items), lambda _: 1):
        picture, label = items.pair(number, decoding.max_pixels)
        images[number] = torch.from_numpy(decoding.pixels(items.name(number), picture, tally))
        labels[number] = label
    for line in tally.lines():
        rank_zero_info(f"{title}: {line}")
    return Images(images, labels), tally


def _kept(name: str, shape: tuple[int, ...], title: str, make: Callable[[], tuple[Images, Tally]]) -> Images:
    """Return the images and labels in a file of the cache, which `make` makes if it is missing or incomplete.

    The file holds the pixels, then the labels as int64. If it cannot be written or read, the images stay in memory.
    """
    target, size = data_home() / "decoded" / name, torch.Size(shape).numel()
    if target.is_file() and target.stat().st_size == size + 8 * shape[0]:
        tell_remarks(target, title)
    else:
        made, tally = make()
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            keep_remarks(target, tally)
            with whole_file(target) as file:
                file.write(made.images.numpy().data)
                file.write(made.labels.numpy().data)
        except OSError:
            return made
    try:
        return Images(mapped(target, shape), torch.from_numpy(np.fromfile(target, dtype=np.int64, offset=size)))
    except OSError:  # the file of another user
        return make()[0]


def numbered_classes(labels: torch.Tensor, items: Items) -> list[str]:
    """Name classes by their numbers, 0 to the largest label. Raises ValueError for a negative label or a gap."""
    found = torch.unique(labels)  # sorted; the largest label may be 10^9, so that a name for each would fill the memory
    wrong = (found != torch.arange(len(found))).nonzero().flatten()
    if len(wrong):
        label, missing = int(found[wrong[0]]), int(wrong[0])
        where = items.name(int((labels == label).nonzero()[0]))
        problem = "labels begin at 0" if label < 0 else f"no image has the label {missing}"
        raise ValueError(
            f"{where} has the label {label}, but {problem}; number the classes without gaps from 0: "
            "classes, labels = numpy.unique(labels, return_inverse=True)"
        )
    return [str(number) for number in range(len(found))]


def check_labels(labels: torch.Tensor, classes: Sequence[str], items: Items, *, whole: bool) -> None:
    """Raise ValueError for a label without a class and, with `whole`, for a class without images."""
    wrong = ((labels < 0) | (labels >= len(classes))).nonzero().flatten()
    if len(wrong):
        raise ValueError(
            f"{items.name(int(wrong[0]))} has the label {int(labels[wrong[0]])}, but there are {len(classes)} classes, "
            f"0 to {len(classes) - 1}; correct the label, or give the names of all classes as classes=[...]"
        )
    missing = (torch.bincount(labels, minlength=len(classes)) == 0).nonzero().flatten().tolist()
    if whole and missing:
        raise ValueError(
            f"{items.place} has no images of class {missing[0]} ({classes[missing[0]]!r}); add some, or number the "
            "classes without gaps from 0"
        )
