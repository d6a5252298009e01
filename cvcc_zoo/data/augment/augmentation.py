"""What an augmentation is: a batch of images in, the same batch changed out, each image by its own draws."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from cvcc_zoo.data.draws import Draws


class Augmentation(nn.Module):
    """Images (N, C, H, W), uint8 or float in [0, 1], to images of the same shape and type.

    A subclass implements `change`; one with `in_float` gets floats in [0, 1], and what it gives is cut to [0, 1].
    """

    in_float = False

    def __init__(self) -> None:  # nn.Module's takes any option
        super().__init__()

    def change(self, images: Tensor, draws: Draws) -> Tensor:
        """The changed images, a tensor of their own."""
        raise NotImplementedError

    def forward(self, images: Tensor, draws: Draws) -> Tensor:
        """Raises ValueError for images of another type, or too small for the augmentation."""
        if images.ndim != 4 or not (images.dtype == torch.uint8 or images.is_floating_point()):
            raise ValueError(
                f"augmentations take images (N, C, H, W), uint8 or float in [0, 1], got {images.dtype} of shape "
                f"{tuple(images.shape)}"
            )
        if not self.in_float:
            return self.change(images, draws)
        return in_floats(images, lambda x: self.change(x, draws))


class Mixing(nn.Module):
    """Images (N, C, H, W) and soft labels (N, num_classes) to images and soft labels of the same shapes.

    The partner of an image is the one before it in the batch; the order of a training batch is random.
    """

    def forward(self, images: Tensor, labels: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
        """Mix images and labels."""
        raise NotImplementedError


def as_float(images: Tensor) -> Tensor:
    """Uint8 0..255 to float in [0, 1]; floats stay as they are."""
    return images if images.is_floating_point() else images.to(torch.get_default_dtype()).div_(255)


def as_uint8(images: Tensor) -> Tensor:
    """Floats in [0, 1] to the nearest uint8 in 0..255."""
    return (255 * images).add_(0.5).to(torch.uint8)


def in_floats(images: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    """Apply a function of floats in [0, 1] to images of either type; the result has their type and stays in range."""
    changed = change(as_float(images)).clamp_(0, 1)
    return changed if images.is_floating_point() else as_uint8(changed)


def each(values: Tensor) -> Tensor:
    """One value for each sample (N,) as (N, 1, 1, 1), to be combined with images."""
    return values[:, None, None, None]


def choose(chosen: Tensor, yes: Tensor, no: Tensor) -> Tensor:
    """The images of `yes` where `chosen` (N,) holds, else those of `no`; for bytes four times faster than where."""
    if yes.is_floating_point():
        return torch.where(each(chosen), yes, no)
    n = len(chosen)
    return torch.cat([no, yes]).index_select(0, torch.arange(n, device=no.device) + n * chosen)


def check_probability(kind: str, probability: float) -> None:
    """Raise ValueError for a number outside of [0, 1]."""
    if not 0 <= probability <= 1:
        raise ValueError(f"{kind}: probability must be in [0, 1], got {probability}")


def check_range(kind: str, name: str, values: Sequence[float], low: float, high: float = float("inf")) -> None:
    """Raise ValueError unless low <= values[0] <= values[1] <= high."""
    pair = isinstance(values, list | tuple) and len(values) == 2
    if not pair or not low <= values[0] <= values[1] <= high:
        limits = f"in [{low:g}, {high:g}]" if high < float("inf") else f"of at least {low:g}"
        raise ValueError(f"{kind}: {name} is a smallest and a largest value {limits}, got {values}")
