"""Progressive resizing: a training starts on smaller images, which cost less, and ends on whole ones.

Networks with global pooling take any size; the sizes of Howard's and Smith's fast trainings (DAWNBench 2018,
https://www.fast.ai/posts/2018-04-30-dawnbench-fastai.html) and of EfficientNetV2 (https://arxiv.org/abs/2104.00298,
section 4) grow in the same way.
"""

from collections.abc import Mapping

from torch import Tensor

from cvcc_zoo.data.images import resize

MIN_SIZE = 8


class Resolutions:
    """Sizes in pixels and their shares of the epochs, smallest first; what is left of the epochs has the full size."""

    def __init__(self, shares: Mapping[int, float], full: int) -> None:
        """Raise ValueError for sizes outside of 8 .. `full` - 1, and for shares of more than the whole training."""
        if not isinstance(shares, Mapping):
            raise ValueError(f"progressive_resizing has sizes and their shares of the epochs, not {shares!r}")
        # the config of a run has its keys as text
        shares = {int(size) if str(size).isdecimal() else size: share for size, share in shares.items()}
        for size, share in shares.items():
            if not MIN_SIZE <= size < full:
                raise ValueError(
                    f"progressive_resizing has sizes of {MIN_SIZE} to {full - 1} pixels, less than the images of "
                    f"{full}; got {size}"
                )
            if not 0 < share < 1:
                raise ValueError(f"progressive_resizing has shares of the epochs in (0, 1); {size} pixels has {share}")
        if sum(shares.values()) >= 1:
            raise ValueError(
                f"the shares of progressive_resizing sum up to {sum(shares.values()):g}; leave epochs for the full size"
            )
        self.shares, self.full = dict(sorted(shares.items())), full

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

    def resize(self, images: Tensor, epoch: int, epochs: int) -> Tensor:
        """Images (N, C, H, W), uint8 or float, in the size of an epoch."""
        return resize(images, self.size(epoch, epochs)) if self.shares else images
