"""Data sets by name: `fashion-mini` from the package; CIFAR, MNIST, Fashion-MNIST and SVHN from torchvision."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from inspect import signature
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torchvision import datasets as tv_datasets
from torchvision.datasets.utils import check_integrity

from cvcc_zoo.data.classes import DIGITS
from cvcc_zoo.data.forms.fetch import fetch
from cvcc_zoo.data.images import Images, Split, share
from cvcc_zoo.data.placing import check_placed
from cvcc_zoo.files.own import shown
from cvcc_zoo.plots.confusion import CIFAR100

FASHION_CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
CIFAR100_CLASSES = tuple(sorted(chain.from_iterable(CIFAR100.values())))


@dataclass(frozen=True)
class FashionMini:
    """6,000 + 1,000 images of Fashion-MNIST that are part of the package: see `benchmarks/fashion_mini.py`."""

    title: str = "fashion-mini"
    classes: tuple[str, ...] = FASHION_CLASSES
    in_channels: int = 1
    image_size: int = 28
    mirror: bool = True
    notes: tuple[str, ...] = ()
    splits: tuple[Split, ...] = ("train", "test")
    public: bool = True

    def prepare(self) -> None:
        """Do nothing: the file is in the package."""

    def load(self, split: Split) -> Images | None:
        """Load 6,000 training or 1,000 test images, the same number of each class."""
        if split == "val":
            return None
        with np.load(Path(__file__).parent / "fashion_mini" / "fashion_mini.npz", allow_pickle=False) as file:
            images, labels = torch.from_numpy(file[f"{split}_images"]), torch.from_numpy(file[f"{split}_labels"])
        return Images(images[:, None], labels.to(torch.int64))


@dataclass(frozen=True)
class TorchvisionDataset:
    """A data set that torchvision downloads, verifies by checksum and reads.

    `source` is torchvision's class. `files` are those that a machine without a network needs in `folder` below the
    root, `sums` the MD5 sums of these files and of those unpacked from them, by their paths below it, and `url` is
    where they come from.
    """

    title: str
    root: Path
    classes: tuple[str, ...]
    in_channels: int
    image_size: int
    mirror: bool
    source: Any
    files: tuple[str, ...]
    sums: dict[str, str]
    folder: str
    url: str
    notes: tuple[str, ...] = ()
    splits: tuple[Split, ...] = ("train", "test")
    public: bool = True
    opened: dict[Split, Any] = field(default_factory=dict, compare=False, repr=False)  # by prepare, for load

    def prepare(self) -> None:
        """Download missing files. Raises FileNotFoundError, which lists them, if there is no network.

        Raises ValueError if they are there, but in the wrong folder.
        """
        check_placed(self.title, self.root, self.folder, self.sums)
        for split in ("train", "test"):
            try:
                self.opened[split] = self._open(split, self.root, download=False)
            except RuntimeError:
                self.opened[split] = self._download(split)

    def _download(self, split: Split) -> Any:
        it = "it" if len(self.files) == 1 else "them"
        how = f"download {', '.join(self.files)} from {self.url}\nand put {it} into {self.root / self.folder}"
        download = partial(self._open, split, download=True)
        present = partial(self._open, split, self.root, download=False)
        try:
            fetch(self.title, self.root, self.folder, how, download, present)
        except FileNotFoundError as error:
            if damaged := self._damaged():
                names, one = ", ".join(path.name for path in damaged), len(damaged) == 1
                raise ValueError(
                    f"{shown(damaged[0].parent)}: {names} {'has a wrong checksum' if one else 'have wrong checksums'}, "
                    f"so {'it is' if one else 'they are'} damaged or incomplete; remove {'it' if one else 'them'} and "
                    "start again on a machine with a network, or bring the right files there"
                ) from error
            raise FileNotFoundError(f"{error}{self._advice()}") from error.__cause__
        return present()

    def _advice(self) -> str:
        """Return what else helps if the root is a folder of images, which another data set reads."""
        is_folder = any((self.root / split).is_dir() for split in ("train", "test"))
        return f"; {self.root} looks like a folder of images: --data.dataset=folder reads it" if is_folder else ""

    def _damaged(self) -> list[Path]:
        """List the files of the data set that exist and have a wrong checksum."""
        places = {self.root / self.folder / name: md5 for name, md5 in self.sums.items()}
        return [path for path, md5 in places.items() if path.is_file() and not check_integrity(path, md5)]

    def _open(self, split: Split, root: Path, *, download: bool) -> Any:
        by_name = "split" in signature(self.source).parameters  # as SVHN, which has a third split
        part = {"split": split} if by_name else {"train": split == "train"}
        try:
            with _old_pickles():
                return self.source(root, **part, download=download)
        except Exception as error:  # torchvision does not verify the files that it unpacks for MNIST
            missing = isinstance(error, RuntimeError) and "download=True" in str(error)
            if download or missing or isinstance(error, OSError):
                raise
            raise ValueError(
                f"the files of {self.title} in {root / self.folder} are damaged ({str(error) or 'too short'}); "
                "remove them and start again to download them anew"
            ) from error

    def load(self, split: Split) -> Images | None:
        """Load the training or test images with torchvision, memory-mapped; None for "val"."""
        if split == "val":
            return None
        try:
            source = self.opened.pop(split) if split in self.opened else self._open(split, self.root, download=False)
        except RuntimeError as error:
            raise FileNotFoundError(
                f"{self.title} is not in {self.root}; call prepare_data(), which downloads it, before setup()"
                f"{self._advice()}"
            ) from error
        images = torch.as_tensor(source.data)
        if images.ndim == 3:  # MNIST: (N, H, W)
            images = images[:, None]
        elif images.shape[3] == 3:  # CIFAR: (N, H, W, 3)
            images = images.permute(0, 3, 1, 2)
        labels = torch.as_tensor(source.targets if hasattr(source, "targets") else source.labels)
        return Images(share(images, f"{self.title}-{split}"), labels.to(torch.int64))


@contextmanager
def _old_pickles() -> Iterator[None]:
    """Silence numpy 2.4's warning about CIFAR's files, pickles of an old numpy.

    https://github.com/pytorch/vision/issues/9340
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"dtype\(\): align should be passed")
        yield


