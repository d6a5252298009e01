"""McNemar's test of any two models on the same test images: is one of them better by more than chance?

Only images that exactly one of the two gets right tell them apart. If both were equally good, each of these would be as
likely to be the one's as the other's: McNemar 1947, https://doi.org/10.1007/BF02295996.
"""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import numpy.typing as npt
from scipy.stats import binomtest

from cvcc_zoo.report import seeds
from cvcc_zoo.report.elements import Cell, table, text
from cvcc_zoo.report.reports import Results, RunReport

SMALLEST = 0.001
NOTE = (
    "McNemar's test: p is the probability of a difference at least as large as this one between two models that are "
    "equally good. Behind it are the numbers of images that only the model of the row gets right, and only that of the "
    "column. The test does not know of other seeds, and p is not corrected for the number of comparisons."
)


def mcnemar(first: int, second: int) -> float:
    """Return the exact two-sided p-value from the numbers of images that only the one or only the other gets right."""
    return float(binomtest(first, first + second).pvalue) if first + second else 1.0


def only(first: Results, second: Results) -> tuple[int, int]:
    """Return how many of the images that two models share only the first and only the second gets right."""
    mine, theirs = (_in_order(each) for each in (first, second))
    return int((mine & ~theirs).sum()), int((~mine & theirs).sum())


def _in_order(results: Results) -> npt.NDArray[np.bool_]:
    """Return `right` in the order of the images' digests; equal images are predicted equally."""
    right: npt.NDArray[np.bool_] = results.right[np.argsort(results.digests, kind="stable")]
    return right


def by_images(runs: Sequence[RunReport]) -> list[list[tuple[str, Results]]]:
    """Return the names and results of the runs that have some, in a list for each set of test images."""
    groups: dict[bytes, list[tuple[str, Results]]] = {}
    for run in runs:
        if run.results is not None:
            groups.setdefault(np.sort(run.results.digests).tobytes(), []).append((run.name, run.results))
    return list(groups.values())


def pairs(runs: Sequence[RunReport]) -> list[list[str | float]]:
    """Return a header, and the difference of each pair of recipes and of runs; points are those of percent."""
    found: list[list[str | float]] = [
        ["test", "first", "second", "points", "low", "high", "first alone", "second alone", "p"]
    ]
    for recipes in seeds.recipes(runs).values():
        for (name, mine), (other, theirs) in combinations(recipes, 2):
            found.append(["Welch", name, other, *seeds.welch(mine, theirs), "", "", ""])
    for group in by_images(runs):
        for (name, first), (other, second) in combinations(group, 2):
            alone, points = only(first, second), 100 * float(first.right.mean() - second.right.mean())
            found.append(["McNemar", name, other, points, "", "", *alone, mcnemar(*alone)])
    return found


def matrices(runs: Sequence[RunReport]) -> str:
    """Return a matrix of p-values for each set of test images that several runs share, and say what is left out."""
    groups = by_images(runs)
    shared = [group for group in groups if len(group) > 1]
    parts = [f'<p class="remark">{text(NOTE)}</p>'] if shared else []
    parts += [_matrix(group) for group in shared]
    alone = [name for group in groups if len(group) == 1 for name, _ in group]
    missing = [run.name for run in runs if run.results is None]
    if alone:
        parts.append(f"<p>Not compared, because no other run has the same test images: {text(', '.join(alone))}.</p>")
    if missing:
        parts.append(f"<p>Not compared, because they have no results here: {text(', '.join(missing))}.</p>")
    return "".join(parts)


def _matrix(group: Sequence[tuple[str, Results]]) -> str:
    rows: list[list[Cell]] = []
    for name, first in group:
        cells: list[Cell] = [(name, name)]
        for _, second in group:
            cells.append(("-", None) if second is first else _cell(*only(first, second)))
        rows.append(cells)
    return table(["run", *(name for name, _ in group)], rows, sortable=False)


def _cell(first: int, second: int) -> Cell:
    found = mcnemar(first, second)
    p = f"p < {SMALLEST}" if found < SMALLEST else f"p = {found:.3f}"
    return f"{p}; {first:,} / {second:,}", found
