"""The classification data sets of torchvision that `--data.dataset=torchvision.NAME` takes, in one table."""

from dataclasses import dataclass, replace
from typing import Any

from cvcc_zoo.data.classes import DIGITS
from cvcc_zoo.data.images import Split

PREFIX = "torchvision."
Options = dict[Split, tuple[dict[str, Any], ...]]
"""The arguments of torchvision's class for each split; a split of several parts has several."""
EMOTIONS = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")  # the numbers in fer2013.csv, 0 to 6
SAME = {"CIFAR10": "cifar10", "CIFAR100": "cifar100", "MNIST": "mnist", "FashionMNIST": "fashion_mnist", "SVHN": "svhn"}
"""Classes of torchvision whose data sets have short names of their own."""


@dataclass(frozen=True)
class TorchvisionSet:
    """A data set as torchvision has it."""

    source: str
    """The class in torchvision.datasets."""
    classes: int
    size: int | None
    """Height and width in pixels; None if they vary, so that the user chooses `image_size`."""
    counts: dict[Split, int]
    options: Options
    folder: str
    """Where its files are below the root."""
    about: str
    grey: bool = False
    mirror: bool = True
    """False if a mirrored image may belong to another class: digits, letters, text and traffic signs."""
    names: tuple[str, ...] = ()
    """Names of the classes, where torchvision has none or has the digits in words."""
    first_label: int = 0
    downloads: bool = True


def _splits(**names: str) -> Options:
    """Return the options of a class with a parameter `split`, given the names of our splits there."""
    return {split: ({"split": name},) for split, name in names.items()}  # type: ignore[misc]


def _with(options: Options, **more: Any) -> Options:
    return {split: tuple({**part, **more} for part in parts) for split, parts in options.items()}


def _emnist(split: str, classes: int, train: int, test: int, about: str, first_label: int = 0) -> TorchvisionSet:
    options = _with(FLAG, split=split)
    counts: dict[Split, int] = {"train": train, "test": test}
    return TorchvisionSet(
        "EMNIST", classes, 28, counts, options, "EMNIST/raw", about, grey=True, mirror=False, first_label=first_label
    )


FLAG: Options = {"train": ({"train": True},), "test": ({"train": False},)}
TWO, THREE = _splits(train="train", test="test"), _splits(train="train", val="val", test="test")
WHOLE: Options = {"train": ({},)}
IMAGENETTE = TorchvisionSet(
    "Imagenette", 10, None, {"train": 9469, "test": 3925}, _splits(train="train", test="val"), "imagenette2",
    "ten easy classes of ImageNet; its val is the test here",
)  # fmt: skip
AIRCRAFT = TorchvisionSet(
    "FGVCAircraft", 100, None, {"train": 3334, "val": 3333, "test": 3333}, THREE, "fgvc-aircraft-2013b",
    "aircraft, 100 variants",
)  # fmt: skip

