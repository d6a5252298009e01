"""Augmentations that hide a part of the image or its detail: Cutout, RandomErasing, GaussianBlur and Pixelate."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from cvcc_zoo.data.augment.augmentation import Augmentation, check_probability, check_range, each
from cvcc_zoo.data.draws import Draws

ATTEMPTS = 10  # torchvision.transforms.RandomErasing


def erase(images: Tensor, top: Tensor, left: Tensor, height: Tensor, width: Tensor, fill: float) -> Tensor:
    """Fill a box of each image, its corner and size in pixels (N,), with a grey level in [0, 1]."""
    rows = torch.arange(images.shape[2], device=images.device)
    columns = torch.arange(images.shape[3], device=images.device)
    inside = (rows >= top[:, None]) & (rows < (top + height)[:, None])  # (N, H)
    across = (columns >= left[:, None]) & (columns < (left + width)[:, None])  # (N, W)
    hidden = inside.to(images.dtype)[:, None, :, None] * across.to(images.dtype)[:, None, None, :]  # 1 or 0
    value = fill if images.is_floating_point() else round(255 * fill)
    return (images * (1 - hidden)).add_(hidden * value)  # five times faster than masked_fill


def check_fill(kind: str, fill: float) -> None:
    """Raise ValueError for a grey level outside [0, 1]."""
    if not 0 <= fill <= 1:
        raise ValueError(f"{kind}: fill must be a grey level in [0, 1], got {fill}")


class Cutout(Augmentation):
    """Hide a square of `size` pixels whose centre is anywhere in the image, so that it may extend over the edge.

    DeVries & Taylor 2017, https://arxiv.org/abs/1708.04552: 16 pixels for CIFAR-10, 8 for CIFAR-100. `fill` is a grey
    level in [0, 1]; the paper fills with the mean colour, which is close to 0.5.
    """

    def __init__(self, size: int = 16, fill: float = 0.5) -> None:
        super().__init__()
        if size < 1:
            raise ValueError(f"Cutout: size must be at least 1 pixel, got {size}")
        check_fill("Cutout", fill)
        self.size, self.fill = size, fill

    def change(self, images: Tensor, draws: Draws) -> Tensor:
        height, width = images.shape[2:]
        if self.size > min(height, width):
            raise ValueError(f"Cutout: a square of {self.size} pixels is larger than the images ({height}x{width})")
        top, left = draws.integers(height) - self.size // 2, draws.integers(width) - self.size // 2
        side = torch.full_like(top, self.size)
        return erase(images, top, left, side, side, self.fill)


class RandomErasing(Augmentation):
    """Hide a box of random area and shape inside the image, with a `probability` in [0, 1].

    Zhong et al. 2017, https://arxiv.org/abs/1708.04896. `scale`: smallest and largest share of the area; `ratio`:
    smallest and largest height / width, uniform in the logarithm; `fill`: a grey level in [0, 1]. A box that does not
    fit is drawn again, up to ten times as in torchvision; after that the image is not changed.
    """

    def __init__(
        self,
        probability: float = 0.5,
        scale: tuple[float, float] = (0.02, 0.33),
        ratio: tuple[float, float] = (0.3, 3.3),
        fill: float = 0.5,
    ) -> None:
        super().__init__()
        check_probability("RandomErasing", probability)
        check_range("RandomErasing", "scale", scale, 0.0, 1.0)
        check_range("RandomErasing", "ratio", ratio, 1e-3)
        check_fill("RandomErasing", fill)
        self.probability, self.fill = probability, fill
        self.scale, self.ratio = (scale[0], scale[1]), (ratio[0], ratio[1])

    def change(self, images: Tensor, draws: Draws) -> Tensor:
        height, width = images.shape[2:]
        chosen = draws.uniform() < self.probability
        rows = torch.zeros(len(images), dtype=torch.int64, device=images.device)
        columns, found = rows, rows > 0
        for _ in range(ATTEMPTS):
            area = height * width * draws.between(*self.scale)
            shape = draws.between(math.log(self.ratio[0]), math.log(self.ratio[1])).exp()
            h, w = (area * shape).sqrt().round().to(torch.int64), (area / shape).sqrt().round().to(torch.int64)
            fits = ~found & (h < height) & (w < width)
            rows, columns, found = torch.where(fits, h, rows), torch.where(fits, w, columns), found | fits
        top = (draws.uniform() * (height - rows + 1)).to(torch.int64)
        left = (draws.uniform() * (width - columns + 1)).to(torch.int64)
        return erase(images, top, left, torch.where(chosen, rows, 0), columns, self.fill)


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
