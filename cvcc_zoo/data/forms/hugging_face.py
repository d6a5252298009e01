"""Hugging Face `datasets`: objects of the library, local files and folders, and data sets of the Hub."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from cvcc_zoo.data.classes import check_same_classes, matching, plain_name, unique_places
from cvcc_zoo.data.folder import fingerprint
from cvcc_zoo.data.forms.items import Items
from cvcc_zoo.data.images import Split
from cvcc_zoo.data.layout import NAMES
from cvcc_zoo.data.opening import FORMATS
from cvcc_zoo.files.own import expanded, shown
from cvcc_zoo.registry import needed, unknown

if TYPE_CHECKING:
    from datasets import Dataset

PREFIX = "hf:"
PREFERRED = ("label", "labels", "fine_label")
"""The column of the labels if several could be; fine_label is CIFAR-100's."""
BUILDERS = {".parquet": "parquet", ".arrow": "arrow"}
SAVED = ("dataset_dict.json", "state.json")  # written by save_to_disk
NO_LABEL = {None, -1}  # the Hub's test splits have -1 if their labels are secret
FILTER = "dataset.filter in Python (save_to_disk then writes a folder for hf:FOLDER)"
Loaded = tuple[str, dict[Split, Items], tuple[str, ...] | None, tuple[str, ...]]
"""The title of a data set, its splits, the names of its classes, and notes about it."""


class Rows:
    """Rows of a Dataset as pairs (PIL image, label); `numbers` maps labels that are text."""

    def __init__(self, table: "Dataset", image: str, label: str, numbers: Mapping[str, int] | None) -> None:
        self.table, self.image, self.label, self.numbers = table, image, label, numbers

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, number: int) -> tuple[Image.Image, Any]:
        row = self.table[number]
        stored, label = row[self.image], row[self.label]
        if stored is None:
            raise ValueError(f"row {number} of the data set has no image; remove it with {FILTER}")
        data = stored["bytes"] if stored["bytes"] is not None else Path(stored["path"]).read_bytes()
        return Image.open(io.BytesIO(data), formats=FORMATS), self.numbers.get(label, label) if self.numbers else label


def library() -> Any:
    """Import the library. Raises ValueError, which says what to install, if it is missing."""
    return needed("datasets", "a data set of Hugging Face", "hf")


def hugging_face_items(
    table: Any, place: str, classes: Sequence[str] | None = None, known: Sequence[Sequence[str]] | None = None
) -> tuple[Items, tuple[str, ...] | None]:
    """Return the items of a Dataset and the names of its classes; None if they are only numbers.

    The image is the only column of the type Image; the label is called label, labels or fine_label, or is the only
    ClassLabel. Labels that are text are numbered in the order of `classes` if these are their names, else of the sorted
    names; in other splits than train by their places in one of the `known` lists. Raises ValueError for other kinds of
    data sets and columns, and for text that is not known.
    """
    datasets = library()
    if isinstance(table, dict):
        raise ValueError(f"{place} is a DatasetDict; give its parts: train=splits['train'], test=splits['test']")
    if not isinstance(table, datasets.Dataset):
        raise ValueError(f"{place} is a {type(table).__name__}; load it without streaming, as a Dataset")
    if table.format["type"] == "custom":
        raise ValueError(f"{place} has a transform, and images are decoded only once; call reset_format() and choose "
                         "augmentations instead: augmentations=...")  # fmt: skip
    if not len(table):
        raise ValueError(f"{place} has no images")
    image, label = _columns(table.features, place, datasets)
    kind, numbers, names = table.features[label], None, None
    if isinstance(kind, datasets.ClassLabel):
        names = tuple(kind.names)
    elif kind.dtype in ("string", "large_string"):
        if None in (found := set(table[label])):
            raise ValueError(f"{place} has rows without a label; remove them with {FILTER}")
        if known is None:
            order = matching(classes or (), sorted(found)) or range(len(found))
            numbers = {name: number for number, name in sorted(zip(order, sorted(found), strict=True))}
            names = tuple(numbers)
        else:
            numbers, names = _places(sorted(found), known, place), tuple(known[0])
    rows = table.with_format(None).cast_column(image, datasets.Image(decode=False)).select_columns([image, label])
    key = getattr(table, "_fingerprint", None)
    if key:  # the labels of other splits depend on the classes of train, and files may change beside the table
        key = f"{key} {numbers} {fingerprint(_files(rows, image))}"
    return Items(Rows(rows, image, label, numbers), place, key), names


