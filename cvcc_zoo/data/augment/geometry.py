"""Augmentations that move pixels: random crop, horizontal flip, alternating flip."""

import torch
import torch.nn.functional as F
from torch import Tensor

from cvcc_zoo.data.augment.augmentation import Augmentation, check_probability, choose
from cvcc_zoo.data.draws import Draws
from cvcc_zoo.registry import unknown

PADDINGS = ("zero", "reflect")


class RandomCrop(Augmentation):
    """Pad each side with `padding` pixels and cut a window of the old size at a random place.

    All (2 padding + 1)^2 places are equally likely: 81 for the usual padding of 4 (He et al. 2015, section 4.2).
    """

    def __init__(self, padding: int = 4, mode: str = "zero") -> None:
        """`mode` says what the padding holds: zero (black), or reflect (the image mirrored at its edge)."""
        super().__init__()
        if padding < 1:
            raise ValueError(f"RandomCrop needs a padding of at least 1 pixel, got {padding}")
        if mode not in PADDINGS:
            raise unknown("padding mode of RandomCrop", mode, PADDINGS)
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
        """Rows of the padded image as rows of the image: p .. 1, 0 .. size - 1, size - 2 .. size - 1 - p."""
        rows = torch.arange(-self.padding, size + self.padding, device=device).abs()
        return torch.where(rows < size, rows, 2 * (size - 1) - rows)


def windows(images: Tensor, top: Tensor, left: Tensor, height: int, width: int) -> Tensor:
    """Cut a window (N, C, height, width) out of each image (N, C, H, W), its corner at `top`, `left` (N,).

    Each row of a window is one row of the overlapping view of all `width` pixels in a line, which `index_select`
    copies whole: ten times faster than an index for every pixel.
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

    In two epochs the network sees every image both ways, where independent flips show half of the images twice the
    same way: https://arxiv.org/abs/2404.00498, section 3.6 (airbench).
    """

    def change(self, images: Tensor, draws: Draws) -> Tensor:
        mirrored = (draws.constant() < 0.5) ^ (draws.epoch % 2 == 1)
        return choose(mirrored, images.flip(-1), images)