def _cifar(title: str, root: Path, source: Any, classes: tuple[str, ...]) -> TorchvisionDataset:
    unpacked = {f"{source.base_folder}/{name}": md5 for name, md5 in (*source.train_list, *source.test_list)}
    sums = {source.filename: source.tgz_md5, **unpacked}
    return TorchvisionDataset(title, root, classes, 3, 32, True, source, (source.filename,), sums, "", source.url)


def cifar10(root: Path) -> TorchvisionDataset:
    """Return CIFAR-10: 50,000 + 10,000 colour images of 32x32 in 10 classes (Krizhevsky 2009)."""
    return _cifar("cifar10", root, tv_datasets.CIFAR10, CIFAR10_CLASSES)


def cifar100(root: Path) -> TorchvisionDataset:
    """Return CIFAR-100: 50,000 + 10,000 colour images of 32x32 in 100 classes (Krizhevsky 2009)."""
    return _cifar("cifar100", root, tv_datasets.CIFAR100, CIFAR100_CLASSES)


def _mnist(title: str, root: Path, source: Any, classes: tuple[str, ...], mirror: bool) -> TorchvisionDataset:
    sums, folder = dict(source.resources), f"{source.__name__}/raw"
    return TorchvisionDataset(title, root, classes, 1, 28, mirror, source, tuple(sums), sums, folder, source.mirrors[0])


def mnist(root: Path) -> TorchvisionDataset:
    """Return MNIST: 60,000 + 10,000 grey images of 28x28, handwritten digits (LeCun et al. 1998)."""
    return _mnist("mnist", root, tv_datasets.MNIST, DIGITS, mirror=False)


def fashion_mnist(root: Path) -> TorchvisionDataset:
    """Return Fashion-MNIST: 60,000 + 10,000 grey images of 28x28 in 10 classes (Xiao, Rasul & Vollgraf 2017)."""
    return _mnist("fashion_mnist", root, tv_datasets.FashionMNIST, FASHION_CLASSES, mirror=True)


def svhn(root: Path) -> TorchvisionDataset:
    """Return SVHN, cropped digits: 73,257 + 26,032 colour images of 32x32 (Netzer et al. 2011)."""
    source = tv_datasets.SVHN
    sums = dict(source.split_list[split][1:] for split in ("train", "test"))
    url = source.split_list["train"][0].rpartition("/")[0]
    return TorchvisionDataset("svhn", root, DIGITS, 3, 32, False, source, tuple(sums), sums, "", url)


TORCHVISION: dict[str, Callable[[Path], TorchvisionDataset]] = {
    f.__name__: f for f in (cifar10, cifar100, mnist, fashion_mnist, svhn)
}
