"""Which images are used: the name of a data set, or a folder of your own."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning.pytorch.utilities import rank_zero_info

from cvcc_zoo.data.datasets import TORCHVISION, FashionMini
from cvcc_zoo.data.folder import ImageFolder, image_folder
from cvcc_zoo.data.images import ImageDataset, data_home
from cvcc_zoo.files.own import shown
from cvcc_zoo.registry import pick

if TYPE_CHECKING:
    from cvcc_zoo.data.datamodule import ImageDataModule

DATASETS = ("fashion-mini", *TORCHVISION, "folder")


def find_dataset(name: str | None, root: str | None, **options: Any) -> ImageDataset:
    """The data set of that name; without a name `root` is an image folder, and without both it is fashion-mini.

    `options` are those of `image_folder`. Raises ValueError for an unknown name, or a root where there can be none.
    """
    name = name or ("fashion-mini" if root is None else "folder")
    name = pick("dataset", name, DATASETS, "own images: dataset=folder with root=...")
    if name == "fashion-mini":
        if root is not None:
            raise ValueError(
                f"fashion-mini is inside the package and has no root, {root}; leave --data.dataset out to use the "
                "images of that folder, or --data.root to use fashion-mini"
            )
        return FashionMini()
    if name in TORCHVISION:
        return TORCHVISION[name](data_home() if root is None else Path(root).expanduser())
    if root is None:
        raise ValueError("dataset=folder needs the folder of the images: --data.root=...")
    return image_folder(Path(root).expanduser(), **options)


def check_test(dataset: ImageDataset) -> None:
    """Raise ValueError where there is nothing to test on."""
    if isinstance(dataset, ImageFolder) and "test" not in dataset.files:
        raise ValueError(
            f"{shown(dataset.root)} has no test images; add test/<class>/<image>, or, if there are no splits at all, "
            "keep a share of each class: --data.test=0.1; `fit --test=false` trains without a test"
        )


def announce(data: "ImageDataModule", *stages: str, notes: Iterable[str] = ()) -> None:
    """Say on the first process what images are used, and what was found in them."""
    for line in (describe(data, *stages), *notes):
        rank_zero_info(line)


def describe(data: "ImageDataModule", *stages: str) -> str:
    """What images are used, how many, of how many classes: the first line of a run."""
    words = {"train": "training", "val": "validation", "test": "test"}
    counts = " and ".join(f"{data.count(stage):,} {words[stage]}" for stage in stages if data.count(stage))
    place = f" ({shown(data.dataset.root)})" if isinstance(data.dataset, ImageFolder) else ""
    colour = "grey" if data.in_channels == 1 else "colour"
    return (
        f"{data.dataset.title}{place}: {counts} images of {data.num_classes} classes, "
        f"{data.image_size}x{data.image_size} pixels, {colour}"
    )
