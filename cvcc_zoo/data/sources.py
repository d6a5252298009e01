"""Find the data set for a name or a folder, and describe it."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

from lightning.pytorch.utilities import rank_zero_info

from cvcc_zoo.data.datasets import TORCHVISION, FashionMini
from cvcc_zoo.data.folder import ImageFolder, image_folder
from cvcc_zoo.data.images import ImageDataset, data_home
from cvcc_zoo.files.own import shown
from cvcc_zoo.registry import pick

DATASETS = ("fashion-mini", *TORCHVISION, "folder")


class Served(Protocol):
    """The part of an ImageDataModule, whose file imports this one, that is described in the first line of a run."""

    dataset: ImageDataset
    num_classes: int
    in_channels: int
    image_size: int

    def count(self, stage: str) -> int:
        """Return how many images of a stage ("train", "val" or "test") are used."""


def find_dataset(name: str | None, root: str | None, **options: Any) -> ImageDataset:
    """Return the data set called `name`; by default the image folder `root`, or fashion-mini without one.

    `options` are those of `image_folder`. Raises ValueError for an unknown name, and for a root that does not belong.
    """
    name = name or ("fashion-mini" if root is None else "folder")
    name = pick("dataset", name, DATASETS, "own images: dataset=folder with root=...")
    if name == "fashion-mini":
        if root is not None:
            raise ValueError(
                f"fashion-mini is part of the package and takes no root, but got {root}; omit --data.dataset to use "
                "the images of that folder, or --data.root to use fashion-mini"
            )
        return FashionMini()
    if name in TORCHVISION:
        return TORCHVISION[name](data_home() if root is None else Path(root).expanduser())
    if root is None:
        raise ValueError("dataset=folder needs the folder of the images: --data.root=...")
    return image_folder(Path(root).expanduser(), **options)


def check_test(dataset: ImageDataset) -> None:
    """Raise ValueError if there are no test images."""
    if isinstance(dataset, ImageFolder) and "test" not in dataset.files:
        raise ValueError(
            f"{shown(dataset.root)} has no test images; add test/<class>/<image>, or, if there are no splits at all, "
            "hold out a share of each class: --data.test=0.1; `fit --test=false` trains without a test"
        )


def announce(data: Served, *stages: str, notes: Iterable[str] = ()) -> None:
    """Print on the first process which images are used, and the notes about them."""
    for line in (describe(data, *stages), *notes):
        rank_zero_info(line)


def describe(data: Served, *stages: str) -> str:
    """Return the first line of a run: which images are used, how many, and of how many classes."""
    words = {"train": "training", "val": "validation", "test": "test"}
    counts = " and ".join(f"{data.count(stage):,} {words[stage]}" for stage in stages if data.count(stage))
    place = f" ({shown(data.dataset.root)})" if isinstance(data.dataset, ImageFolder) else ""
    colour = "grey" if data.in_channels == 1 else "colour"
    return (
        f"{data.dataset.title}{place}: {counts} images of {data.num_classes} classes, "
        f"{data.image_size}x{data.image_size} pixels, {colour}"
    )
