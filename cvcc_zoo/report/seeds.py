"""Runs that differ in their seeds alone: their mean accuracy, and how far two recipes are apart.

The interval of a difference is that of Welch's t-test: Welch 1947, https://doi.org/10.2307/2332510.
"""

import math
from collections.abc import Sequence
from statistics import mean, stdev

from scipy.stats import t

from cvcc_zoo.report.elements import Cell, number, table, text
from cvcc_zoo.report.reports import RunReport
from cvcc_zoo.runs.written import left_out

SEED = "seed_everything"
NOTE = (
    "The runs of a row differ in their seeds alone; ± is the standard deviation. The difference of two recipes on the "
    "same test images, row minus column, is in percentage points, with the 95 % interval of Welch's t-test, which "
    "is wide for two or three seeds. Runs that were resumed with other options, or tested on some of the test images "
    "alone, are left out."
)

Recipe = tuple[str, list[float]]
"""A name, and the test accuracy of each seed."""


def recipes(runs: Sequence[RunReport]) -> dict[str, list[Recipe]]:
    """Return the recipes with more than one tested seed, by the identity of their test images.

    A run that was resumed with other options, or tested on some of the test images alone, has no recipe.
    """
    same: dict[tuple[object, ...], dict[str, RunReport]] = {}
    for run in runs:
        summary = run.summary
        if summary["test_accuracy"] is not None and not summary["changed"] and not left_out(summary):
            others = tuple(sorted(item for item in run.options.items() if item[0] != SEED))
            test = summary["data"].get("test", {}).get("sha256", "")
            same.setdefault((test, *others), {}).setdefault(run.options.get(SEED, ""), run)
    found: dict[str, list[Recipe]] = {}
    for (test, *_), seeds in same.items():
        if len(seeds) > 1:
            first, *more = seeds.values()
            name = f"{first.name} and {len(more)} more"
            found.setdefault(str(test), []).append((name, [run.summary["test_accuracy"] for run in seeds.values()]))
    return found


def tables(runs: Sequence[RunReport]) -> str:
    """Return a table of recipes for each set of test images; empty if no two runs differ in their seeds alone."""
    found = recipes(runs).values()
    return "".join([f'<p class="remark">{text(NOTE)}</p>', *map(_table, found)]) if found else ""


def _table(group: Sequence[Recipe]) -> str:
    rows: list[list[Cell]] = []
    for recipe in group:
        name, values = recipe
        row = [
            (name, name),
            number(len(values), "{}"),
            number(100 * mean(values), f"{{:.2f}} ± {100 * stdev(values):.2f} %"),
        ]
        rows.append([*row, *(("-", None) if other is recipe else _difference(values, other[1]) for other in group)])
    against = [name for name, _ in group] if len(group) > 1 else []
    header = ["runs", "seeds", "test accuracy", *(f"minus {name}" for name in against)]
    return table(header, [row[: len(header)] for row in rows], sortable=False)


def _difference(mine: Sequence[float], theirs: Sequence[float]) -> Cell:
    difference, low, high = welch(mine, theirs)
    return f"{difference:+.2f}" + (f" ({low:+.2f} to {high:+.2f})" if low < high else ""), difference


def welch(mine: Sequence[float], theirs: Sequence[float]) -> tuple[float, float, float]:
    """Return the difference of two recipes in percentage points, and its 95 % interval; no width without spread."""
    difference = 100 * (mean(mine) - mean(theirs))
    if stdev(mine) == stdev(theirs) == 0:
        return difference, difference, difference
    parts = [(100 * stdev(values)) ** 2 / len(values) for values in (mine, theirs)]  # variance of each mean
    freedom = sum(parts) ** 2 / sum(p**2 / (len(values) - 1) for p, values in zip(parts, (mine, theirs), strict=True))
    half = float(t.ppf(0.975, freedom)) * math.sqrt(sum(parts))
    return difference, difference - half, difference + half
