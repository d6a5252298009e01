"""The known data sets: `fashion-mini` inside the package; CIFAR, MNIST, Fashion-MNIST and SVHN by torchvision."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torchvision import datasets as tv_datasets
from torchvision.datasets.utils import check_integrity

from cvcc_zoo.data.images import Images, Split, share
from cvcc_zoo.files.own import shown
from cvcc_zoo.files.web import ending

LARGEST = 1 << 30  # bytes; SVHN's training images take 0.2 GB

FASHION_CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
CIFAR100_CLASSES = (
    "apple", "aquarium_fish", "baby", "bear", "beaver", "bed", "bee", "beetle", "bicycle", "bottle", "bowl", "boy",
    "bridge", "bus", "butterfly", "camel", "can", "castle", "caterpillar", "cattle", "chair", "chimpanzee", "clock",
    "cloud", "cockroach", "couch", "crab", "crocodile", "cup", "dinosaur", "dolphin", "elephant", "flatfish",
    "forest", "fox", "girl", "hamster", "house", "kangaroo", "keyboard", "lamp", "lawn_mower", "leopard", "lion",
    "lizard", "lobster", "man", "maple_tree", "motorcycle", "mountain", "mouse", "mushroom", "oak_tree", "orange",
    "orchid", "otter", "palm_tree", "pear", "pickup_truck", "pine_tree", "plain", "plate", "poppy", "porcupine",
    "possum", "rabbit", "raccoon", "ray", "road", "rocket", "rose", "sea", "seal", "shark", "shrew", "skunk",
    "skyscraper", "snail", "snake", "spider", "squirrel", "streetcar", "sunflower", "sweet_pepper", "table", "tank",
    "telephone", "television", "tiger", "tractor", "train", "trout", "tulip", "turtle", "wardrobe", "whale",
    "willow_tree", "wolf", "woman", "worm",
)  # fmt: skip
DIGITS = tuple("0123456789")


@dataclass(frozen=True)
class FashionMini:
    """6,000 + 1,000 real images of Fashion-MNIST, carried by the package: see `fashion_mini/make.py`."""

    title: str = "fashion-mini"
    classes: tuple[str, ...] = FASHION_CLASSES
    in_channels: int = 1
    image_size: int = 28
    mirror: bool = True
    notes: tuple[str, ...] = ()

    def prepare(self) -> None:
        """Nothing to do: the file is in the package."""

    def load(self, split: Split) -> Images | None:
        """6,000 images to train on and 1,000 to test, the same number of each class."""
        if split == "val":
            return None
        with np.load(Path(__file__).parent / "fashion_mini" / "fashion_mini.npz", allow_pickle=False) as file:
            images, labels = torch.from_numpy(file[f"{split}_images"]), torch.from_numpy(file[f"{split}_labels"])
        return Images(images[:, None], labels.to(torch.int64))


@dataclass(frozen=True)
class TorchvisionDataset:
    """A data set that torchvision downloads, verifies by checksum and reads.

    `open` takes root, split and whether to download, and returns torchvision's data set; `files` are what a machine
    without a network needs in `folder` below the root, `sums` the MD5 sums of these and of what they are unpacked to,
    and `url` is where they come from.
    """

    title: str
    root: Path
    classes: tuple[str, ...]
    in_channels: int
    image_size: int
    mirror: bool
    open: Callable[[Path, Split, bool], Any]
    files: tuple[str, ...]
    sums: dict[str, str]
    folder: str
    url: str
    notes: tuple[str, ...] = ()
    opened: dict[Split, Any] = field(default_factory=dict, compare=False, repr=False)  # read by prepare, not yet loaded

    def prepare(self) -> None:
        """Download what is missing. Raises FileNotFoundError that names the files where there is no network."""
        for split in ("train", "test"):
            try:
                self.opened[split] = self._open(split, download=False)
            except RuntimeError:
                self.opened[split] = self._download(split)

    def _download(self, split: Split) -> Any:
        place, before = self.root / self.folder, self._places()
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            with ending(LARGEST):  # torchvision would wait for ever
                return self._open(split, download=True)
        except Exception as error:  # of the network, of http.client, of archives, or that a checksum is wrong
            for path in self._places():  # half a file
                if path not in before and not check_integrity(path, self.sums[path.name]):
                    path.unlink()
            for folder in (place, *place.parents):  # leave no empty folders behind
                if folder.is_relative_to(self.root) and folder.is_dir() and not any(folder.iterdir()):
                    folder.rmdir()
            if damaged := [path for path in self._places() if not check_integrity(path, self.sums[path.name])]:
                raise ValueError(
                    f"{', '.join(shown(path) for path in damaged)} is there, but its checksum is wrong: it is damaged "
                    "or not whole; remove it and start again on a machine with a network, or put the right file there"
                ) from error
            raise FileNotFoundError(
                f"{self.title} is not in {self.root} and could not be downloaded "
                f"({str(error).splitlines()[-1] if str(error) else type(error).__name__}).\n"
                f"On a machine with a network fetch {', '.join(self.files)} from {self.url}\n"
                f"and put {'it' if len(self.files) == 1 else 'them'} into {place} "
                "(or give the folder that has the data: --data.root=... or $CVCC_ZOO_DATA)"
            ) from error

    def _places(self) -> list[Path]:
        """The files that are there, of those whose sums are known."""
        below = self.root / self.folder
        return [path for path in sorted(below.glob("*")) + sorted(below.glob("*/*")) if path.name in self.sums]

    def _open(self, split: Split, *, download: bool) -> Any:
        try:
            with _old_pickles():
                return self.open(self.root, split, download)
        except Exception as error:  # torchvision checks the sums of most files, not of those that MNIST unpacks
            missing = isinstance(error, RuntimeError) and "download=True" in str(error)
            if download or missing or isinstance(error, OSError):
                raise
            raise ValueError(
                f"the files of {self.title} in {self.root / self.folder} are damaged ({str(error) or 'too short'}); "
                "remove them and start again, then they are downloaded anew"
            ) from error

    def load(self, split: Split) -> Images | None:
        """The training or test images as torchvision reads them, memory-mapped; there is no validation split."""
        if split == "val":
            return None
        source = self.opened.pop(split) if split in self.opened else self._open(split, download=False)
        images = torch.as_tensor(source.data)
        if images.ndim == 3:  # MNIST: (N, H, W)
            images = images[:, None]
        elif images.shape[3] == 3:  # CIFAR: (N, H, W, 3)
            images = images.permute(0, 3, 1, 2)
        labels = torch.as_tensor(source.targets if hasattr(source, "targets") else source.labels)
        return Images(share(images, f"{self.title}-{split}"), labels.to(torch.int64))


@contextmanager
def _old_pickles() -> Iterator[None]:
    """CIFAR's files are pickles of an old numpy, which numpy 2.4 remarks on.

    https://github.com/pytorch/vision/issues/9340
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"dtype\(\): align should be passed")
        yield


