"""Means over images with the same bits in any order of the images and on any number of processes."""

import torch
from torch import Tensor
from torchmetrics import Metric

from cvcc_zoo.internals.torch import KeepsDtype

UNIT = 2.0**-24  # numbers are summed up in whole units
EXACT = torch.float32 if torch.backends.mps.is_available() else torch.float64  # Apple's GPUs have no float64


def in_units(values: Tensor) -> Tensor:
    """Return numbers as whole multiples of UNIT: a sum of them in float64 is exact up to 2^53 units."""
    return (values.to(EXACT) / UNIT).round()


class Counting(KeepsDtype, Metric):
    """A metric that training can go on with after a validation has reset it."""

    def reset(self) -> None:
        """Start anew; in tensors of inference mode, in which Lightning validates, training could not count."""
        with torch.inference_mode(False):
            super().reset()


class ImageMean(Counting):
    """The mean of a number over all images: the same bits in any order and on any number of processes.

    Each number is rounded to a multiple of 2^-24, of which float64 holds the sum exactly up to 2^29; the sum stays
    float64 when the model is cast to another dtype. NaN stays NaN without a check, which would wait for a GPU. A
    process may have no image, which torchmetrics' accuracy does not allow.
    """

    total: Tensor  # in units
    images: Tensor

    def __init__(self) -> None:
        super().__init__(compute_with_cache=False)  # a CUDA graph changes the sums without a call of `update`
        self.add_state("total", torch.zeros((), dtype=EXACT), dist_reduce_fx="sum")
        self.add_state("images", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, values: Tensor) -> None:
        """Add the numbers (N,) of a batch."""
        self.total += in_units(values).sum()
        self.images += len(values)

    def compute(self) -> Tensor:
        """Return the mean."""
        return self.total * UNIT / self.images


class WeightedMean(ImageMean):
    """The mean of a number over all images, with weights: sum of the numbers / sum of the weights."""

    weight: Tensor  # in units

    def __init__(self) -> None:
        super().__init__()
        self.add_state("weight", torch.zeros((), dtype=EXACT), dist_reduce_fx="sum")

    def update(self, values: Tensor, weights: Tensor | None = None) -> None:
        """Add the numbers (N,) of a batch, which are multiplied by their weights already; None are weights of 1."""
        super().update(values)
        weights = torch.ones_like(values) if weights is None else weights
        self.weight += in_units(weights).sum()

    def compute(self) -> Tensor:
        """Return the mean."""
        return self.total / self.weight
