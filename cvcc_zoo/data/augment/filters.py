"""Augmentations that remove detail: GaussianBlur and Pixelate."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from cvcc_zoo.data.augment.augmentation import Augmentation, check_probability, check_range, each
from cvcc_zoo.data.draws import Draws


class GaussianBlur(Augmentation):
    """Blur each image with a Gaussian of its own standard deviation; the border is reflected."""

    in_float = True

    def __init__(self, kernel_size: int = 3, sigma: tuple[float, float] = (0.1, 2.0)) -> None:
        """`kernel_size` in pixels, odd; `sigma`: smallest and largest standard deviation in pixels, uniform."""
        super().__init__()
        if kernel_size < 3 or kernel_size % 2 == 0:
            raise ValueError(f"GaussianBlur: kernel_size must be odd and at least 3 pixels, got {kernel_size}")
        check_range("GaussianBlur", "sigma", sigma, 1e-3)
        self.kernel_size, self.sigma = kernel_size, (sigma[0], sigma[1])

    def change(self, images: Tensor, draws: Draws) -> Tensor:
        return gaussian_blur(images, self.kernel_size, draws.between(*self.sigma))


def gaussian_blur(x: Tensor, kernel_size: int, sigma: Tensor) -> Tensor:
    """Convolve floats (N, C, H, W) with a Gaussian of standard deviation `sigma` (N,), in pixels."""
    radius = kernel_size // 2
    if radius >= min(x.shape[2:]):
        raise ValueError(
            f"GaussianBlur: a kernel of {kernel_size} pixels is too large to reflect images of "
            f"{x.shape[2]}x{x.shape[3]}; choose a kernel_size below {2 * min(x.shape[2:])}"
        )
    distance = torch.arange(radius + 1, device=x.device, dtype=x.dtype)
    weights = torch.exp(-0.5 * (distance / sigma.to(x.dtype)[:, None]).square())  # (N, radius + 1)
    weights = weights / (weights[:, :1] + 2 * weights[:, 1:].sum(1, keepdim=True))
    for dim, padding in ((2, (0, 0, radius, radius)), (3, (radius, radius, 0, 0))):
        size = x.shape[dim]
        padded = F.pad(x, padding, mode="reflect")
        x = x * each(weights[:, 0])
        for i in range(1, radius + 1):
            both = padded.narrow(dim, radius - i, size) + padded.narrow(dim, radius + i, size)
            x.addcmul_(both, each(weights[:, i]))
    return x


class Pixelate(Augmentation):
    """Replace squares of pixels by their mean colour, as in a censored photo, with a `probability` in [0, 1].

    The course calls this a mosaic; elsewhere "mosaic" means four images stitched into one. All `block_sizes`, in
    pixels, are equally likely. Blocks start in the upper left corner; those at the other edges may be smaller.
    """

    in_float = True

    def __init__(self, block_sizes: Sequence[int] = (2, 4), probability: float = 0.5) -> None:
        super().__init__()
        if not block_sizes or min(block_sizes) < 2:
            raise ValueError(f"Pixelate: block_sizes must be at least 2 pixels, got {list(block_sizes)}")
        check_probability("Pixelate", probability)
        self.block_sizes, self.probability = tuple(block_sizes), probability

    def change(self, images: Tensor, draws: Draws) -> Tensor:
        chosen = draws.integers(len(self.block_sizes))
        pixelated = draws.uniform() < self.probability
        x = images
        for number, size in enumerate(self.block_sizes):
            x = torch.where(each(pixelated & (chosen == number)), pixelate(images, size), x)
        return x


def pixelate(x: Tensor, size: int) -> Tensor:
    """Replace each square of `size` pixels in floats (N, C, H, W) by its mean."""
    height, width = x.shape[2:]
    if size > min(height, width):
        raise ValueError(f"Pixelate: blocks of {size} pixels are larger than the images ({height}x{width})")
    means = F.avg_pool2d(x, size, ceil_mode=True, count_include_pad=False)
    return means.repeat_interleave(size, 2)[:, :, :height].repeat_interleave(size, 3)[..., :width]
