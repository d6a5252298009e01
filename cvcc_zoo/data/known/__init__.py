"""Data sets that the package recognises by their images. `benchmarks/known_images.py` made the list."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Known:
    """A data set, with the identities of its two splits (`identity.py`)."""

    title: str
    tag: str
    """Its name in published weights, recipes and `--data.dataset`."""
    train: str
    test: str


KNOWN: tuple[Known, ...] = (
    Known(
        "CIFAR-10",
        "cifar10",
        train="d759dacd9b5b0a1f4f500287fedf75b928f089e154c8b1e8217c894a952f89eb",
        test="8b1f16badc22b415a31c95fb2e2f0ca08254296e8311880d318ebe104ad188a8",
    ),
    Known(
        "CIFAR-100",
        "cifar100",
        train="a1efd3476bd9858885cc38911dd8f0cbb0af6d5c237a6bb786ff79084d2beb1f",
        test="ee2730787132db8e1ee2990fcb13ce94bb7fcee6977726a4b0c1d39a490e3df8",
    ),
    Known(
        "Fashion-MNIST",
        "fashion_mnist",
        train="fdd4238b66552387e3b49d67603f2c13184c4e63b3d5e8709cb3962b63adae97",
        test="2eecfbdd658ff7e91b0333bf18af578a9b42724270a2bdf901f4579e391dca7b",
    ),
)


@cache
def known_test_images(sha256: str) -> npt.NDArray[np.uint32] | None:
    """Return the sorted first four bytes of the sha256 of each test image; None for an unknown test split."""
    for known in KNOWN:
        if known.test == sha256:
            with np.load(Path(__file__).with_name("test_images.npz"), allow_pickle=False) as file:
                found: npt.NDArray[np.uint32] = file[known.tag]
                return found
    return None
