"""Make `cvcc_zoo/data/known/test_images.npz` from complete data sets, and print their identities for its `__init__.py`.

    python -m benchmarks.known_images cifar10=ROOT cifar100=ROOT fashion_mnist=ROOT

ROOT has torchvision's files of the data set, or is an image folder whose classes are in torchvision's order.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np

import cvcc_zoo.data.known
from cvcc_zoo.data.datamodule import ImageDataModule
from cvcc_zoo.data.identity import identity_of


def main(words: list[str]) -> None:
    """Write the file into the package."""
    hashes: dict[str, Any] = {}
    for word in words:
        tag, _, root = word.partition("=")
        data = ImageDataModule("folder" if (Path(root) / "train").is_dir() else tag, root)
        train, test = identity_of(data, "train"), identity_of(data, "test")
        hashes[tag] = test.hashes
        print(f"{tag}: train={train.sha256} test={test.sha256}")
    target = Path(cvcc_zoo.data.known.__file__).with_name("test_images.npz")
    np.savez(target, **hashes)
    print(f"{target.name}: {target.stat().st_size:,} bytes")


if __name__ == "__main__":
    main(sys.argv[1:])
