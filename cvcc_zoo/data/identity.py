"""Identify a data set by its images, whatever their order and file format.

The identity of a split is the sha256 of the sorted sha256 sums of its images: of shape, label and pixels. So
torchvision's files, a folder of PNG files and the same images in another order are one data set, and a copy that went
through JPEG is another.
"""

import base64
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cvcc_zoo.data.datamodule import ImageDataModule
from cvcc_zoo.data.images import Split
from cvcc_zoo.data.known import KNOWN, Known, known_test_images

Hashes = npt.NDArray[np.uint32]
Pixels = npt.NDArray[np.uint64]
NO_PIXELS: Pixels = np.empty(0, np.uint64)
SEEN = "seen_images"
"""The key of the hashes of images in a checkpoint: of a user's own, which its weights were trained on or chosen by."""
TRAINED_ON: tuple[Split, ...] = ("train", "val")
"""Splits whose identities a checkpoint holds: all training images, and those for validation."""


@dataclass(frozen=True)
class Identity:
    """The identity of a split."""

    sha256: str
    hashes: Hashes
    """(N,) the first four bytes of the sha256 of each image, sorted: enough to count the images in common."""
    pixels: Pixels
    """(N,) a hash of the pixels of each image, whatever its label."""

    def plain(self) -> dict[str, Any]:
        """Return JSON data: `name`, such as CIFAR-10 (None for an unknown split), `images` (count) and `sha256`."""
        known = next((known for known in KNOWN if self.sha256 in (known.train, known.test)), None)
        return {"name": known and known.title, "images": len(self.hashes), "sha256": self.sha256}


def is_identity(said: Any) -> TypeGuard[dict[str, Any]]:
    """Return whether a file says of a split what `plain` returns, at least the number of images and the sha256."""
    return isinstance(said, dict) and (type(said.get("sha256")), type(said.get("images"))) == (str, int)


_FOUND: WeakKeyDictionary[ImageDataModule, dict[tuple[str, tuple[str, ...]], Identity]] = WeakKeyDictionary()


def digests(images: Iterable[Tensor], labels: Sequence[object]) -> list[bytes]:
    """Return the sha256 of shape, label and pixels of each of the uint8 images (C, H, W)."""
    found = []
    for label, image in zip(labels, images, strict=True):
        shape = "x".join(map(str, image.shape))
        found.append(hashlib.sha256(f"{shape}:{label}:".encode() + _bytes_of(image)).digest())
    return found


def _bytes_of(image: Tensor) -> bytes:
    return image.cpu().contiguous().numpy().tobytes()


def identity(images: Tensor, labels: Tensor, samples: Tensor | None = None) -> Identity:
    """Compute the identity of uint8 images (N, C, H, W) with labels (N,): of those at the positions `samples`, or all.

    They are not copied, because they may be more than the memory holds.
    """
    chosen: Sequence[int] = range(len(images)) if samples is None else samples.tolist()
    numbers = labels.tolist()
    shape = "x".join(map(str, images.shape[1:])).encode()
    pixels = [hashlib.blake2b(_bytes_of(images[n]), digest_size=8, person=shape[:16]).digest() for n in chosen]
    joined = b"".join(sorted(digests((images[n] for n in chosen), [numbers[n] for n in chosen])))
    hashes = np.frombuffer(joined, dtype=">u4")[::8].astype(np.uint32)
    return Identity(hashlib.sha256(joined).hexdigest(), hashes, np.frombuffer(b"".join(pixels), dtype=np.uint64))


def repeated(test: Identity, pixels: Pixels) -> int:
    """Count the test images whose pixels have one of these hashes, under any label."""
    return int(np.isin(test.pixels, pixels).sum())


def pixels_of(data: ImageDataModule, before: Pixels = NO_PIXELS) -> Pixels:
    """Return the hashes of the pixels of all training and validation images, and those `before`, each once."""
    return np.unique(np.concatenate([before, *(identity_of(data, split).pixels for split in TRAINED_ON)]))


def seen_in(about: Mapping[str, Any]) -> Pixels:
    """Return the hashes (N,) that a checkpoint holds as int64; empty if it has none."""
    found = about.get(SEEN)
    if not isinstance(found, Tensor) or found.dtype != torch.int64:
        return NO_PIXELS
    return found.cpu().flatten().numpy().view(np.uint64)


def identity_of(data: ImageDataModule, split: Split) -> Identity:
    """Compute the identity of a split as it is served; "train" includes the images held out of it for validation.

    "val" has the images for validation: those, or the images of a folder of their own, which "train" does not include.
    That of "train" does not depend on the order of the images, which decides on those that are held out.
    It is cached for each data module, and takes about 20 s for a million images of 32x32 pixels.
    """
    found = _FOUND.setdefault(data, {})
    if (split, data.classes) not in found:
        samples = None
        if split == "train":
            images, labels, _ = data.training_images()
        elif split == "val":
            images, labels, samples = data.validation_images()
        else:
            data.prepare_data()
            data.setup("test")
            loader = data.test_dataloader()
            images, labels = loader.images, loader.labels
        found[split, data.classes] = identity(images, labels, samples)
    return found[split, data.classes]


def find_known(train: str | None, test: str | None) -> Known | None:
    """Find the known data set whose splits have these identities; None stands for a split that was not read."""
    for known in KNOWN:
        if (train or test) and train in (None, known.train) and test in (None, known.test):
            return known
    return None


def title_of_test(data: ImageDataModule, sha256: str | None = None) -> str:
    """Return the known name of the test images, such as CIFAR-10, else the name of the data set or folder.

    `sha256` is the identity of the test images if it was computed already.
    """
    known = find_known(None, sha256 or identity_of(data, "test").sha256)
    return known.title if known else data.dataset.title


def with_hashes(found: Identity) -> dict[str, Any]:
    """Return `plain()`, plus the hashes of the images (4 bytes each, base64) unless the package has them."""
    if known_test_images(found.sha256) is not None:
        return found.plain()
    return found.plain() | {"hashes": base64.b64encode(found.hashes.astype("<u4").tobytes()).decode()}


def in_common(found: Identity, there: Mapping[str, Any]) -> int | None:
    """Count the images that a test set shares with one that `with_hashes` described; None if it has no hashes."""
    hashes = known_test_images(there["sha256"])
    if hashes is None and "hashes" in there:
        try:
            hashes = np.frombuffer(base64.b64decode(there["hashes"], validate=True), dtype="<u4")
        except ValueError as error:
            raise ValueError(
                f"the hashes of the images in the card are damaged ({error}); get the card again"
            ) from error
    if hashes is None:
        return None
    mine, theirs = (dict(zip(*np.unique(each, return_counts=True), strict=True)) for each in (found.hashes, hashes))
    return int(sum(min(count, theirs.get(image, 0)) for image, count in mine.items()))
