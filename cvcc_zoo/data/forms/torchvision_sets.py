"""Open the data sets of the table of torchvision, as files, arrays or items."""

import inspect
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import ConcatDataset
from torchvision import datasets as tv_datasets

from cvcc_zoo.data.decode import Decoding
from cvcc_zoo.data.folder import SPLITS, ImageFolder, fingerprint, first_readable, split_off
from cvcc_zoo.data.forms.arrays import Arrays
from cvcc_zoo.data.forms.fetch import fetch
from cvcc_zoo.data.forms.given import given_dataset
from cvcc_zoo.data.forms.items import Items
from cvcc_zoo.data.forms.torchvision_table import PREFIX, TABLE, TorchvisionSet
from cvcc_zoo.data.images import ImageDataset, Split
from cvcc_zoo.data.shaping import Shaping
from cvcc_zoo.data.split import stratified_split

Opened = dict[Split, list[Any]]
"""The parts of each split, as torchvision opened them."""


def torchvision_dataset(
    name: str, root: Path, shaping: Shaping, *, test: float, split_seed: int, max_pixels: int
) -> ImageDataset:
    """Return a data set of the table, which is downloaded if it is missing.

    Without an official test split, a share `test` of each class, chosen by `split_seed`, is the test split. Raises
    FileNotFoundError if it is missing and cannot be downloaded, ValueError if it is damaged or does not fit.
    """
    entry, title = TABLE[name], name.casefold().replace(".", "_")
    opened = _opened(name, root)
    train = opened["train"][0]
    names = entry.names or getattr(train, "classes", None) or getattr(train, "categories", None)
    names = [each if isinstance(each, str) else each[0] for each in names or map(str, range(entry.classes))]
    classes = tuple(names[entry.first_label :]) if len(names) > entry.classes else tuple(names)
    notes = _incomplete(entry, opened, root)
    public: dict[str, Any] = {"mirror": entry.mirror, "public": True}
    if "loader" in inspect.signature(type(train)).parameters:
        files = {split: sorted(pair for part in parts for pair in part) for split, parts in opened.items()}
        if "test" not in files:
            files = split_off(files["train"], classes, test, split_seed)
            notes.append(_held_out(len(files.get("test", [])), sum(map(len, files.values())), test))
        first, size, grey = first_readable(files["train"], max_pixels)
        decoding = Decoding.like_first(first, size, grey, shaping, max_pixels)
        place = Path(os.path.commonpath([path for pairs in files.values() for path, _ in pairs]))
        return ImageFolder(title, place, classes, files, decoding, notes=tuple(notes), **public)
    key = _key(root / entry.folder) if entry.folder and not hasattr(train, "data") else None
    items = {split: _items(parts, split, name, entry, key) for split, parts in opened.items()}
    if "test" not in items:
        whole = items["train"]
        labels = whole.source.labels if isinstance(whole.source, Arrays) else train.y
        kept, held_out = stratified_split(torch.as_tensor(labels), test, split_seed, classes, "test")
        items["train"] = whole.only(kept.tolist())
        if len(held_out):
            items["test"] = whole.only(held_out.tolist())
        notes.append(_held_out(len(held_out), len(whole), test))
    return given_dataset(title, items, classes, shaping, max_pixels, notes=tuple(notes), **public)


def _opened(name: str, root: Path) -> Opened:
    """Open all splits, and download what is missing."""
    entry, title = TABLE[name], f"{PREFIX}{name}"
    try:
        return open_all(entry, root, download=False)
    except (RuntimeError, FileNotFoundError) as error:
        if "pip install" in str(error):
            raise ValueError(f"{title}: {error}") from error
        if not entry.downloads:
            page = f"https://docs.pytorch.org/vision/stable/generated/torchvision.datasets.{entry.source}.html"
            raise FileNotFoundError(
                f"{title} is not in {root}, and torchvision cannot download it: get its files ({page}), and "
                f"put them into {root / entry.folder}; --data.root=... names another folder ({error})"
            ) from error
    except PermissionError:
        raise
    except Exception as error:  # torchvision does not check all files that it reads
        raise ValueError(
            f"the files of {title} in {root / entry.folder} are damaged ({error or 'too short'}); remove them and "
            "start again to download them anew"
        ) from error
    present = partial(open_all, entry, root, download=False)
    how = (
        f"let `cvcc-zoo fit --data.dataset={title}`, or torchvision.datasets.{entry.source}, download it,\n"
        f"and copy its files to {root / entry.folder}"
    )
    fetch(title, root, entry.folder, how, partial(open_all, entry, download=True), present)
    return present()


def open_all(entry: TorchvisionSet, root: Path, *, download: bool) -> Opened:
    """Open the parts of all splits. Raises the errors of torchvision's class if files are missing."""
    source = getattr(tv_datasets, entry.source)
    # The loader returns paths instead of images.
    more: dict[str, Any] = {"loader": str} if "loader" in inspect.signature(source).parameters else {}
    if entry.downloads:
        more["download"] = download
    return {s: [source(root, **part, **more) for part in entry.options[s]] for s in SPLITS if s in entry.options}


def _incomplete(entry: TorchvisionSet, opened: Opened, root: Path) -> list[str]:
    """Return a note for each split with another number of images than the data set has."""
    counts = {split: sum(map(len, parts)) for split, parts in opened.items()}
    return [
        f"{entry.source} has {entry.counts[split]:,} {split} images, but {count:,} are in {root / entry.folder}; if "
        "all should be there, remove the files of this data set and start again"
        for split, count in counts.items()
        if count != entry.counts[split]
    ]


def _held_out(count: int, total: int, share: float) -> str:
    return f"no official test images: {count:,} of {total:,} images are held out for testing (--data.test={share:g})"


def _key(folder: Path) -> str:
    return fingerprint(sorted(str(path) for path in folder.rglob("*") if path.is_file()))


def _items(parts: Sequence[Any], split: Split, name: str, entry: TorchvisionSet, key: str | None) -> Items:
    """Return the items of a split: arrays if torchvision holds them, else one image at a time."""
    place = f"{split} of {PREFIX}{name}"
    if not all(hasattr(part, "data") for part in parts):
        return Items(ConcatDataset(parts), place, key and f"{key} {name} {split}")
    images = np.concatenate([np.asarray(part.data) for part in parts])
    labels = np.concatenate([np.asarray(part.targets if hasattr(part, "targets") else part.labels) for part in parts])
    images = images[..., None] if images.ndim == 3 else np.moveaxis(images, 1, -1) if images.shape[1] == 3 else images
    labels = labels[:, 0] if labels.ndim == 2 else labels  # QMNIST's have the writers beside the digits
    return Items(Arrays(images, labels.astype(np.int64) - entry.first_label), place)
