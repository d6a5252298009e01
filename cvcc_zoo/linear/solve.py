"""Ridge regression from the normal equations: W = (X^T X + lambda I)^-1 X^T Y, with an intercept that is not punished.

The least of ||Y - X W^T - b||^2 + lambda ||W||^2 over all images, as scikit-learn's Ridge has it. X and Y are centred
first, which takes the intercept out. No matrix is inverted: a Cholesky factor solves the equations, and where they are
singular, a complete orthogonal factorisation gives the solution with the smallest weights.

The leave-one-out error needs no second training: a prediction for an image that was left out differs from its label by
(y - prediction) / (1 - h) with the leverage h of the image. Allen 1974, https://doi.org/10.1080/00401706.1974.10489157.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class NormalEquations:
    """Sums over `count` images, in float64: `gram` (D, D) and `moment` (D, C) are centred.

    `mean` (D,) and `labels` (C,) are the means of vectors and labels, `squares` is the sum of the centred labels'
    squares.
    """

    count: int
    gram: Tensor
    moment: Tensor
    mean: Tensor
    labels: Tensor
    squares: float

    def rescaled(self, factor: Tensor, mean: Tensor) -> "NormalEquations":
        """Those of vectors that are multiplied by `factor` (D,) and then have this mean."""
        gram = self.gram * factor[:, None] * factor
        return NormalEquations(self.count, gram, self.moment * factor[:, None], mean, self.labels, self.squares)

    def intercept(self, weights: Tensor) -> Tensor:
        """(C,), for weights (C, D)."""
        return self.labels - weights @ self.mean

    def error(self, weights: Tensor) -> float:
        """The mean over the images of the squared error of weights (C, D) with their intercept."""
        fitted = ((weights @ self.gram) * weights).sum() - 2 * (weights.T * self.moment).sum()
        return (self.squares + float(fitted)) / self.count


@dataclass(frozen=True)
class Solution:
    """`weights` (C, D) and `intercept` (C,), and in how many directions the images determine them."""

    weights: Tensor
    intercept: Tensor
    rank: int


def solve(equations: NormalEquations, ridge: float) -> Solution:
    """The weights for lambda = `ridge`; where they are not determined, the smallest ones that fit as well."""
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
    """Solutions for many lambdas from one decomposition into eigenvectors: their errors on images."""

    def __init__(self, equations: NormalEquations, ridges: Tensor) -> None:
        """For `ridges` (L,) above 0, float64."""
        self.equations, self.ridges = equations, ridges
        values, self.vectors = torch.linalg.eigh(equations.gram)
        self.shrunk = 1 / (values.clamp(min=0)[:, None] + ridges)  # (D, L)
        moment = self.vectors.T @ equations.moment  # (D, C)
        self._coefficients = (self.shrunk[:, :, None] * moment[:, None]).flatten(1)  # (D, L C)

    def errors(self, x: Tensor, labels: Tensor, *, left_out: bool = False) -> tuple[Tensor, Tensor]:
        """Squared errors (N, L) of vectors (N, D) with labels (N, C), and whether their class is right (N, L).

        With `left_out`, of images that were among those of the sums: those of the weights without each of them.
        """
        z = (x.to(torch.float64) - self.equations.mean) @ self.vectors
        predicted = (z @ self._coefficients).view(len(x), len(self.ridges), -1) + self.equations.labels
        wrong = labels.to(torch.float64)[:, None] - predicted  # (N, L, C)
        if left_out:
            leverage = z.square() @ self.shrunk + 1 / self.equations.count
            rest = 1 - leverage
            wrong = wrong / torch.where(rest > 1e-10, rest, torch.nan)[:, :, None]
        right = (labels[:, None] - wrong).argmax(2) == labels.argmax(1)[:, None]
        return wrong.square().sum(2).nan_to_num(nan=torch.inf), right
