"""MixUp and CutMix: two images and their labels become one, each pair with a share of its own.

torchvision draws one share for a batch; these draw one for each image.
"""

import torch
from torch import Tensor

from cvcc_zoo.data.augment.augmentation import Mixing, as_float, as_uint8, check_probability, each
from cvcc_zoo.data.augment.erasing import erase
from cvcc_zoo.data.draws import Draws

QUANTILES = 4096


class _Mix(Mixing):
    """Draws the share of the image itself from Beta(alpha, alpha), exact to a quantile of 1 in 4096."""

    def __init__(self, alpha: float, probability: float) -> None:
        super().__init__()
        kind = type(self).__name__
        if not alpha > 0:
            raise ValueError(f"{kind}: alpha of the Beta distribution must be above 0, got {alpha}")
        check_probability(kind, probability)
        from scipy.special import betaincinv  # takes a fifth of a second, and few need it

        self.probability = probability
        middles = (torch.arange(QUANTILES, dtype=torch.float64) + 0.5) / QUANTILES
        shares = torch.from_numpy(betaincinv(alpha, alpha, middles.numpy()))
        self.register_buffer("shares", shares.to(torch.float32), persistent=False)
        self.shares: Tensor

    def share(self, draws: Draws) -> Tensor:
        """(N,) in [0, 1]: how much of the image itself stays; 1 for images that are not mixed."""
        share = self.shares.to(draws.device)[draws.integers(QUANTILES)]
        return torch.where(draws.uniform() < self.probability, share, 1.0)


def _mix_labels(labels: Tensor, share: Tensor) -> Tensor:
    return torch.lerp(labels.roll(1, 0), labels, share[:, None].to(labels.dtype))


class MixUp(_Mix):
    """The image times a share plus its partner times the rest. Zhang et al. 2017, https://arxiv.org/abs/1710.09412."""

    def __init__(self, alpha: float = 1.0, probability: float = 1.0) -> None:
        """`alpha` of Beta(alpha, alpha): 1 makes all shares equally likely (the paper's CIFAR-10), 0.2 mixes less."""
        super().__init__(alpha, probability)

    def forward(self, images: Tensor, labels: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
        share = self.share(draws)
        x = as_float(images)
        mixed = torch.lerp(x.roll(1, 0), x, each(share).to(x.dtype)).clamp_(0, 1)
        return (mixed if images.is_floating_point() else as_uint8(mixed)), _mix_labels(labels, share)


class CutMix(_Mix):
    """A box of the image comes from its partner. Yun et al. 2019, https://arxiv.org/abs/1905.04899.

    Its centre is anywhere in the image; the labels are mixed by the area that is left inside.
    """

    def __init__(self, alpha: float = 1.0, probability: float = 1.0) -> None:
        """`alpha` of Beta(alpha, alpha), from which the share of the area comes."""
        super().__init__(alpha, probability)

    def forward(self, images: Tensor, labels: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
        height, width = images.shape[2:]
        side = (1 - self.share(draws)).sqrt() / 2  # half of it, as a share of the image's
        row, column = draws.integers(height), draws.integers(width)
        half_height, half_width = (side * height).to(torch.int64), (side * width).to(torch.int64)
        top, bottom = (row - half_height).clamp(min=0), (row + half_height).clamp(max=height)
        left, right = (column - half_width).clamp(min=0), (column + half_width).clamp(max=width)
        box = torch.zeros_like(images[:, :1], dtype=torch.float32)
        inside = erase(box, top, left, bottom - top, right - left, fill=1.0).bool()
        share = 1 - (bottom - top) * (right - left) / (height * width)
        return torch.where(inside, images.roll(1, 0), images), _mix_labels(labels, share)
