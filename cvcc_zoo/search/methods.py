"""Methods of a search, which choose the next values: random, grid, or near good trials (Optuna)."""

import itertools
import math
from pathlib import Path
from typing import Protocol

import torch

from cvcc_zoo.data.draws import mix_seed
from cvcc_zoo.registry import check_known
from cvcc_zoo.search.goal import Goal
from cvcc_zoo.search.record import DEFAULT_TRIALS, Trial
from cvcc_zoo.search.space import Choice, Range, Space, Values

METHODS = ("random", "grid", "optuna")


class Method(Protocol):
    """Choose the values of trial 0, 1, ..., given the results of earlier ones."""

    trials: int
    """The default number of trials."""

    def values(self, number: int) -> Values:
        """Return the values of a trial; the same ones at every call."""

    def tell(self, trial: Trial) -> None:
        """Receive the result of a trial."""


class RandomSearch:
    """Draw every value independently: https://www.jmlr.org/papers/v13/bergstra12a.html.

    A trial depends only on the seed and its number, so a resumed search draws the same values. Optuna's RandomSampler
    draws from a state that a resumed search does not have.
    """

    trials = DEFAULT_TRIALS

    def __init__(self, space: Space, seed: int) -> None:
        self.space, self.seed = space, seed

    def values(self, number: int) -> Values:
        """Draw a number of a range uniformly, or uniformly in its logarithm, and each value of a list equally often."""
        generator = torch.Generator().manual_seed(mix_seed(self.seed, number))
        shares = torch.rand(len(self.space), generator=generator, dtype=torch.float64)
        return {name: found.at(share) for (name, found), share in zip(self.space.items(), shares.tolist(), strict=True)}

    def tell(self, trial: Trial) -> None:
        """Do nothing: no trial depends on another one."""


class GridSearch:
    """Try all combinations of values; the last option changes fastest.

    Raises ValueError for a range without steps, which has no grid.
    """

    def __init__(self, space: Space) -> None:
        self.axes: dict[str, Choice] = {}
        for name, found in space.items():
            if isinstance(found, Range):
                raise ValueError(
                    f"a grid needs a number of values for {name}: give the range steps, {{from: ..., to: ..., steps: "
                    "4}, or give a list of values"
                )
            self.axes[name] = found
        self.trials = math.prod(len(axis.values) for axis in self.axes.values())

    def values(self, number: int) -> Values:
        """Return the values at an index of the grid."""
        product = itertools.product(*(axis.values for axis in self.axes.values()))
        return dict(zip(self.axes, next(itertools.islice(product, number, None)), strict=True))

    def tell(self, trial: Trial) -> None:
        """Do nothing: no trial depends on another one."""


def make_method(name: str, space: Space, seed: int, goal: Goal, folder: Path) -> Method:
    """Return a method by name, without writing files. Raises ValueError for an unknown one, or an unsuitable space."""
    check_known("method", METHODS, name)
    if name == "random":
        return RandomSearch(space, seed)
    if name == "grid":
        return GridSearch(space)
    from cvcc_zoo.search.tpe import TPESearch  # imported here because only this method needs Optuna

    return TPESearch(space, seed, goal.direction, folder)


def number_of_trials(method: Method, asked: int | None) -> int:
    """Return the number `asked` for, or the method's default. Raises ValueError below one, or beyond the grid."""
    most = method.trials if isinstance(method, GridSearch) else None
    if asked is not None and (asked < 1 or (most and asked > most)):
        raise ValueError(
            f"trials must be at least 1{f', and at most {most} for this grid' if most else ''}, got {asked}"
        )
    return method.trials if asked is None else asked