def _places(found: Sequence[str], known: Sequence[Sequence[str]], place: str) -> dict[str, int]:
    """Return the number of each name that was found: its place in the `known` lists, which name the same classes.

    Raises ValueError for a name that is in none of them.
    """
    if not known:
        raise ValueError(
            f"{place} has labels that are text, such as {found[0]!r}, and the training images have numbers; give the "
            "names of the classes in the order of these numbers: classes=[...]"
        )
    places = {key: n for form in (plain_name, str) for names in known for key, n in unique_places(names, form).items()}
    numbers = dict[str, int]()
    for name in found:
        if (number := places.get(name, places.get(plain_name(name)))) is None:
            raise unknown(f"class of {place}", name, known[0])
        numbers[name] = number
    return numbers


def _files(rows: Any, image: str) -> list[str]:
    """Return the paths of the images that are files, whose pixels are not in the table."""
    data, path = f"{image}.bytes", f"{image}.path"
    stored = rows.select_columns([image]).flatten()
    if not stored.data.column(data).null_count:
        return []
    found = stored.with_format("arrow")[:]  # without the rows that select() left out
    paths: list[str] = found[path].filter(found[data].is_null()).drop_null().to_pylist()
    return paths


def _columns(features: Mapping[str, Any], place: str, datasets: Any) -> tuple[str, str]:
    """Return the names of the columns with the images and the labels."""
    images = [name for name, kind in features.items() if isinstance(kind, datasets.Image)]
    if len(images) != 1:
        found = "several columns" if images else "no column"
        raise ValueError(
            f"{place} has {found} of the type Image among {', '.join(features)}; remove_columns(...), or "
            "cast_column('image', datasets.Image()) for paths and bytes"
        )
    named = [name for name in PREFERRED if name in features]
    labels = named[:1] or [name for name, kind in features.items() if isinstance(kind, datasets.ClassLabel)]
    if len(labels) != 1:
        raise ValueError(
            f"{place} has no column called label among {', '.join(features)}; rename_column(..., 'label') the one with "
            "the classes"
        )
    return images[0], labels[0]


def _has_labels(table: Any, place: str) -> bool:
    """Return whether any row has a label."""
    datasets = library()
    label = _columns(table.features, place, datasets)[1]
    if not isinstance(table.features[label], datasets.ClassLabel | datasets.Value):
        return True  # of a kind that is refused
    return not NO_LABEL.issuperset(table.select_columns([label]).unique(label))


def load(name: str, classes: Sequence[str] | None = None) -> Loaded:
    """Load a data set by name, which may begin with hf:, without its val and test splits that have no labels.

    It is a .parquet file, a folder (of parquet files, of images in class folders, or written by save_to_disk), or a
    name of the Hub, with its configuration after a colon: hf:owner/name:configuration. `classes` may give the order of
    labels that are text. Raises FileNotFoundError or ValueError if it cannot be loaded.
    """
    datasets, place = library(), name.removeprefix(PREFIX)
    path = expanded(place)
    try:
        if path.is_file():
            if (builder := BUILDERS.get(path.suffix)) is None:
                raise ValueError(f"{shown(path)} is not a .parquet or .arrow file")
            found = datasets.load_dataset(builder, data_files=str(path))
        elif path.is_dir():
            saved = any((path / file).is_file() for file in SAVED)
            found = datasets.load_from_disk(str(path)) if saved else datasets.load_dataset(str(path))
        else:
            place, _, configuration = place.partition(":")
            found = datasets.load_dataset(place, configuration or None)
    except Exception as error:  # of the library, of its network, of parquet: many kinds
        raise ValueError(
            f"{shown(name)} cannot be loaded ({_reason(error)}); give a folder or a .parquet file on this machine, or "
            "owner/name of a data set of the Hub"
        ) from error
    parts: dict[Split, Any] = {}
    for part, table in ({"train": found} if isinstance(found, datasets.Dataset) else found).items():
        if (split := NAMES.get(str(part).casefold())) is not None:
            parts.setdefault(split, table)
    if "train" not in parts:
        raise ValueError(f"{shown(name)} has no split called train, only {', '.join(map(str, found))}")
    items, notes = dict[Split, Items](), list[str]()
    names = None
    for split in sorted(parts, key=("train", "val", "test").index):
        where = f"{split} of {shown(name)}"
        if split != "train" and not _has_labels(parts[split], where):
            notes.append(f"{where} has no labels, so it is left out")
            continue
        known = None if split == "train" else [each for each in (names, classes) if each]
        items[split], own = hugging_face_items(parts[split], where, classes, known)
        if names is not None:
            check_same_classes(names, own or (), where)
        names = names or own
    return path.name.split(":")[0].removesuffix(path.suffix), items, names, tuple(notes)


def _reason(error: Exception) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)[:300]
