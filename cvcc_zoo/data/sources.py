"""Which images are used: the name of a data set, or a folder of your own."""

from pathlib import Path
from typing import Any

from cvcc_zoo.data.datasets import TORCHVISION, FashionMini
from cvcc_zoo.data.folder import image_folder
from cvcc_zoo.data.images import ImageDataset, data_home
from cvcc_zoo.registry import unknown

DATASETS = ("fashion-mini", *TORCHVISION, "folder")


def find_dataset(name: str | None, root: str | None, **options: Any) -> ImageDataset:
    """The data set of that name; without a name `root` is an image folder, and without both it is fashion-mini.

    `options` are those of `image_folder`. Raises ValueError for an unknown name, or a root where there can be none.
    """
    name = name or ("fashion-mini" if root is None else "folder")
    if name == "fashion-mini":
        if root is not None:
            raise ValueError(
                f"fashion-mini is inside the package and has no root, {root}; leave --data.dataset out to use the "
                "images of that folder, or --data.root to use fashion-mini"
            )
        return FashionMini()
    if name in TORCHVISION:
        return TORCHVISION[name](data_home() if root is None else Path(root).expanduser())
    if name != "folder":
        raise unknown("dataset", name, DATASETS, "own images: dataset=folder with root=...")
    if root is None:
        raise ValueError("dataset=folder needs the folder of the images: --data.root=...")
    return image_folder(Path(root).expanduser(), **options)
