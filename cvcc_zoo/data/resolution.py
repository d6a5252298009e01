"""Progressive resizing and cropping: training starts on smaller images, which cost less, and ends on whole ones.

Networks with global pooling take any size. The image sizes grow in the same way in Howard's and Smith's fast training
(DAWNBench 2018, https://www.fast.ai/posts/2018-04-30-dawnbench-fastai.html) and in EfficientNetV2
(https://arxiv.org/abs/2104.00298, section 4). Both resize, so the objects grow too, and what was learned about their
size no longer holds. Cropping keeps the scale: whole images only show more around the middle.
"""

from collections.abc import Mapping
from numbers import Real

from torch import Tensor
from torchvision.transforms.v2 import functional as tv

MIN_SIZE = 8
RESIZING, CROPPING = "progressive_resizing", "progressive_cropping"
Shares = Mapping[int, float]
"""Size in pixels -> share of the epochs, in (0, 1)."""


class Resolutions:
    """Sizes in pixels and their shares of the epochs, smallest first; the remaining epochs have the full size."""

    def __init__(self, resizing: Shares | None, full: int, cropping: Shares | None = None) -> None:
        """Take sizes of 8 .. `full` - 1 pixels whose shares leave epochs for `full`. Raises ValueError for others."""
        resized, cropped = _checked(RESIZING, resizing, full), _checked(CROPPING, cropping, full)
        if both := sorted(resized.keys() & cropped.keys()):
            raise ValueError(f"{both[0]} pixels are in both {RESIZING} and {CROPPING}; choose one of them")
        self.shares, self.full, self.cropped = dict(sorted((resized | cropped).items())), full, set(cropped)
        if (total := sum(self.shares.values())) >= 1:
            names = " and ".join(name for name, given in ((RESIZING, resized), (CROPPING, cropped)) if given)
            raise ValueError(
                f"the shares of {names} add up to {total:g}; they must be below 1, to leave epochs for the full size"
            )

    def __bool__(self) -> bool:
        return bool(self.shares)

    def size(self, epoch: int, epochs: int) -> int:
        """Return the size in pixels in an epoch (from 0) of `epochs`."""
        end = 0.0
        for size, share in self.shares.items():
            end += share
            if epoch < round(end * epochs):
                return size
        return self.full

    def reduce(self, images: Tensor, epoch: int, epochs: int) -> Tensor:
        """Resize (with antialiasing) or crop images (N, C, H, W), uint8 or float, to the size of an epoch."""
        if not self.shares or (size := self.size(epoch, epochs)) == self.full:
            return images
        if size not in self.cropped:
            resized: Tensor = tv.resize(images, [size, size], antialias=True)
            return resized
        start = (self.full - size) // 2
        return images[..., start : start + size, start : start + size].contiguous()


def _checked(name: str, shares: Shares | None, full: int) -> dict[int, float]:
    """Return the shares with integers as keys. Raises ValueError for an invalid size or share."""
    if shares is None:
        return {}
    if not isinstance(shares, Mapping):
        raise ValueError(f"{name} must map sizes to shares of the epochs, such as {{16: 0.5}}, not {shares!r}")
    # a run's config stores the keys as text
    checked = {int(size) if str(size).isdecimal() else size: share for size, share in shares.items()}
    for size, share in checked.items():
        if not isinstance(size, int) or not MIN_SIZE <= size < full:
            raise ValueError(
                f"{name}: sizes must be {MIN_SIZE} to {full - 1} pixels, below the {full} of the images; got {size}"
            )
        if not isinstance(share, Real) or not 0 < share < 1:
            raise ValueError(f"{name}: shares of the epochs must be in (0, 1); got {share} for {size} pixels")
    return checked
