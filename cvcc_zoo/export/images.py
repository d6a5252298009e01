"""Images on which an exported program is compared with its model: those of the model's run, or of a data set."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from cvcc_zoo.data import ImageDataModule
from cvcc_zoo.data.images import reshape
from cvcc_zoo.export.program import BATCHES
from cvcc_zoo.files.own import expanded
from cvcc_zoo.zoo.trained import Trained

FETCHED = ("torchvision.", "hf:")
"""Prefixes of the names of data sets that may be downloaded when they are opened."""


@dataclass(frozen=True)
class CheckImages:
    """Images of a model's size and channels, uint8 (64, C, H, W), and where they come from."""

    images: Tensor
    title: str
    """Their split and data set, such as "test images of cats"."""
    note: str = ""
    """Why they are not those of the model's run; empty if they are, or if it has none."""


def images_to_check(trained: Trained, dataset: str | None, root: str | None) -> CheckImages:
    """Return test images of a data set, or if none is given those of the model's run, or else of fashion-mini.

    If there are no test images, they are validation images, or else training images. They are prepared as in the run.
    Its data set is not downloaded again; a note gives the reason if it cannot be read. A model of other than 1 or 3
    channels gets random values. Raises ValueError or OSError for a given data set that cannot be used.
    """
    size, channels = trained.model.image_size, trained.model.in_channels
    if channels not in (1, 3):
        if dataset is not None or root is not None:
            raise ValueError(
                f"images have 1 or 3 channels, and {trained.name} takes {channels}; leave --data.dataset and "
                "--data.root out, to check the program on random values"
            )
        drawn, generator = (sum(BATCHES), channels, size, size), torch.Generator().manual_seed(0)
        values = torch.randint(0, 256, drawn, dtype=torch.uint8, generator=generator)
        return CheckImages(values, "images of random values")
    shape: dict[str, Any] = {"image_size": size, "in_channels": channels}
    if dataset is not None or root is not None:
        given = {name: value for name, value in {"dataset": dataset, "root": root}.items() if value is not None}
        options = {**trained.image_options(dataset), **given, "follow_links": True}  # the user has named the folder
        data = _made({**options, **shape})
        data.prepare_data()
        return _some(data)
    note = ""
    if trained.data:
        try:
            return _some(_of_run({**trained.image_options(), **shape}))
        except (OSError, ValueError, TypeError) as error:
            note = f"the images of its run cannot be read ({' '.join(str(error).split())})"
    return replace(_some(ImageDataModule(**shape)), note=note)


def _of_run(options: dict[str, Any]) -> ImageDataModule:
    """Return the data of a run. Raises ValueError or OSError if they are not on this machine."""
    name = str(options.get("dataset") or "")
    if name.startswith(FETCHED) and not expanded(name.removeprefix("hf:")).exists():
        raise ValueError(f"{name} may have to be downloaded; give it as --data.dataset={name}")
    return _made(options)


def _made(options: dict[str, Any]) -> ImageDataModule:
    return ImageDataModule(**{**options, "augmentations": "none"})  # so no import path in a file is followed


def _some(data: ImageDataModule) -> CheckImages:
    """Return 64 images at evenly spread positions, some repeatedly if there are fewer."""
    images, places, words = _best_split(data)
    count = sum(BATCHES)
    chosen = images[places[torch.arange(count) * len(places) // count]]
    return CheckImages(reshape(chosen, data.image_size, data.in_channels), f"{words} images of {data.dataset.title}")


def _best_split(data: ImageDataModule) -> tuple[Tensor, Tensor, str]:
    """Return images, the positions of those to take, and the name of their split."""
    for split, words in (("test", "test"), ("val", "validation")):
        if split in data.dataset.splits and (found := data.dataset.load(split)) is not None:
            return found.images, torch.arange(len(found.labels)), words
    train = data.dataset.load("train")
    assert train is not None
    kept, others = data.held_out.split(train.labels, data.split_seed, data.classes)
    return (train.images, others, "validation") if len(others) else (train.images, kept, "training")
