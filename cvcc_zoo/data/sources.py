"""Find the data set for a name, a folder, a file or objects, and describe it."""

import inspect
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from numbers import Real
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning.pytorch.utilities import rank_zero_info

from cvcc_zoo.data.classes import DIGITS_NOTE, as_text, listed, renamed
from cvcc_zoo.data.datasets import TORCHVISION, FashionMini
from cvcc_zoo.data.folder import FILES, ImageFolder, image_folder
from cvcc_zoo.data.forms.given import from_objects, given_dataset
from cvcc_zoo.data.forms.hugging_face import PREFIX
from cvcc_zoo.data.forms.torchvision_sets import torchvision_dataset
from cvcc_zoo.data.forms.torchvision_table import PREFIX as TORCHVISION_PREFIX
from cvcc_zoo.data.forms.torchvision_table import SAME, TABLE
from cvcc_zoo.data.images import ImageDataset, Split, data_home
from cvcc_zoo.data.shaping import Shaping
from cvcc_zoo.files.own import expanded, shown
from cvcc_zoo.kinds import check_kinds
from cvcc_zoo.registry import as_typed, pick

if TYPE_CHECKING:
    Test = Any  # a share of the images, or test images
else:
    Test = float  # what the command line takes

OBJECTS = ("train", "val")
"""Parameters of ImageDataModule that the command line does not have; `test` takes an object or a number."""
DATASETS = ("fashion-mini", *TORCHVISION, "folder")
NAMES = (*DATASETS, *(f"{TORCHVISION_PREFIX}{name}" for name in TABLE))
"""All names; `hf:NAME` and files are beside them."""
ARRAYS = (".npz", ".npy")
HINT = "own images: a root with class folders, a file .npz, hf:NAME of Hugging Face, or torchvision.NAME"


def sort_options(function: Callable[..., Any], given: Mapping[str, Any]) -> tuple[dict[Split, Any], dict[str, Any]]:
    """Divide the arguments of ImageDataModule's constructor into objects with images, by split, and all other options.

    `test` is an object unless it is a number or a text. Raises ValueError for a share outside [0, 1), a batch size
    below 1, other values of the wrong kind, a data set that is not a name, and class names that are not a list.
    """
    options = {name: value for name, value in given.items() if name not in ("self", "__class__", *OBJECTS)}
    if isinstance(options["dataset"], PathLike):
        options["dataset"] = str(options["dataset"])
    if not isinstance(options["dataset"], str | None):
        raise ValueError(
            f"a dataset has a name, and not a {type(options['dataset']).__name__}; give images as train=..."
        )
    if not isinstance(options["root"], str | PathLike | None):
        raise ValueError(f"root is the path of a folder, got {options['root']!r}")
    objects: dict[Split, Any] = {"train": given["train"], "val": given["val"]}
    if isinstance(options["validation"], str) and given["val"] is not None:
        raise ValueError(
            f"validation={options['validation']} holds out a fold of the training images, and val gives other images; "
            "leave one of them out"
        )
    if not isinstance(options["test"], Real | str):
        objects["test"] = options.pop("test")
    check_kinds(inspect.signature(function).parameters, options)
    if options["batch_size"] < 1:
        raise ValueError(f"batch_size must be at least 1, got {options['batch_size']}")
    if not 0 <= (test := options.get("test", 0.0)) < 1:
        raise ValueError(f"test must be a share of the images in [0, 1), got {test}")
    if (classes := options["classes"]) is not None:
        if (names := listed(classes)) is None:
            raise ValueError(f"classes must be a list of names in the order of their labels, got {classes!r}")
        options["classes"] = [as_text(name) for name in names]
    return {split: value for split, value in objects.items() if value is not None}, options


def find_dataset(given: Mapping[str, Any], shaping: Shaping, objects: Mapping[Split, Any]) -> ImageDataset:
    """Return the data set of the `objects`, else the one that the options of an ImageDataModule name.

    By default it is the image folder `root`, or fashion-mini without one. Raises ValueError for an unknown name, and
    for a root or class names that do not belong.
    """
    name, root, classes, max_pixels = (given[option] for option in ("dataset", "root", "classes", "max_pixels"))
    for option in ("dataset", "root"):
        if given[option] == "":  # Path("") is the current folder
            raise ValueError(f"{option} is an empty text; leave it out, or write which images you mean")
    if objects:
        if name is not None or root is not None:
            raise ValueError(f"images come from {' and '.join(objects)}=... or from {name or root}; give one of them")
        return from_objects(objects, classes, shaping, max_pixels)
    if name is not None and (name.startswith(PREFIX) or Path(name).suffix.lower() in ARRAYS):
        if root is not None:
            raise ValueError(
                f"{name} takes no root, but got {root}; for the images of that folder choose --data.dataset=folder, or "
                "write the whole path into --data.dataset"
            )
        return _of_file(name, classes, shaping, max_pixels)
    if classes is not None:
        raise ValueError(f"{name or root or 'fashion-mini'} names or numbers its own classes; leave classes out")
    name = name or ("fashion-mini" if root is None else "folder")
    share = given.get("test", 0.0)
    if name.casefold().startswith(TORCHVISION_PREFIX) and (name := _of_torchvision(name)) not in DATASETS:
        place, own = _data_root(root), {"split_seed": given["split_seed"], "max_pixels": max_pixels}
        return torchvision_dataset(name, place, shaping, test=share, **own)
    if Path(name).suffix and expanded(name).is_file():
        raise ValueError(f"{shown(name)} is a file of another kind: {FILES}")
    name = pick("dataset", name, DATASETS, HINT)
    if name == "fashion-mini":
        if root is not None:
            raise ValueError(
                f"fashion-mini is part of the package and takes no root, but got {root}; for the images of that "
                "folder choose --data.dataset=folder, or omit --data.root to use fashion-mini"
            )
        return FashionMini()
    if name in TORCHVISION:
        return TORCHVISION[name](_data_root(root))
    if root is None:
        raise ValueError("dataset=folder needs the folder of the images: --data.root=...")
    own = {option: given[option] for option in ("split_seed", "follow_links", "max_pixels")}
    return image_folder(expanded(root), shaping, test=share, **own)


