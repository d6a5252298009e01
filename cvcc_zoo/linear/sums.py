"""X^T X and X^T Y summed batch by batch, with the same bits for any order of batches and any number of processes.

Sums of floating-point numbers depend on their order unless all are multiples of one unit and not too large. Pixels are
whole numbers, whose products are exact. Other vectors are first shifted and scaled by statistics of the first batch, so
that their values are about 1; then the products of each batch, in float64, are rounded to a fixed unit.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from cvcc_zoo.data.moments import CHUNK, Moments, exact_pieces, sum_over_processes
from cvcc_zoo.data.symmetric import add_gram, minus_128, mirror, product
from cvcc_zoo.linear.ridge import NormalEquations

LARGEST_PIXEL = 2**7  # of pixels minus 128
ROOM = 2**10  # sums stay exact up to this many times the size that the first batch suggests


@dataclass(frozen=True)
class Frame:
    """The transformation of vectors (N, D) before they are summed: `(x - shift) / scale`; scales are powers of two.

    With `pixels` the values are whole numbers. All processes use the frame of the first batch.
    """

    shift: Tensor
    scale: Tensor
    pixels: bool

    @classmethod
    def of(cls, x: Tensor) -> "Frame":
        """Return the frame for uint8 pixels, or for float vectors with the distribution of `x`."""
        if x.dtype == torch.uint8:
            ones = torch.ones(x.shape[1], dtype=torch.float64)
            return cls(128 * ones, ones, pixels=True)
        x = x.to("cpu", torch.float64)
        if not len(x):  # in a process without images
            x = torch.zeros(1, x.shape[1], dtype=torch.float64)
        deviation = x.std(0, correction=0)
        deviation = torch.where(deviation > 0, deviation, 1.0)
        return cls(x.mean(0), torch.exp2(torch.log2(deviation).round()), pixels=False)


class Sums:
    """Sums over vectors and labels, on a device, in float64."""

    def __init__(self, frame: Frame, classes: int, images: int, device: torch.device | str = "cpu") -> None:
        """Start sums over about `images` images in all processes."""
        self.frame, self.classes = frame, classes
        self._shift, self._scale = frame.shift.to(device), frame.scale.to(device)
        size = len(frame.shift)
        self.count, self.labels, self.squares, self.x, self.xy, self.xx = (
            torch.zeros(shape, dtype=torch.float64, device=device)
            for shape in ((), (classes,), (), (size,), (size, classes), (size, size))
        )
        unit = 2.0 ** (math.ceil(math.log2(max(images, 2) * ROOM)) - 53)
        self._rounding = 1.5 * 2**52 * unit  # a number of this size has no digits below the unit
        self._waiting: list[tuple[Tensor, Tensor]] = []

    def add(self, x: Tensor, labels: Tensor) -> None:
        """Add vectors (N, D), uint8 or float like those of the frame, and labels (N,), or (N, C) with float vectors.

        Raises ValueError for vectors or labels of another type.
        """
        if (x.dtype == torch.uint8) != self.frame.pixels:
            raise ValueError(f"these sums are of {'pixels' if self.frame.pixels else 'vectors'}, got {x.dtype}")
        if self.frame.pixels and labels.is_floating_point():
            raise ValueError("sums of pixels take one label for each image; use float vectors with soft labels")
        if not len(x):
            return
        if not self.frame.pixels:
            self._add(x, labels)
            return
        self._waiting.append((x, labels))
        if sum(len(images) for images, _ in self._waiting) >= CHUNK:
            self._add_waiting()

    def _add_waiting(self) -> None:
        if self._waiting:
            x, labels = (torch.cat(parts) for parts in zip(*self._waiting, strict=True))
            self._waiting.clear()
            self._add(x, labels)

    def _add(self, x: Tensor, labels: Tensor) -> None:
        y = (labels if labels.is_floating_point() else F.one_hot(labels, self.classes)).to(torch.float64)
        if self.frame.pixels:  # whole numbers, whose products and sums are exact
            whole, start = minus_128(x, x.shape[1]), 0
            for (whole_piece,) in exact_pieces(whole[None], LARGEST_PIXEL):
                add_gram(whole_piece.T, self.xx)
                piece = whole_piece.float()
                self.x += piece.sum(0)
                self.xy += product(piece.T, y[start : start + len(piece)].float())
                start += len(piece)
        else:
            x = (x.to(torch.float64) - self._shift) / self._scale
            products = torch.zeros_like(self.xx)
            add_gram(x.T, products)
            for sums, values in ((self.xx, products), (self.x, x.sum(0)), (self.xy, x.T @ y)):
                sums += self._round(values)
        self.count += len(x)
        self.labels += self._round(y.sum(0))
        self.squares += self._round(y.square().sum())

    def _round(self, values: Tensor) -> Tensor:
        """Round to whole units, in place."""
        return values.add_(self._rounding).sub_(self._rounding)

    def whole(self, *, across_processes: bool = False) -> NormalEquations:
        """Return the normal equations of all vectors, with `across_processes` those of torch's default group.

        Call it only once: it changes the sums.
        """
        self._add_waiting()
        every = (self.count, self.labels, self.squares, self.x, self.xy, self.xx)
        if across_processes:
            for sums in every:
                sum_over_processes(sums)
        count, labels, squares, x, xy, xx = (sums.cpu() for sums in every)
        mirror(xx)
        n, scale = int(count), self.frame.scale
        # The sum of (x - mean)(x - mean)^T is n times the covariance; `scale` takes it out of the frame's units.
        gram = Moments(n, x[None], xx[None], 1.0, 0.0).covariance()[0].mul_(n).mul_(scale[:, None]).mul_(scale)
        moment = (xy - x[:, None] * (labels / n)) * scale[:, None]
        mean = x / n * scale + self.frame.shift
        return NormalEquations(n, gram, moment, mean, labels / n, float(squares - (labels * labels).sum() / n))
