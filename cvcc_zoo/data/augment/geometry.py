"""Augmentations that move pixels: RandomCrop, HorizontalFlip, AlternatingFlip."""

import torch
import torch.nn.functional as F
from torch import Tensor

from cvcc_zoo.data.augment.augmentation import Augmentation, check_probability, choose
from cvcc_zoo.data.draws import Draws
from cvcc_zoo.registry import check_known

PADDINGS = ("zero", "reflect")


class RandomCrop(Augmentation):
    """Pad each side with `padding` pixels and crop to the original size at a random position.

    All (2 padding + 1)^2 positions are equally likely: 81 for the usual padding of 4 (He et al. 2015, section 4.2).
    """

    def __init__(self, padding: int = 4, mode: str = "zero") -> None:
        """Set the `padding` in pixels, and what fills it: `mode` zero (black) or reflect (mirrored at the edge)."""
        super().__init__()
        if padding < 1:
            raise ValueError(f"RandomCrop needs a padding of at least 1 pixel, got {padding}")
        check_known("padding mode of RandomCrop", PADDINGS, mode)
        self.padding, self.mode = padding, mode

    def change(self, images: Tensor, draws: Draws) -> Tensor:
        height, width = images.shape[2:]
        if self.padding >= min(height, width):
            raise ValueError(
                f"RandomCrop pads {self.padding} pixels, and the images have {height}x{width}: a crop could miss the "
                f"image; choose a padding below {min(height, width)}"
            )
        if self.mode == "zero":
            padded = F.pad(images, [self.padding] * 4)
        else:
            rows, columns = (self._reflected(size, images.device) for size in (height, width))
            padded = images[:, :, rows][..., columns]  # F.pad reflects floats only
        top, left = draws.integers(2 * self.padding + 1), draws.integers(2 * self.padding + 1)
        return windows(padded, top, left, height, width)

    def _reflected(self, size: int, device: torch.device) -> Tensor:
        """Map rows of the padded image to rows of the image: p .. 1, 0 .. size - 1, size - 2 .. size - 1 - p."""
        rows = torch.arange(-self.padding, size + self.padding, device=device).abs()
        return torch.where(rows < size, rows, 2 * (size - 1) - rows)


def windows(images: Tensor, top: Tensor, left: Tensor, height: int, width: int) -> Tensor:
    """Crop a window (N, C, height, width) from images (N, C, H, W), each with its corner at `top`, `left` (N,).

    A row of a window is a row in the view of all runs of `width` successive pixels, which `index_select` copies as a
    whole: ten times faster than an index for every pixel.
    """
    n, channels, rows, columns = images.shape
    image = torch.arange(n * channels, device=images.device).view(n, channels, 1)
    row = top[:, None, None] + torch.arange(height, device=images.device)
    starts = (image * rows + row) * columns + left[:, None, None]  # (N, C, height)
    lines = images.flatten().unfold(0, width, 1)
    return lines.index_select(0, starts.flatten()).view(n, channels, height, width)


class HorizontalFlip(Augmentation):
    """Mirror each image left to right with a `probability` in [0, 1]."""

    def __init__(self, probability: float = 0.5) -> None:
        super().__init__()
        check_probability("HorizontalFlip", probability)
        self.probability = probability

    def change(self, images: Tensor, draws: Draws) -> Tensor:
        return choose(draws.uniform() < self.probability, images.flip(-1), images)


class AlternatingFlip(Augmentation):
    """Mirror a random half of the images in the first epoch, the other half in the second, and so on.

    In two epochs the network sees every image both ways, whereas independent flips show half of the images the same
    way twice: https://arxiv.org/abs/2404.00498, section 3.6 (airbench).
    """

    def change(self, images: Tensor, draws: Draws) -> Tensor:
        mirrored = (draws.constant() < 0.5) ^ (draws.epoch % 2 == 1)
        return choose(mirrored, images.flip(-1), images)
