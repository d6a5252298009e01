"""Whether images hold what a model of this package takes: uint8 in 0..255, or floats in 0..1."""

import warnings

import torch
from torch import Tensor

SLACK = 1e-3  # of rounding
LARGEST = 16.0
"""Normalised images stay below: that would take a standard deviation under 1/16, where CIFAR-10 has 1/4, MNIST 1/3."""


def check_dtype(images: Tensor) -> None:
    """Raise ValueError for what is neither uint8 nor floating."""
    if images.dtype != torch.uint8 and not images.is_floating_point():
        raise ValueError(
            f"images are uint8 in 0..255 or floats in 0..1, and these are {images.dtype}; "
            "give images.to(torch.uint8) if their values are 0..255"
        )


def _is_traced() -> bool:
    return bool(torch.jit.is_tracing())  # type: ignore[attr-defined, no-untyped-call]


class PixelCheck:
    """Looks at the values of float images: of every batch on a CPU, elsewhere, where that waits, of the next one.

    What has no values to look at, because it is traced, compiled or transformed, is let through.
    """

    def __init__(self) -> None:
        self.warned = False
        self.look = True

    def __call__(self, images: Tensor) -> None:
        """Raise ValueError for floats far outside of 0..1; below 0 or above 1 warn once."""
        check_dtype(images)
        if not images.is_floating_point() or torch.compiler.is_compiling() or _is_traced():
            return
        if not images.numel() or (images.device.type != "cpu" and (self.warned or not self.look)):
            return
        try:
            low, high = (float(value) for value in images.detach().aminmax())
        except RuntimeError:  # inside torch.func.vmap, on the meta device, ...
            return
        self.look = False
        found = f"float images are in 0..1, and these have values from {low:.4g} to {high:.4g}"
        if max(-low, high) > LARGEST:
            raise ValueError(f"{found}; divide them by 255 if they are 0..255, or give uint8")
        if not self.warned and (low < -SLACK or high > 1 + SLACK):
            self.warned = True
            warnings.warn(
                f"{found}: were they normalised already? This model does that itself (model.whitening), and twice "
                "gives wrong classes; leave torchvision's Normalize out",
                stacklevel=2,
            )
