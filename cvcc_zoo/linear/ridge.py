"""The choice of lambda in ridge regression: a number, by leave-one-out, or by the validation images."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cvcc_zoo.registry import unknown

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
    if _is_number(spec):
        value = float(spec)  # type: ignore[arg-type]
        if not 0 <= value < math.inf:
            raise ValueError(f"ridge, which is lambda, must be at least 0 (0 for plain least squares), not {value:g}")
        return Ridge(value)
    named = {"name": spec} if isinstance(spec, str) else spec
    options: dict[str, Any] = dict(named) if isinstance(named, Mapping) else {}
    name, grid = options.pop("name", None), options.pop("grid", ())
    if name not in CHOICES:
        raise unknown("way to choose ridge", name, CHOICES, "or set lambda as a number")
    if options:
        raise unknown(f"option of ridge {name}", next(iter(options)), ["grid"])
    whole = isinstance(grid, Sequence) and not isinstance(grid, str) and all(_is_number(value) for value in grid)
    if not whole or not all(0 < value < math.inf for value in grid):
        raise ValueError(f"ridge: grid must be a list of numbers above 0, such as [1, 10, 100], not {grid!r}")
    return Ridge(by=name, grid=tuple(sorted(float(value) for value in grid)))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
