"""Which values a search tries next: at random, all of a grid, or where earlier trials were good."""

import itertools
import math
from pathlib import Path
from typing import Protocol

import torch

from cvcc_zoo.data.draws import mix_seed
from cvcc_zoo.registry import unknown
from cvcc_zoo.search.goal import Goal
from cvcc_zoo.search.record import Trial
from cvcc_zoo.search.space import Choice, Range, Space, Values

METHODS = ("random", "grid", "optuna")
DEFAULT_TRIALS = 20


class Method(Protocol):
    """Gives the values of trial 0, 1, ..., and is told what came of each."""

    trials: int
    """How many there are, unless somebody says otherwise."""

    def values(self, number: int) -> Values:
        """What a trial trains with; the same again if it is asked again."""

    def tell(self, trial: Trial) -> None:
        """Take in what came of a trial."""


class RandomSearch:
    """Every value drawn by itself: https://www.jmlr.org/papers/v13/bergstra12a.html.

    A trial is a function of the seed and its number, so a search that goes on draws what it would have drawn.
    """

    trials = DEFAULT_TRIALS

    def __init__(self, space: Space, seed: int) -> None:
        self.space, self.seed = space, seed

    def values(self, number: int) -> Values:
        """A number of a range is uniform in it, or in its logarithm; all values of a list are equally likely."""
        generator = torch.Generator().manual_seed(mix_seed(self.seed, number))
        shares = torch.rand(len(self.space), generator=generator, dtype=torch.float64)
        return {name: found.at(share) for (name, found), share in zip(self.space.items(), shares.tolist(), strict=True)}

    def tell(self, trial: Trial) -> None:
        """Nothing: no trial depends on another one."""


class GridSearch:
    """The product of all values, the last option's changing fastest.

    Raises ValueError for a range without steps, of which there is no grid.
    """

    def __init__(self, space: Space) -> None:
        self.axes: dict[str, Choice] = {}
        for name, found in space.items():
            if isinstance(found, Range):
                raise ValueError(
                    f"a grid needs to know how many values of {name} to try: give the range steps, {{from: ..., to: "
                    "..., steps: 4}, or a list of values"
                )
            self.axes[name] = found
        self.trials = math.prod(len(axis.values) for axis in self.axes.values())

    def values(self, number: int) -> Values:
        """The values at a place of the grid."""
        product = itertools.product(*(axis.values for axis in self.axes.values()))
        return dict(zip(self.axes, next(itertools.islice(product, number, None)), strict=True))

    def tell(self, trial: Trial) -> None:
        """Nothing: no trial depends on another one."""


def make_method(name: str, space: Space, seed: int, goal: Goal, folder: Path) -> Method:
    """The method of that name; nothing is written yet. Raises ValueError if there is none, or it has no such space."""
    if name == "random":
        return RandomSearch(space, seed)
    if name == "grid":
        return GridSearch(space)
    if name != "optuna":
        raise unknown("method", name, METHODS)
    from cvcc_zoo.search.tpe import TPESearch  # an extra, which may not be there

    return TPESearch(space, seed, goal.direction, folder)


def number_of_trials(method: Method, asked: int | None) -> int:
    """As many as were asked for, else the method's own number. Raises ValueError for less than one, or than it has."""
    most = method.trials if isinstance(method, GridSearch) else None
    if asked is not None and (asked < 1 or (most and asked > most)):
        raise ValueError(f"trials is a number from 1{f' to {most}, that of the grid' if most else ''}, got {asked}")
    return method.trials if asked is None else asked
