"""Whitening: statistics of the training images, kept inside the model, so that weights carry their preprocessing.

`standardize`  subtract each channel's mean and divide by its standard deviation, over all pixels of all images
`none`         only bring the pixels to [0, 1]
"""

import torch
from torch import Tensor, nn

from cvcc_zoo.registry import unknown

METHODS = ("none", "standardize")


class Whitening(nn.Module):
    """Raw images to network inputs: uint8 0..255 or float 0..1, (N, C, H, W), to float (N, C, H, W).

    The buffers `mean` and `std` (C,) are in units of [0, 1] and NaN until `fit` or `load_state_dict` sets them.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, method: str, in_channels: int) -> None:
        super().__init__()
        if method not in METHODS:
            raise unknown("whitening", method, METHODS)
        self.method = method
        start = (0.0, 1.0) if method == "none" else (torch.nan, torch.nan)
        self.register_buffer("mean", torch.full((in_channels,), start[0]))
        self.register_buffer("std", torch.full((in_channels,), start[1]))
        self.fitted = method == "none"

    def fit(self, images: Tensor, samples: Tensor | None = None, chunk: int = 4096) -> "Whitening":
        """Measure mean and standard deviation of uint8 images (N, C, H, W), or of those that `samples` (M,) picks.

        Pixel values are counted, so the result is the same bit for bit in any order and chunking. A channel
        that is constant is only centred. Raises ValueError for other types or shapes.
        """
        if self.method == "none":
            return self
        channels = len(self.mean)
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != channels:
            raise ValueError(
                f"whitening is fitted on uint8 images of shape (N, {channels}, H, W), "
                f"got {images.dtype} of shape {tuple(images.shape)}"
            )
        if samples is None:
            samples = torch.arange(len(images))
        if len(samples) == 0:
            raise ValueError("whitening needs at least one training image")
        counts = torch.zeros(channels, 256, dtype=torch.int64)  # how often each pixel value occurs in each channel
        for part in torch.split(samples, chunk):
            for channel, pixels in enumerate(images[part].unbind(1)):
                counts[channel] += torch.bincount(pixels.flatten(), minlength=256)
        shares = counts / counts.sum(1, keepdim=True).to(torch.float64)
        values = torch.arange(256, dtype=torch.float64)
        mean = shares @ values
        std = (shares * (values - mean[:, None]).square()).sum(1).sqrt()
        self.mean.copy_(mean / 255)
        self.std.copy_(torch.where(std > 0, std / 255, 1.0))
        self.fitted = True
        return self

    def forward(self, images: Tensor) -> Tensor:
        """Raises ValueError before the statistics are known."""
        if not self.fitted:
            raise ValueError(
                "this model's whitening has no statistics yet. Load trained weights (cvcc_zoo.load(checkpoint), or "
                "--ckpt_path=... on the command line), train it with an ImageDataModule, call "
                "model.whitening.fit(images) with uint8 training images, or build it with whitening='none'"
            )
        unit = 255.0 if images.dtype == torch.uint8 else 1.0
        scale = (unit * self.std).reciprocal()
        shift = self.mean / self.std
        return images.to(self.mean.dtype) * scale[:, None, None] - shift[:, None, None]

    def _load_from_state_dict(self, *args: object, **kwargs: object) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self.fitted = bool(torch.isfinite(self.mean).all())

    def extra_repr(self) -> str:
        """The method, and whether statistics are known."""
        return f"{self.method}, fitted={self.fitted}"
