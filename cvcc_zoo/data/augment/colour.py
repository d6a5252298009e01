"""Colour jitter, and its four colour operations with a factor for each image.

They agree with `torchvision.transforms.v2.functional` on floats to 1e-5, and on uint8 to 2 of 255 levels, because
torchvision truncates after each operation, while these round once.
"""

import math

import torch
from torch import Tensor
from torchvision.transforms.v2.functional import rgb_to_grayscale

from cvcc_zoo.data.augment.augmentation import Augmentation, each
from cvcc_zoo.data.draws import Draws


def blend(x: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    """Return factor * x + (1 - factor) * other, clamped to [0, 1]; a factor above 1 moves away from `other`."""
    return (x * each(factor)).add_(other * each(1 - factor)).clamp_(0, 1)


def adjust_brightness(x: Tensor, factor: Tensor) -> Tensor:
    """Multiply images (N, C, H, W), floats in [0, 1], by a factor (N,)."""
    return (x * each(factor)).clamp_(0, 1)


def adjust_contrast(x: Tensor, factor: Tensor) -> Tensor:
    """Blend with the mean luma of the image."""
    return blend(x, each(rgb_to_grayscale(x).flatten(1).mean(1)), factor)


def adjust_saturation(x: Tensor, factor: Tensor) -> Tensor:
    """Blend with the grey image; return grey images unchanged."""
    return x if x.shape[1] == 1 else blend(x, rgb_to_grayscale(x), factor)


def adjust_hue(x: Tensor, shift: Tensor) -> Tensor:
    """Rotate the hue in HSV by `shift` (N,), in [-0.5, 0.5] of the colour circle; return grey images unchanged."""
    if x.shape[1] == 1:
        return x
    r, g, b = x.unbind(1)
    value = torch.maximum(torch.maximum(r, g), b)
    chroma = value - torch.minimum(torch.minimum(r, g), b)
    inverse = chroma.clamp(min=1e-8).reciprocal_()  # for grey pixels any value will do
    sextant = (r - g).mul_(inverse).add_(4)  # the hue in 0 .. 6: red 0, green 2, blue 4
    sextant.lerp_((b - r).mul_(inverse).add_(2), (value == g).to(x.dtype))
    sextant.lerp_((g - b).mul_(inverse), (value == r).to(x.dtype))
    sextant.add_(6 * shift[:, None, None])
    sextant.sub_((sextant / 6).floor_(), alpha=6)
    changed = torch.empty_like(x)
    missing = ((sextant - 3).abs_().neg_().add_(2), (sextant - 2).abs_().sub_(1), (sextant - 4).abs_().sub_(1))
    for channel, share in enumerate(missing):  # share of the chroma by which a channel is below the largest
        torch.addcmul(value, chroma, share.clamp_(0, 1), value=-1, out=changed[:, channel])
    return changed


class ColorJitter(Augmentation):
    """Change brightness, contrast, saturation and hue of each image, in this order, by random factors.

    Factors are uniform in [1 - v, 1 + v] (not below 0), the hue in [-v, v] of the colour circle. torchvision shuffles
    the order of the four, for the whole batch.
    """

    in_float = True

    def __init__(
        self, brightness: float = 0.2, contrast: float = 0.2, saturation: float = 0.2, hue: float = 0.05
    ) -> None:
        """Set the largest change of each: 0 leaves it out; `hue` is at most 0.5."""
        super().__init__()
        for name, value in (("brightness", brightness), ("contrast", contrast), ("saturation", saturation)):
            if not 0 <= value < math.inf:
                raise ValueError(
                    f"ColorJitter: {name}, the largest change of a factor, must be at least 0, got {value}"
                )
        if not 0 <= hue <= 0.5:
            raise ValueError(f"ColorJitter: hue must be a share of the colour circle in [0, 0.5], got {hue}")
        self.brightness, self.contrast, self.saturation, self.hue = brightness, contrast, saturation, hue

    def change(self, images: Tensor, draws: Draws) -> Tensor:
        if images.shape[1] not in (1, 3):
            raise ValueError(f"ColorJitter takes images with 1 or 3 channels, got {images.shape[1]}")
        x = images
        if self.brightness:
            x = adjust_brightness(x, draws.between(max(0.0, 1 - self.brightness), 1 + self.brightness))
        if self.contrast:
            x = adjust_contrast(x, draws.between(max(0.0, 1 - self.contrast), 1 + self.contrast))
        if self.saturation:
            x = adjust_saturation(x, draws.between(max(0.0, 1 - self.saturation), 1 + self.saturation))
        if self.hue:
            x = adjust_hue(x, draws.between(-self.hue, self.hue))
        return x.clone() if x is images else x
