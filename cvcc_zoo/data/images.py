"""What every data set becomes: uint8 images and labels, with the names of the classes."""

import hashlib
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
    """A data set that an ImageDataModule can use; what it says of itself is known before anything is read."""

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
        """Whether an image still shows its class when mirrored left to right (not so for digits)."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What is to be said of it when a training begins, a line each."""

    def prepare(self) -> None:
        """Download or decode what is missing; runs in one process."""

    def load(self, split: Split) -> Images | None:
        """The images of a split; None for "val" where the data set has none of its own."""


def data_home() -> Path:
    """Where data sets live: `$CVCC_ZOO_DATA`, else `cvcc_zoo` in the user's cache folder."""
    return home("CVCC_ZOO_DATA")


def share(images: Tensor, name: str) -> Tensor:
    """The same images, mapped from a file in the cache: all processes of a machine hold them once.

    The file is named after its content, so that it is never an outdated one. Where it cannot be written they stay as
    they are, and each process has its own.
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
    mapped = torch.from_file(str(target), shared=False, size=images.numel(), dtype=torch.uint8)
    return mapped.view(images.shape)


def on_accelerator(data: Images, device: torch.device, there: dict[int, Images]) -> Images:
    """The images on a CUDA device, where batches are then made, if they take no more than a quarter of what is free.

    `there` keeps them by the id of those here, which stay: statistics are taken from them.
    """
    if id(data) in there and there[id(data)].images.device == device:
        return there[id(data)]
    size = data.images.numel() * data.images.element_size()
    if device.type != "cuda" or data.images.device == device or 4 * size > torch.cuda.mem_get_info(device)[0]:
        return data
    moved = there[id(data)] = Images(data.images.to(device), data.labels.to(device))
    return moved


def resize(images: Tensor, size: int) -> Tensor:
    """Images (N, C, H, W), uint8 or float, resized to a square of `size` pixels without aliasing; unchanged if so."""
    if images.shape[2:] == (size, size):
        return images
    resized: Tensor = tv.resize(images, [size, size], antialias=True)
    return resized


def reshape(images: Tensor, image_size: int, in_channels: int) -> Tensor:
    """Uint8 images (N, C, H, W) resized to a square and turned into grey (1) or colour (3); unchanged if they fit."""
    images = resize(images, image_size)
    if images.shape[1] == in_channels:
        return images
    return images.expand(-1, 3, -1, -1) if in_channels == 3 else tv.rgb_to_grayscale(images)
