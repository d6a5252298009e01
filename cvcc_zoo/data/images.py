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

    def prepare(self) -> None:
        """Download or decode missing data; runs in one process."""

    def load(self, split: Split) -> Images | None:
        """Load the images of a split; None for "val" if the data set does not have one."""


def data_home() -> Path:
    """Return the folder of the data sets: `$CVCC_ZOO_DATA`, else `cvcc_zoo` in the user's cache folder."""
    return home("CVCC_ZOO_DATA")


def share(images: Tensor, name: str) -> Tensor:
    """Map images from a file in the cache, so that all processes of a machine share one copy.

    The file is named after its content, so it cannot be outdated. If it cannot be written, the images are returned as
    they are, and each process has its own copy.
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


def resize(images: Tensor, size: int) -> Tensor:
    """Resize images (N, C, H, W), uint8 or float, to `size` x `size` pixels with antialiasing, if they differ."""
    if images.shape[2:] == (size, size):
        return images
    resized: Tensor = tv.resize(images, [size, size], antialias=True)
    return resized


def reshape(images: Tensor, image_size: int, in_channels: int) -> Tensor:
    """Resize uint8 images (N, C, H, W) to a square and convert them to 1 (grey) or 3 channels, where they differ."""
    images = resize(images, image_size)
    if images.shape[1] == in_channels:
        return images
    return images.expand(-1, 3, -1, -1) if in_channels == 3 else tv.rgb_to_grayscale(images)


def stratified_split(
    labels: Tensor, share: float, seed: int, classes: Sequence[str] = (), purpose: str = "validation"
) -> tuple[Tensor, Tensor]:
    """Return the sorted positions to keep and to hold out: round(share * n) of the n images of each class.

    `labels` int64 (N,), `share` in [0, 1). A share above 0 holds out at least one image of each class. Raises
    ValueError if that leaves a class without training images; the message has its name from `classes`, and `purpose`.
    """
    if share == 0:
        return torch.arange(len(labels)), torch.arange(0)
    generator = torch.Generator().manual_seed(seed)
    held_out = []
    for label in torch.unique(labels).tolist():
        members = (labels == label).nonzero().flatten()
        count = max(1, round(share * len(members)))
        if count >= len(members):
            name = repr(classes[label]) if classes else label
            raise ValueError(
                f"the class {name} has {len(members)} training image{'s' * (len(members) != 1)}, too few to hold out "
                f"{share:.0%} for the {purpose}; add images, or hold out none: --data.{purpose}=0"
            )
        held_out.append(members[torch.randperm(len(members), generator=generator)[:count]])
    chosen = torch.cat(held_out).sort().values
    mask = torch.ones(len(labels), dtype=torch.bool)
    mask[chosen] = False
    return mask.nonzero().flatten(), chosen
