"""Add complete data sets to `cvcc_zoo/data/known/test_images.npz`, and print their identities for its `__init__.py`.

    python -m benchmarks.known_images cifar10=ROOT cifar100=ROOT

Those that are not named stay in the file. ROOT has torchvision's files of the data set, or is an image folder whose
classes are in torchvision's order.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np

import cvcc_zoo.data.known
from cvcc_zoo.data.datamodule import ImageDataModule
from cvcc_zoo.data.identity import identity_of


def main(words: list[str]) -> None:
    """Write the file into the package; data sets that are not named stay as they are in it."""
    target = Path(cvcc_zoo.data.known.__file__).with_name("test_images.npz")
    with np.load(target, allow_pickle=False) as file:
        hashes: dict[str, Any] = dict(file)
    for word in words:
        tag, _, root = word.partition("=")
        data = ImageDataModule("folder" if (Path(root) / "train").is_dir() else tag, root)
        train, test = identity_of(data, "train"), identity_of(data, "test")
        hashes[tag] = test.hashes
        print(f"{tag}: train={train.sha256} test={test.sha256}")
    np.savez(target, **hashes)
    print(f"{target.name}: {target.stat().st_size:,} bytes")


if __name__ == "__main__":
    main(sys.argv[1:])
