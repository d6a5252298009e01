"""The operations of TrivialAugment and RandAugment, each with a magnitude for every image.

They agree with `torchvision.transforms.v2` for the same magnitudes: colours to 2 of 255 levels, moved pixels except for
those exactly between two (none in images with an even number of pixels per side, else below 1 %).
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as tv

from cvcc_zoo.data.augment.augmentation import each, in_floats
from cvcc_zoo.data.augment.colour import adjust_brightness, adjust_contrast, adjust_saturation, blend

Operation = Callable[[Tensor, Tensor], Tensor]


def move(images: Tensor, matrix: Tensor, shift: Tensor) -> Tensor:
    """Set each pixel (x, y) to the one nearest to `matrix` (N, 2, 2) @ (x, y) + `shift` (N, 2), black if outside.

    Coordinates are in pixels from the upper left corner of the image; the middle of the first pixel is (0.5, 0.5).
    """
    n, channels, height, width = images.shape
    size = torch.tensor([width, height], dtype=matrix.dtype, device=images.device)
    shift = shift + matrix @ (size / 2) - size / 2  # for coordinates relative to the middle
    # From here every product is rounded as in torchvision's `affine`, so that ties go to the same pixel.
    theta = torch.cat([matrix, shift[:, :, None]], 2).float() / (size / 2).float()[:, None]  # (N, 2, 3)
    x, y = (
        torch.linspace((1 - side) / 2, (side - 1) / 2, side, dtype=torch.float32, device=images.device)
        for side in (width, height)
    )
    places = torch.stack(
        [x.expand(height, -1), y[:, None].expand(-1, width), torch.ones_like(x).expand(height, -1)], -1
    )
    grid = places.view(1, -1, 3).expand(n, -1, -1).bmm(theta.mT)  # (N, H W, 2), from -1 to 1
    column, row = (((grid + 1) * size.float() - 1) / 2).round().to(torch.int64).unbind(2)
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    index = torch.where(inside, row * width + column, 0)[:, None].expand(-1, channels, -1)
    moved = images.flatten(2).gather(2, index).masked_fill(~inside[:, None], 0)
    return moved.view(n, channels, height, width)


def _linear(images: Tensor, **entries: Tensor) -> Tensor:
    """Call `move` with the identity, in which some entries xx, xy, yx, yy of the matrix or x, y of the shift differ."""
    n = len(images)
    precise = torch.float32 if images.device.type == "mps" else torch.float64  # Apple's GPUs lack float64
    matrix = torch.eye(2, dtype=precise, device=images.device).repeat(n, 1, 1)
    shift = torch.zeros(n, 2, dtype=precise, device=images.device)
    for name, values in entries.items():
        axes = ["xy".index(axis) for axis in name]
        if len(axes) == 1:
            shift[:, axes[0]] = values
        else:
            matrix[:, axes[0], axes[1]] = values
    return move(images, matrix, shift)


def shear_x(images: Tensor, slope: Tensor) -> Tensor:
    """Shift each row by `slope` pixels more than the one above; the upper left corner stays in place."""
    return _linear(images, xy=slope)


def shear_y(images: Tensor, slope: Tensor) -> Tensor:
    """Shift each column by `slope` pixels more than the one before; the upper left corner stays in place."""
    return _linear(images, yx=slope)


def translate_x(images: Tensor, pixels: Tensor) -> Tensor:
    """Move right by `pixels`, truncated to integers."""
    return _linear(images, x=-pixels.trunc())


def translate_y(images: Tensor, pixels: Tensor) -> Tensor:
    """Move down by `pixels`, truncated to integers."""
    return _linear(images, y=-pixels.trunc())


def rotate(images: Tensor, degrees: Tensor) -> Tensor:
    """Rotate counter-clockwise around the middle."""
    height, width = images.shape[2:]
    degrees = degrees if images.device.type == "mps" else degrees.double()
    cos, sin = torch.cos(degrees * math.pi / 180), torch.sin(degrees * math.pi / 180)
    x, y = width / 2, height / 2
    return _linear(
        images, xx=cos, xy=-sin, yx=sin, yy=cos, x=x - cos * x + sin * y, y=y - sin * x - cos * y
    )  # fmt: skip


def sharpness(images: Tensor, change: Tensor) -> Tensor:
    """Blend with a smoothed image: `change` 0 keeps, -1 smooths, above 0 sharpens."""
    return in_floats(images, lambda x: blend(x, tv.adjust_sharpness(x, 0.0), 1 + change))


def brightness(images: Tensor, change: Tensor) -> Tensor:
    """Multiply by 1 + change."""
    return in_floats(images, lambda x: adjust_brightness(x, 1 + change))


def contrast(images: Tensor, change: Tensor) -> Tensor:
    """Scale the difference from the mean luma by 1 + change."""
    return in_floats(images, lambda x: adjust_contrast(x, 1 + change))


def color(images: Tensor, change: Tensor) -> Tensor:
    """Scale the difference from the grey image by 1 + change."""
    return in_floats(images, lambda x: adjust_saturation(x, 1 + change).clone())


def posterize(images: Tensor, bits: Tensor) -> Tensor:
    """Keep the leading `bits` of 8."""
    if images.is_floating_point():
        levels = each(2.0 ** bits.round()).to(images.dtype)
        return torch.minimum((images * levels).floor(), levels - 1) / levels
    steps = (2 ** (8 - bits.round())).to(torch.int64)
    return images & each(256 - steps).to(torch.uint8)


def solarize(images: Tensor, threshold: Tensor) -> Tensor:
    """Invert the values of at least `threshold`, in [0, 1]."""
    top = 1.0 if images.is_floating_point() else 255
    return torch.where(images >= each(top * threshold), top - images, images)


def autocontrast(images: Tensor, _: Tensor) -> Tensor:
    """Stretch each channel to the full range."""
    changed: Tensor = tv.autocontrast(images)
    return changed


def equalize(images: Tensor, _: Tensor) -> Tensor:
    """Equalize the histogram of each channel."""
    changed: Tensor = tv.equalize(images)
    return changed


def identity(images: Tensor, _: Tensor) -> Tensor:
    """Return the images unchanged."""
    return images


def apply_each(images: Tensor, operations: list[Operation], chosen: Tensor, magnitudes: Tensor) -> Tensor:
    """Apply to each image the operation with index `chosen` (N,), with its magnitude (N,)."""
    order = chosen.argsort()
    counts = chosen.bincount(minlength=len(operations)).tolist()
    changed = torch.empty_like(images)
    for operation, members in zip(operations, torch.split(order, counts), strict=True):
        if len(members):
            changed[members] = operation(images[members], magnitudes[members])
    return changed