def _with_train_flag(source: Any) -> Callable[[Path, Split, bool], Any]:
    return lambda root, split, download: source(root, train=split == "train", download=download)


def _with_split_name(source: Any) -> Callable[[Path, Split, bool], Any]:
    return lambda root, split, download: source(root, split=split, download=download)


def _cifar(title: str, root: Path, source: Any, classes: tuple[str, ...]) -> TorchvisionDataset:
    sums = {name: md5 for name, md5 in (*source.train_list, *source.test_list, (source.filename, source.tgz_md5))}
    files = (source.filename,)
    return TorchvisionDataset(title, root, classes, 3, 32, True, _with_train_flag(source), files, sums, "", source.url)


def cifar10(root: Path) -> TorchvisionDataset:
    """CIFAR-10: 50,000 + 10,000 colour images of 32x32 in 10 classes (Krizhevsky 2009)."""
    return _cifar("cifar10", root, tv_datasets.CIFAR10, CIFAR10_CLASSES)


def cifar100(root: Path) -> TorchvisionDataset:
    """CIFAR-100: 50,000 + 10,000 colour images of 32x32 in 100 classes (Krizhevsky 2009)."""
    return _cifar("cifar100", root, tv_datasets.CIFAR100, CIFAR100_CLASSES)


def _mnist(title: str, root: Path, source: Any, classes: tuple[str, ...], mirror: bool) -> TorchvisionDataset:
    files = tuple(name for name, _ in source.resources)
    folder = f"{source.__name__}/raw"
    return TorchvisionDataset(
        title,
        root,
        classes,
        1,
        28,
        mirror,
        _with_train_flag(source),
        files,
        dict(source.resources),
        folder,
        source.mirrors[0],
    )


def mnist(root: Path) -> TorchvisionDataset:
    """MNIST: 60,000 + 10,000 grey images of 28x28, handwritten digits (LeCun et al. 1998)."""
    return _mnist("mnist", root, tv_datasets.MNIST, DIGITS, mirror=False)


def fashion_mnist(root: Path) -> TorchvisionDataset:
    """Fashion-MNIST: 60,000 + 10,000 grey images of 28x28 in 10 classes (Xiao, Rasul & Vollgraf 2017)."""
    return _mnist("fashion_mnist", root, tv_datasets.FashionMNIST, FASHION_CLASSES, mirror=True)


def svhn(root: Path) -> TorchvisionDataset:
    """SVHN, cropped digits: 73,257 + 26,032 colour images of 32x32 (Netzer et al. 2011)."""
    source = tv_datasets.SVHN
    sums = dict(source.split_list[split][1:] for split in ("train", "test"))
    url = source.split_list["train"][0].rpartition("/")[0]
    return TorchvisionDataset("svhn", root, DIGITS, 3, 32, False, _with_split_name(source), tuple(sums), sums, "", url)


TORCHVISION: dict[str, Callable[[Path], TorchvisionDataset]] = {
    f.__name__: f for f in (cifar10, cifar100, mnist, fashion_mnist, svhn)
}
