"""MixUp and CutMix: combine two images and their labels.

torchvision draws one mixing share for a batch; these draw one for each image.
"""

import math

import torch
from torch import Tensor

from cvcc_zoo.data.augment.augmentation import Mixing, as_float, as_uint8, check_probability, each
from cvcc_zoo.data.augment.erasing import erase
from cvcc_zoo.data.draws import Draws

QUANTILES = 4096


class _Mix(Mixing):
    """Draw the share of the image itself from Beta(alpha, alpha), to the nearest of 4096 quantiles."""

    def __init__(self, alpha: float, probability: float) -> None:
        super().__init__()
        kind = type(self).__name__
        if not 0 < alpha < math.inf:
            raise ValueError(f"{kind}: alpha of the Beta distribution must be above 0, got {alpha}")
        check_probability(kind, probability)
        from scipy.special import betaincinv  # the import takes a fifth of a second, and few need it

        self.probability = probability
        middles = (torch.arange(QUANTILES, dtype=torch.float64) + 0.5) / QUANTILES
        shares = torch.from_numpy(betaincinv(alpha, alpha, middles.numpy()))
        self.register_buffer("shares", shares.to(torch.float32), persistent=False)
        self.shares: Tensor

    def share(self, draws: Draws) -> Tensor:
        """Draw the share of the image itself, (N,) in [0, 1]; 1 for images that are not mixed."""
        share = self.shares.to(draws.device)[draws.integers(QUANTILES)]
        return torch.where(draws.uniform() < self.probability, share, 1.0)


def _mix_labels(labels: Tensor, share: Tensor) -> Tensor:
    return torch.lerp(labels.roll(1, 0), labels, share[:, None].to(labels.dtype))


class MixUp(_Mix):
    """Take a weighted mean of each image and its partner. Zhang et al. 2017, https://arxiv.org/abs/1710.09412."""

    def __init__(self, alpha: float = 1.0, probability: float = 1.0) -> None:
        """Set `alpha` of Beta(alpha, alpha): 1 makes all shares equally likely, as for the paper's CIFAR-10."""
        super().__init__(alpha, probability)

    def forward(self, images: Tensor, labels: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
        share = self.share(draws)
        x = as_float(images)
        mixed = torch.lerp(x.roll(1, 0), x, each(share).to(x.dtype)).clamp_(0, 1)
        return (mixed if images.is_floating_point() else as_uint8(mixed)), _mix_labels(labels, share)


class CutMix(_Mix):
    """Replace a box of the image with that of its partner. Yun et al. 2019, https://arxiv.org/abs/1905.04899.

    Its centre is anywhere in the image; the labels are mixed by the area of the box that is inside the image.
    """

    def __init__(self, alpha: float = 1.0, probability: float = 1.0) -> None:
        """Set `alpha` of Beta(alpha, alpha), from which the share of the area is drawn."""
        super().__init__(alpha, probability)

    def forward(self, images: Tensor, labels: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
        height, width = images.shape[2:]
        half = (1 - self.share(draws)).sqrt() / 2  # half a side of the box, as a share of the image's
        row, column = draws.integers(height), draws.integers(width)
        half_height, half_width = (half * height).to(torch.int64), (half * width).to(torch.int64)
        top, bottom = (row - half_height).clamp(min=0), (row + half_height).clamp(max=height)
        left, right = (column - half_width).clamp(min=0), (column + half_width).clamp(max=width)
        box = torch.zeros_like(images[:, :1], dtype=torch.float32)
        inside = erase(box, top, left, bottom - top, right - left, fill=1.0).bool()
        share = 1 - (bottom - top) * (right - left) / (height * width)
        return torch.where(inside, images.roll(1, 0), images), _mix_labels(labels, share)