# Counts: the papers and pages of the data sets; for GTSRB those of torchvision's archive (GTSRB-Training_fixed.zip).
TABLE: dict[str, TorchvisionSet] = {
    "Caltech101": TorchvisionSet("Caltech101", 101, None, {"train": 8677}, WHOLE, "caltech101", "objects"),
    "Caltech256": TorchvisionSet(
        "Caltech256", 257, None, {"train": 30_607}, WHOLE, "caltech256", "objects, and a class of clutter"
    ),
    "Country211": TorchvisionSet(
        "Country211", 211, None, {"train": 31_650, "val": 10_550, "test": 21_100},
        _splits(train="train", val="valid", test="test"), "country211", "photos, by the country where they were taken",
    ),
    "DTD": TorchvisionSet("DTD", 47, None, dict.fromkeys(THREE, 1880), THREE, "dtd", "textures, the first partition"),
    "EMNIST.balanced": _emnist("balanced", 47, 112_800, 18_800, "digits and letters, as many of each"),
    "EMNIST.byclass": _emnist("byclass", 62, 697_932, 116_323, "digits and letters"),
    "EMNIST.bymerge": _emnist("bymerge", 47, 697_932, 116_323, "digits and letters; some of both cases are one class"),
    "EMNIST.digits": _emnist("digits", 10, 240_000, 40_000, "digits"),
    "EMNIST.letters": _emnist("letters", 26, 124_800, 20_800, "letters of either case", first_label=1),
    "EMNIST.mnist": _emnist("mnist", 10, 60_000, 10_000, "digits"),
    "EuroSAT": TorchvisionSet("EuroSAT", 10, 64, {"train": 27_000}, WHOLE, "eurosat", "land use, from a satellite"),
    "FER2013": TorchvisionSet(
        "FER2013", 7, 48, {"train": 28_709, "test": 7178}, TWO, "fer2013", "faces, by their expression", grey=True,
        names=EMOTIONS, downloads=False,
    ),
    "FGVCAircraft": AIRCRAFT,
    "FGVCAircraft.family": replace(
        AIRCRAFT, classes=70, options=_with(THREE, annotation_level="family"), about="aircraft, 70 families"
    ),
    "FGVCAircraft.manufacturer": replace(
        AIRCRAFT, classes=30, options=_with(THREE, annotation_level="manufacturer"), about="aircraft, 30 manufacturers"
    ),
    "Flowers102": TorchvisionSet(
        "Flowers102", 102, None, {"train": 1020, "val": 1020, "test": 6149}, THREE, "flowers-102", "flowers"
    ),
    "Food101": TorchvisionSet("Food101", 101, None, {"train": 75_750, "test": 25_250}, TWO, "food-101", "dishes"),
    "GTSRB": TorchvisionSet(
        "GTSRB", 43, None, {"train": 26_640, "test": 12_630}, TWO, "gtsrb", "German traffic signs", mirror=False
    ),
    "Imagenette": IMAGENETTE,
    "Imagenette.160px": replace(
        IMAGENETTE, options=_with(IMAGENETTE.options, size="160px"), folder="imagenette2-160",
        about="the same, shorter side 160 pixels",
    ),
    "Imagenette.320px": replace(
        IMAGENETTE, options=_with(IMAGENETTE.options, size="320px"), folder="imagenette2-320",
        about="the same, shorter side 320 pixels",
    ),
    "KMNIST": TorchvisionSet(
        "KMNIST", 10, 28, {"train": 60_000, "test": 10_000}, FLAG, "KMNIST/raw", "Japanese cursive characters",
        grey=True, mirror=False,
    ),
    "OxfordIIITPet": TorchvisionSet(
        "OxfordIIITPet", 37, None, {"train": 3680, "test": 3669}, _splits(train="trainval", test="test"),
        "oxford-iiit-pet", "breeds of cats and dogs",
    ),
    "PCAM": TorchvisionSet(
        "PCAM", 2, 96, {"train": 262_144, "val": 32_768, "test": 32_768}, THREE, "pcam",
        "tissue of lymph nodes; needs h5py", names=("normal", "tumor"),
    ),
    "QMNIST": TorchvisionSet(
        "QMNIST", 10, 28, {"train": 60_000, "test": 60_000}, FLAG, "QMNIST/raw", "digits, with 60,000 to test",
        grey=True, mirror=False, names=DIGITS,
    ),
    "RenderedSST2": TorchvisionSet(
        "RenderedSST2", 2, 448, {"train": 6920, "val": 872, "test": 1821}, THREE, "rendered-sst2",
        "sentences of film reviews as images", mirror=False,
    ),
    "SEMEION": TorchvisionSet(
        "SEMEION", 10, 16, {"train": 1593}, WHOLE, "", "digits in black and white", grey=True, mirror=False,
        names=DIGITS,
    ),
    "STL10": TorchvisionSet(
        "STL10", 10, 96, {"train": 5000, "test": 8000}, TWO, "stl10_binary", "objects, from ImageNet"
    ),
    "SUN397": TorchvisionSet("SUN397", 397, None, {"train": 108_754}, WHOLE, "SUN397", "places"),
    "StanfordCars": TorchvisionSet(
        "StanfordCars", 196, None, {"train": 8144, "test": 8041}, TWO, "stanford_cars", "models of cars",
        downloads=False,
    ),
    "SVHN.extra": TorchvisionSet(
        "SVHN", 10, 32, {"train": 604_388, "test": 26_032},
        {"train": ({"split": "train"}, {"split": "extra"}), "test": ({"split": "test"},)}, "",
        "`svhn` with its 531,131 extra training images", mirror=False, names=DIGITS,
    ),
    "USPS": TorchvisionSet(
        "USPS", 10, 16, {"train": 7291, "test": 2007}, FLAG, "", "digits of postal codes", grey=True, mirror=False,
        names=DIGITS,
    ),
}  # fmt: skip
