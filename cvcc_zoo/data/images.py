"""The common form of all data sets: uint8 images, labels, and the names of the classes; and their split."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as tv

from cvcc_zoo.files.own import home, whole_file

Split = Literal["train", "val", "test"]


@dataclass(frozen=True)
class Images:
    """`images` uint8 (N, C, H, W), in memory or memory-mapped, and `labels` int64 (N,) in 0 .. num_classes - 1."""

    images: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        assert self.images.dtype == torch.uint8 and self.images.ndim == 4
        assert self.labels.dtype == torch.int64 and self.labels.shape == self.images.shape[:1]


class ImageDataset(Protocol):
    """A data set that an ImageDataModule can serve. Its properties are known before any image is read."""

    @property
    def title(self) -> str:
        """Short name for run folders and tables."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the labels."""

    @property
    def in_channels(self) -> int:
        """1 for grey, 3 for colour."""

    @property
    def image_size(self) -> int:
        """Height and width in pixels."""

    @property
    def mirror(self) -> bool:
        """True if mirroring an image left to right keeps its class (not for digits)."""

    @property
    def notes(self) -> tuple[str, ...]:
        """Lines to print when training starts."""

    @property
    def splits(self) -> tuple[Split, ...]:
        """The splits that there are: "train", and perhaps "val" and "test"."""

    @property
    def public(self) -> bool:
        """True if anybody can download the images, so that a report may show them."""

    def prepare(self) -> None:
        """Download or decode missing data; runs in one process."""

    def load(self, split: Split) -> Images | None:
        """Load the images of a split; None for "val" if the data set does not have one."""


def data_home() -> Path:
    """Return the folder of the data sets: `$CVCC_ZOO_DATA`, else `cvcc_zoo` in the user's cache folder."""
    return home("CVCC_ZOO_DATA")


def share(images: Tensor, name: str) -> Tensor:
    """Map images from a file in the cache, so that all processes of a machine share one copy.

    The file is named after its content, so it cannot be outdated. If it cannot be written or read, the images are
    returned as they are, and each process has its own copy.
    """
    images = images.contiguous()
    pixels = images.numpy()
    digest = hashlib.sha256(pixels.data).hexdigest()
    target = data_home() / "decoded" / f"{name}-{digest[:16]}.uint8"
    if not (target.is_file() and target.stat().st_size == images.numel()):
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with whole_file(target) as file:
                file.write(pixels.data)
        except OSError:
            return images
    try:
        return mapped(target, images.shape)
    except OSError:  # the file of another user
        return images


def mapped(path: Path, shape: Sequence[int]) -> Tensor:
    """Map the uint8 pixels in a file into memory. Raises OSError if it cannot be read."""
    with path.open("rb"):  # the errors of torch are RuntimeErrors
        return torch.from_file(str(path), shared=False, size=torch.Size(shape).numel(), dtype=torch.uint8).view(shape)


def on_accelerator(data: Images, device: torch.device, copies: dict[int, Images]) -> Images:
    """Copy images to a CUDA device, where batches are then made, if they take at most a quarter of its free memory.

    `copies` caches them by the id of the originals, which stay in use for statistics.
    """
    if id(data) in copies and copies[id(data)].images.device == device:
        return copies[id(data)]
    size = data.images.numel() * data.images.element_size()
    if device.type != "cuda" or data.images.device == device or 4 * size > torch.cuda.mem_get_info(device)[0]:
        return data
    copy = copies[id(data)] = Images(data.images.to(device), data.labels.to(device))
    return copy


def reshape(images: Tensor, image_size: int, in_channels: int) -> Tensor:
    """Resize uint8 images (N, C, H, W) to a square and convert them to 1 (grey) or 3 channels, where they differ.

    Both as Pillow does with files, which `predict` reads: resizing is bicubic, and 1 % of the values differ by 1 or 2.
    """
    if images.shape[2:] != (image_size, image_size):
        size, bicubic = [image_size, image_size], tv.InterpolationMode.BICUBIC
        images = tv.resize(images, size, interpolation=bicubic, antialias=True)
    if images.shape[1] == in_channels:
        return images
    return images.expand(-1, 3, -1, -1) if in_channels == 3 else grey(images)


def grey(images: Tensor) -> Tensor:
    """Convert uint8 images (N, 3, H, W) to grey ones (N, 1, H, W), to the bit as Pillow's `convert("L")`."""
    red, green, blue = (images[:, channel, None].int() for channel in range(3))
    return ((19595 * red + 38470 * green + 7471 * blue + 0x8000) >> 16).to(torch.uint8)