def place_of(options: Mapping[str, Any]) -> tuple[str | None, Path | None]:
    """Return which data set and folder the options of an ImageDataModule name, however their paths are written."""
    name, root = options.get("dataset"), options.get("root")
    if name is not None and Path(str(name)).suffix.lower() in ARRAYS:
        name = str(expanded(str(name)).resolve())
    return name or ("folder" if root else None), expanded(str(root)).resolve() if root else None


def _data_root(root: str | None) -> Path:
    return data_home() if root is None else expanded(root)


def _of_torchvision(name: str) -> str:
    """Return the name of a data set of the table, or one of DATASETS, for torchvision.NAME as people type it."""
    name = name[len(TORCHVISION_PREFIX) :]
    parts = [known for known in TABLE if known.casefold().startswith(f"{name.casefold()}.")]
    if parts and as_typed(name, [*TABLE, *SAME]) is None:
        raise ValueError(
            f"torchvision.{name} is several data sets; choose torchvision.{' or torchvision.'.join(parts)}"
        )
    known = pick("torchvision data set", name, [*TABLE, *SAME], "docs/datasets.md lists them")
    return SAME.get(known, known)


def _of_file(name: str, classes: Sequence[str] | None, shaping: Shaping, max_pixels: int) -> ImageDataset:
    """Return the data set in a file of arrays, or of Hugging Face."""
    notes: tuple[str, ...] = ()
    if name.startswith(PREFIX):
        from cvcc_zoo.data.forms.hugging_face import load

        title, items, names, notes = load(name, classes)
    else:
        from cvcc_zoo.data.forms.arrays import array_file

        path = expanded(name)
        title = path.stem if path.suffix.lower() == ".npz" else path.absolute().parent.name
        items, names = array_file(path)
    return given_dataset(title, items, renamed(classes, names, name), shaping, max_pixels, notes=notes)


def check_test(dataset: ImageDataset) -> None:
    """Raise ValueError if there are no test images."""
    if "test" in dataset.splits:
        return
    if isinstance(dataset, ImageFolder):
        add = "add test/<class>/<image>"
        if dataset.only_classes or dataset.public:  # --data.test=0 was chosen
            alone = min(Counter(label for _, label in dataset.files["train"]).values()) == 1
            add = "add images to the classes of one, and " * alone + "hold out a share of each class: --data.test=0.1"
        raise ValueError(f"{shown(dataset.root)} has no test images; {add}; `fit --test=false` trains without a test")
    raise ValueError(
        f"{dataset.title} has no test images; add some (ImageDataModule(train=..., test=...), test_images and "
        "test_labels in a file of arrays); `fit --test=false` trains without a test"
    )


def announce(
    dataset: ImageDataset, in_channels: int, image_size: int, counts: Mapping[str, int], said: set[str]
) -> None:
    """Print on the first process which images are used, and the notes about them that were not `said` yet.

    `counts` are how many there are for "training", "validation" and "test". The note about augmentations belongs to a
    training.
    """
    notes = [note for note in dataset.notes if note not in said and ("training" in counts or note != DIGITS_NOTE)]
    said.update(notes)
    for line in (describe(dataset, in_channels, image_size, counts), *notes):
        rank_zero_info(line)


def describe(dataset: ImageDataset, in_channels: int, image_size: int, counts: Mapping[str, int]) -> str:
    """Return the first line of a run: which images are used, how many, and of how many classes."""
    used = " and ".join(f"{count:,} {stage}" for stage, count in counts.items() if count)
    folder = shown(dataset.root) if isinstance(dataset, ImageFolder) else ""
    place = f" ({folder})" if folder not in ("", dataset.title) else ""
    colour = "grey" if in_channels == 1 else "colour"
    return (
        f"{dataset.title}{place}: {used} images of {len(dataset.classes)} classes, {image_size}x{image_size} pixels, "
        f"{colour}"
    )
