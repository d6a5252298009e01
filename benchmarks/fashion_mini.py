"""Make `cvcc_zoo/data/fashion_mini/fashion_mini.npz`: the first 600 + 100 images of each class of Fashion-MNIST.

    python -m benchmarks.fashion_mini /usr/share/datasets/fashion-mnist

The four `*-ubyte.gz` files are those of https://github.com/zalandoresearch/fashion-mnist (MIT licence, in that
folder); Debian's package `dataset-fashion-mnist` has them too.
"""

import gzip
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

TARGET = Path(__file__).parents[1] / "cvcc_zoo/data/fashion_mini/fashion_mini.npz"


def read(path: Path) -> npt.NDArray[np.uint8]:
    """Read an IDX file of unsigned bytes: its fourth byte is the number of dimensions, and their sizes follow."""
    data = gzip.decompress(path.read_bytes())
    shape = np.frombuffer(data, dtype=">i4", count=data[3], offset=4)
    return np.frombuffer(data, dtype=np.uint8, offset=4 + 4 * data[3]).reshape(shape)


def first_of_each(labels: npt.NDArray[np.uint8], count: int) -> npt.NDArray[np.intp]:
    """Return the positions of the first `count` images of each class, in the order of the data set."""
    return np.sort(np.concatenate([np.flatnonzero(labels == label)[:count] for label in range(10)]))


def main(source: Path) -> None:
    """Write the file into the package."""
    arrays: dict[str, Any] = {}
    for split, prefix, count in (("train", "train", 600), ("test", "t10k", 100)):
        labels = read(source / f"{prefix}-labels-idx1-ubyte.gz")
        chosen = first_of_each(labels, count)
        arrays[f"{split}_images"] = read(source / f"{prefix}-images-idx3-ubyte.gz")[chosen]
        arrays[f"{split}_labels"] = labels[chosen]
    np.savez_compressed(TARGET, **arrays)
    print(f"{TARGET.name}: {TARGET.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
