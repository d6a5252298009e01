"""Check that images are what the models of this package expect: uint8 in 0..255, or floats in 0..1."""

import math
import warnings
from typing import Any

import torch
from torch import Tensor

from cvcc_zoo.data.loader import Batch

SLACK = 1e-3  # for rounding
LARGEST = 16.0
"""Above any normalised image: it would need a standard deviation below 1/16; CIFAR-10 has 1/4, MNIST 1/3."""


def check_images(images: Any, channels: int) -> None:
    """Raise ValueError, which says how to convert the images, unless they are a batch (N, channels, H, W)."""
    if isinstance(images, torch.fx.Proxy):
        raise ValueError(
            "torch.fx cannot trace the checks of raw images; trace model.network, whose input is "
            "model.whitening(images), or take the outputs of the parts: model.features(images)"
        )
    if isinstance(images, Batch | list | tuple) and len(images) == 2 and getattr(images[0], "ndim", 0) == 4:
        raise ValueError(
            "this model takes images, and a batch is a pair: images, labels = batch; give torch's update_bn the images "
            "alone: (images for images, _ in loader)"
        )
    if not isinstance(images, Tensor):
        raise ValueError(
            f"this model takes a tensor of images (N, {channels}, H, W), not {type(images).__name__}; "
            "torchvision.transforms.v2.functional.pil_to_tensor(image)[None] or torch.from_numpy(array) makes one"
        )
    if images.ndim == 4 and images.shape[1] == channels:
        return
    if images.shape[:-2] == (channels,):
        advice = "a single image is a batch of one: images[None]"
    elif images.ndim in (3, 4) and images.shape[-1] == channels:
        advice = "channels come before height and width: " + (
            "images.permute(0, 3, 1, 2)" if images.ndim == 4 else "images.permute(2, 0, 1)[None]"
        )
    else:
        advice = (
            f"convert the images to {channels} channels (--data.in_channels={channels}) "
            "or build the model with the in_channels of the images"
        )
    raise ValueError(f"this model takes images of shape (N, {channels}, H, W), got {tuple(images.shape)}; {advice}")


def check_dtype(images: Tensor) -> None:
    """Raise ValueError unless the images are uint8 or floating point."""
    if images.dtype != torch.uint8 and not images.is_floating_point():
        raise ValueError(
            f"images are uint8 in 0..255 or floats in 0..1, and these are {images.dtype}; "
            "pass images.to(torch.uint8) if their values are 0..255"
        )


def is_traced() -> bool:
    """Return whether torch compiles or traces, so that tensors may have no values."""
    return torch.compiler.is_compiling() or bool(torch.jit.is_tracing())  # type: ignore[attr-defined, no-untyped-call]


class PixelCheck:
    """Check the values of float images: of every batch on a CPU, elsewhere only of the next batch after `look` is set.

    Reading values from an accelerator waits for it. Tensors without values, because they are traced, compiled or
    transformed, pass the check.
    """

    def __init__(self) -> None:
        self.warned = False
        self.look = True

    def __call__(self, images: Tensor) -> None:
        """Raise ValueError for NaN and for floats far outside 0..1; warn once if some are below 0 or above 1."""
        check_dtype(images)
        if not images.is_floating_point() or is_traced():
            return
        if not images.numel() or (images.device.type != "cpu" and (self.warned or not self.look)):
            return
        try:
            low, high = (float(value) for value in images.detach().aminmax())
        except RuntimeError:  # inside torch.func.vmap, on the meta device, ...
            return
        self.look = False
        found = f"float images are in 0..1, and these have values from {low:.4g} to {high:.4g}"
        if math.isnan(low):
            raise ValueError("float images are in 0..1, and these have NaN; replace it: images.nan_to_num()")
        if max(-low, high) > LARGEST:
            raise ValueError(f"{found}; divide them by 255 if they are 0..255, or pass uint8")
        if not self.warned and (low < -SLACK or high > 1 + SLACK):
            self.warned = True
            warnings.warn(
                f"{found}: were they normalised already? This model normalises images itself (model.whitening), and "
                "doing it twice gives wrong classes; remove torchvision's Normalize",
                stacklevel=2,
            )
