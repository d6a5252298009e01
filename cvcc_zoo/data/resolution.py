"""Progressive resizing and cropping: a training starts on smaller images, which cost less, and ends on whole ones.

Networks with global pooling take any size; the sizes of Howard's and Smith's fast trainings (DAWNBench 2018,
https://www.fast.ai/posts/2018-04-30-dawnbench-fastai.html) and of EfficientNetV2 (https://arxiv.org/abs/2104.00298,
section 4) grow in the same way. They resize, so that objects grow too, and what was learned of their size no longer
fits. Cropping keeps the middle of an image as large as it was: whole images only have more around it.
"""

from collections.abc import Mapping

from torch import Tensor

from cvcc_zoo.data.images import resize

MIN_SIZE = 8
RESIZING, CROPPING = "progressive_resizing", "progressive_cropping"


class Resolutions:
    """Sizes in pixels and their shares of the epochs, smallest first; what is left of the epochs has the full size."""

    def __init__(self, resizing: Mapping[int, float], full: int, cropping: Mapping[int, float] | None = None) -> None:
        """Raise ValueError for sizes outside of 8 .. `full` - 1, and for shares of more than the whole training."""
        resized, cropped = _checked(RESIZING, resizing, full), _checked(CROPPING, cropping or {}, full)
        if both := sorted(resized.keys() & cropped.keys()):
            raise ValueError(f"{both[0]} pixels stand in {RESIZING} and in {CROPPING}; choose one of them")
        self.shares, self.full, self.cropped = dict(sorted((resized | cropped).items())), full, set(cropped)
        if (total := sum(self.shares.values())) >= 1:
            names = " and ".join(name for name, given in ((RESIZING, resized), (CROPPING, cropped)) if given)
            raise ValueError(f"the shares of {names} sum up to {total:g}; leave epochs for the full size")

    def __bool__(self) -> bool:
        return bool(self.shares)

    def size(self, epoch: int, epochs: int) -> int:
        """The size in pixels in an epoch (from 0) of a training of `epochs`."""
        end = 0.0
        for size, share in self.shares.items():
            end += share
            if epoch < round(end * epochs):
                return size
        return self.full

    def reduce(self, images: Tensor, epoch: int, epochs: int) -> Tensor:
        """Images (N, C, H, W), uint8 or float, in the size of an epoch."""
        if not self.shares or (size := self.size(epoch, epochs)) == self.full:
            return images
        if size not in self.cropped:
            return resize(images, size)
        start = (self.full - size) // 2
        return images[..., start : start + size, start : start + size].contiguous()


def _checked(name: str, shares: Mapping[int, float], full: int) -> dict[int, float]:
    """Sizes and shares, if each is possible."""
    if not isinstance(shares, Mapping):
        raise ValueError(f"{name} has sizes and their shares of the epochs, not {shares!r}")
    # the config of a run has its keys as text
    checked = {int(size) if str(size).isdecimal() else size: share for size, share in shares.items()}
    for size, share in checked.items():
        if not MIN_SIZE <= size < full:
            raise ValueError(
                f"{name} has sizes of {MIN_SIZE} to {full - 1} pixels, less than the images of {full}; got {size}"
            )
        if not 0 < share < 1:
            raise ValueError(f"{name} has shares of the epochs in (0, 1); {size} pixels has {share}")
    return checked
