"""Ridge regression: W^T = (X^T X + lambda I)^-1 X^T Y, with lambda given, or chosen on images that are left out.

It minimises ||Y - X W^T - b||^2 + lambda ||W||^2 over all images, as scikit-learn's Ridge does; the intercept is not
penalised. X and Y are centred first, which eliminates the intercept. No matrix is inverted: a Cholesky factor solves
the normal equations, and if they are singular, a complete orthogonal factorisation finds the smallest weights.

The leave-one-out error needs no refitting: the error for an image that is left out is (y - prediction) / (1 - h) with
the leverage h of the image. Allen 1974, https://doi.org/10.1080/00401706.1974.10489157.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cvcc_zoo.kinds import as_plain, is_number
from cvcc_zoo.registry import check_known

CHOICES = ("leave_one_out", "validation")
SPREAD = (-7, 2)  # powers of ten around the mean eigenvalue of X^T X
PER_DECADE = 4


@dataclass(frozen=True)
class Ridge:
    """Lambda itself (`value`), or chosen `by` one of CHOICES from a `grid`, by default one around the eigenvalues."""

    value: float | None = None
    by: str | None = None
    grid: tuple[float, ...] = ()

    def candidates(self, gram: Tensor) -> Tensor:
        """Return the lambdas (L,) to choose from, float64, in ascending order."""
        if self.grid:
            return torch.tensor(self.grid, dtype=torch.float64)
        low, high = (PER_DECADE * power for power in SPREAD)
        powers = torch.arange(low, high + 1, dtype=torch.float64) / PER_DECADE
        return gram.diagonal().mean() * 10**powers


def make_ridge(spec: float | str | Mapping[str, Any]) -> Ridge:
    """Make a Ridge from a number, `leave_one_out`, `validation`, or `{name: ..., grid: [...]}`.

    Raises ValueError for anything else.
    """
    spec = as_plain(spec)
    if is_number(spec):
        value = float(spec)  # type: ignore[arg-type]
        if not 0 <= value < math.inf:
            raise ValueError(f"ridge, which is lambda, must be at least 0 (0 for plain least squares), not {value:g}")
        return Ridge(value)
    named = {"name": spec} if isinstance(spec, str) else spec
    options: dict[str, Any] = dict(named) if isinstance(named, Mapping) else {}
    name, grid = options.pop("name", None), options.pop("grid", ())
    check_known("way to choose ridge", CHOICES, name or spec, hint="or set lambda as a number")
    check_known(f"option of ridge {name}", ["grid"], *options)
    whole = isinstance(grid, Sequence) and not isinstance(grid, str) and all(map(is_number, grid))
    if not whole or not all(0 < value < math.inf for value in grid):
        raise ValueError(f"ridge: grid must be a list of numbers above 0, such as [1, 10, 100], not {grid!r}")
    return Ridge(by=name, grid=tuple(sorted(float(value) for value in grid)))


@dataclass(frozen=True)
class NormalEquations:
    """Sums over `count` images, in float64: X^T X (`gram`, (D, D)) and X^T Y (`moment`, (D, C)), centred.

    `mean` (D,) and `labels` (C,) are the means of vectors and labels, and `squares` is the sum of squares of the
    centred labels.
    """

    count: int
    gram: Tensor
    moment: Tensor
    mean: Tensor
    labels: Tensor
    squares: float

    def rescaled(self, factor: Tensor, mean: Tensor) -> "NormalEquations":
        """Return the equations for vectors that are multiplied by `factor` (D,) and shifted to this mean (D,)."""
        gram = self.gram * factor[:, None] * factor
        return NormalEquations(self.count, gram, self.moment * factor[:, None], mean, self.labels, self.squares)

    def intercept(self, weights: Tensor) -> Tensor:
        """Return the intercept (C,) for weights (C, D)."""
        return self.labels - weights @ self.mean

    def error(self, weights: Tensor) -> float:
        """Return the squared error of weights (C, D) with their intercept, the mean over the images."""
        fitted = ((weights @ self.gram) * weights).sum() - 2 * (weights.T * self.moment).sum()
        return (self.squares + float(fitted)) / self.count


@dataclass(frozen=True)
class Solution:
    """Weights (C, D), intercept (C,), and the number of directions in which the images determine them."""

    weights: Tensor
    intercept: Tensor
    rank: int


def solve(equations: NormalEquations, ridge: float) -> Solution:
    """Return the weights for lambda = `ridge`; if several fit equally well, the smallest."""
    system = equations.gram.clone()
    system.diagonal().add_(ridge)
    size = len(system)
    factor, failed = torch.linalg.cholesky_ex(system)
    noise = size * torch.finfo(torch.float64).eps
    pivots = factor.diagonal().square()
    if not failed and float((pivots / system.diagonal()).min()) > noise:
        weights, rank = torch.cholesky_solve(equations.moment, factor).T, size
    else:
        found = torch.linalg.lstsq(system, equations.moment, rcond=noise, driver="gelsy")
        weights, rank = found.solution.T, int(found.rank)
    return Solution(weights, equations.intercept(weights), rank)


class RidgePath:
    """Errors of the solutions for many lambdas, from one eigendecomposition."""

    def __init__(self, equations: NormalEquations, ridges: Tensor) -> None:
        """Decompose the equations for lambdas `ridges` (L,), float64, all above 0."""
        self.equations, self.ridges = equations, ridges
        values, self.vectors = torch.linalg.eigh(equations.gram)
        self.shrunk = 1 / (values.clamp(min=0)[:, None] + ridges)  # (D, L)
        moment = self.vectors.T @ equations.moment  # (D, C)
        self._coefficients = (self.shrunk[:, :, None] * moment[:, None]).flatten(1)  # (D, L C)

    def errors(self, x: Tensor, labels: Tensor, *, left_out: bool = False) -> tuple[Tensor, Tensor]:
        """Return squared errors (N, L) of vectors (N, D) with labels (N, C), and whether the class is right, (N, L).

        With `left_out` each image, which must be one of the sums, is predicted by weights fitted to all others.
        """
        z = (x.to(torch.float64) - self.equations.mean) @ self.vectors
        predicted = (z @ self._coefficients).view(len(x), len(self.ridges), -1) + self.equations.labels
        residual = labels.to(torch.float64)[:, None] - predicted  # (N, L, C)
        if left_out:
            leverage = z.square() @ self.shrunk + 1 / self.equations.count
            rest = 1 - leverage
            residual = residual / torch.where(rest > 1e-10, rest, torch.nan)[:, :, None]
            predicted = labels[:, None] - residual
        right = predicted.argmax(2) == labels.argmax(1)[:, None]
        return residual.square().sum(2).nan_to_num(nan=torch.inf), right
