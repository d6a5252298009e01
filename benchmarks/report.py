"""Results of the benchmarks: rows with their targets, saved as JSON and drawn as figures."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

RATES = ("images/s", "%")
"""Units for which more is better; for all others, less is."""


@dataclass(frozen=True)
class Row:
    """One number of this package beside one of an alternative, or beside a limit."""

    what: str
    unit: str
    ours: float
    against: str = ""
    theirs: float | None = None
    least: float | None = None
    """The target: how many times better than the alternative, at least."""
    limit: float | None = None
    """The target in the row's unit: at most, of a rate at least."""

    @property
    def ratio(self) -> float | None:
        """The factor by which this package is better."""
        if self.theirs is None:
            return None
        return self.ours / self.theirs if self.unit in RATES else self.theirs / self.ours

    @property
    def reached(self) -> bool | None:
        """True if the target is reached, None if there is no target."""
        if self.least is not None:
            assert self.ratio is not None
            return self.ratio >= self.least
        if self.limit is not None:
            return self.ours >= self.limit if self.unit in RATES else self.ours <= self.limit
        return None

    def cells(self) -> list[str]:
        """Return the cells of the page's table."""
        target = f"{self.least:g}x" if self.least is not None else ""
        if self.limit is not None:
            target = f"{'at least' if self.unit in RATES else 'at most'} {self.limit:g}"
        other = f"{self.against}: {number(self.theirs)}" if self.theirs is not None else self.against
        mark = {True: "reached", False: "**missed**", None: ""}[self.reached]
        ratio = f"{self.ratio:.2f}x" if self.ratio is not None else ""
        return [self.what, self.unit, number(self.ours), other, ratio, target, mark]


@dataclass(frozen=True)
class Found:
    """The results of a topic: rows with targets, tables and curves."""

    rows: list[Row]
    tables: list[list[list[str]]] = field(default_factory=list)
    """Each is a header and rows."""
    curves: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    """By title, like "images": `x`, `measured` and, where there is one, `expected`."""
    missing: list[str] = field(default_factory=list)
    """What could not be measured, for the page's list."""


HEADER = ["", "unit", "cvcc_zoo", "the alternative", "ratio", "target", ""]


def number(value: float) -> str:
    """Format a number with four significant digits."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def save(path: Path, key: str, about: Mapping[str, Any], found: Found) -> dict[str, list[dict[str, Any]]]:
    """Save the numbers of a topic, or of one of its lines, in the file beside the others; return all of them.

    They replace those of the same machine, and stand beside those of other machines.
    """
    content: dict[str, list[dict[str, Any]]] = json.loads(path.read_text()) if path.is_file() else {}
    others = [each for each in content.get(key, []) if each["machine"] != about["machine"]]
    content[key] = [*others, {**about, **asdict(found)}]
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    return content


def draw_ratios(measured: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Plot how many times better each row is than its alternative, on a logarithmic axis, with the targets.

    There is a panel for each machine.
    """
    from matplotlib.figure import Figure

    panels: dict[str, list[Row]] = {}
    for found in measured:
        rows = [row for row in (Row(**each) for each in found["rows"]) if row.ratio is not None]
        panels.setdefault(found["machine"], []).extend(rows)
    panels = {machine: rows for machine, rows in panels.items() if rows}
    counts = [len(rows) for rows in panels.values()] or [1]
    figure = Figure(figsize=(8, 0.7 + sum(0.5 + 0.34 * count for count in counts)), layout="constrained")
    grid = figure.subplots(len(counts), 1, sharex=True, squeeze=False, height_ratios=counts)
    for axes, (machine, rows) in zip(grid[:, 0], panels.items(), strict=False):
        for place, row in enumerate(reversed(rows)):
            colour = {True: "#2a7f62", False: "#c0504d", None: "#7f8c9b"}[row.reached]
            assert row.ratio is not None
            axes.barh(place, row.ratio - 1, left=1, color=colour, height=0.62)
            end = max(row.ratio, 1, 0 if row.least is None or row.reached else row.least)  # do not cover the target
            axes.text(end * 1.03, place, f"{row.ratio:.2f}x", va="center", fontsize=8)
            if row.least is not None:
                axes.plot([row.least] * 2, [place - 0.42, place + 0.42], color="black", linewidth=1.5)
        names = [f"{row.what} (against {row.against})" for row in reversed(rows)]
        axes.set_yticks(range(len(rows)), names, fontsize=8)
        axes.set_title(machine, fontsize=9, loc="left")
    for axes in grid[:, 0]:
        axes.set_xscale("log")
        axes.minorticks_off()
        axes.axvline(1, color="black", linewidth=0.8)
        axes.spines[["top", "right"]].set_visible(False)
    ticks = [1, 1.5, 2, 3, 5, 10]
    axes.set_xticks(ticks, [f"{tick:g}x" for tick in ticks])
    axes.set_xlim(right=1.35 * max([1.0, *(row.ratio or 1 for rows in panels.values() for row in rows)]))
    figure.suptitle("times better than the alternative, on CPUs; black: the target", fontsize=10)
    figure.savefig(path, dpi=120)


def draw_curves(curves: Mapping[str, Mapping[str, Sequence[float]]], path: Path) -> None:
    """Plot microseconds per image over each growing size, one panel each."""
    from matplotlib.figure import Figure

    from cvcc_zoo.plots.figure import label_logarithmic

    figure = Figure(figsize=(3.6 * len(curves), 3.2), layout="constrained")
    panels = figure.subplots(1, len(curves), squeeze=False)[0]
    for axes, (title, curve) in zip(panels, curves.items(), strict=True):
        axes.plot(curve["x"], curve["measured"], "o-", color="#2a7f62", label="measured")
        if "expected" in curve:
            axes.plot(curve["x"], curve["expected"], "--", color="#7f8c9b", label="as its operations say")
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_ylim(min(curve["measured"]) / 2, max(curve["measured"]) * 2)
        axes.set_xticks(curve["x"], [f"{x:,.0f}" for x in curve["x"]], fontsize=7)
        axes.minorticks_off()
        label_logarithmic(axes.yaxis, axes.get_ylim())
        axes.set_xlabel(title)
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("microseconds an image")
    panels[-1].legend(fontsize=8, loc="upper left")
    figure.savefig(path, dpi=120)
