"""Plotly figures of the results per class: the confusion matrix and the accuracy of each class."""

import html
import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from cvcc_zoo.plots.confusion import EXPONENT, FEW, LONGEST, Groups, groups_of, in_groups
from cvcc_zoo.plots.figure import short
from cvcc_zoo.report.figures import COLOURS, as_json
from cvcc_zoo.report.reports import Results

SIDE = 900  # pixels of a confusion matrix with many classes
DARKEST = 0.65  # opacity of a colour on which a number must be legible, on a light page and on a dark one
RIGHT, MISTAKES = ("31,111,139", "217,130,43")  # blue and orange, as red, green, blue in 0 .. 255


def confusion(results: Results) -> str:
    """Return the confusion matrix as JSON, with counts of true and predicted classes.

    Blue is the share of each class that is right, orange the mistakes relative to the largest. More than 20 classes
    get a larger figure, in which the classes of a known data set are sorted by their superclasses.
    """
    many = len(results.classes) > FEW
    groups = groups_of(results.classes) if many else {}
    counts, classes = in_groups(results.confusion, results.classes, groups)
    right = np.where(np.eye(len(counts), dtype=bool), counts / np.maximum(1, counts.sum(1, keepdims=True)), np.nan)
    mistakes = counts.astype(float) ** (EXPONENT if many else 1)
    np.fill_diagonal(mistakes, np.nan)
    largest = max(1.0, np.nanmax(mistakes, initial=0.0))
    traces = [
        _heatmap(counts, classes, mistakes, largest, MISTAKES, "%{y} taken for %{x}: %{customdata}"),
        _heatmap(counts, classes, right, 1.0, RIGHT, "%{y}: %{customdata} are right"),
    ]
    note = "blue: right; orange: mistakes" + (f", to the power {EXPONENT}" if many else "")
    axis, layout = _class_axis(classes) | {"showgrid": False}, dict[str, Any]()
    if many:
        size = max(7, min(12, (SIDE / len(classes)) // 1.3))
        axis |= {"tickfont": {"size": size}}
        layout = {"width": SIDE + 150 + (150 if groups else 0), "height": SIDE + 150, **_group_marks(groups)}
    return as_json(
        traces,
        "Confusion: rows are true, columns predicted",
        note=note,
        xaxis={"tickangle": -90 if many else -45, **axis},
        yaxis={"autorange": "reversed", **axis},
        margin={"l": 90, "r": 150 if groups else 10, "t": 64, "b": 90},
        **layout,
    )


def _heatmap(
    counts: npt.NDArray[Any], classes: Sequence[str], shades: npt.NDArray[Any], most: float, colour: str, hover: str
) -> dict[str, Any]:
    """Return a heat map of the shades that are not NaN, from 0 to `most`; with few classes it shows the counts too."""
    shown = np.isfinite(shades)
    few = len(classes) <= FEW
    names = [_as_text(name) for name in classes]
    return {
        "type": "heatmap",
        "x": names,
        "y": names,
        "z": [[value if np.isfinite(value) else None for value in row] for row in shades.round(3).tolist()],
        "text": np.where(shown & (counts > 0), counts.astype(str), "").tolist() if few else [],
        "texttemplate": "%{text}" if few else "",
        "customdata": counts.tolist(),
        "hovertemplate": f"{hover}<extra></extra>",
        "hoverongaps": False,
        "colorscale": [[0, f"rgba({colour},0.05)"], [1, f"rgba({colour},{DARKEST if few else 1})"]],
        "showscale": False,
        "zmin": 0,
        "zmax": most,
    }


def _class_axis(classes: Sequence[str]) -> dict[str, Any]:
    """Return an axis of classes, with long names cut off."""
    cut = {_as_text(name): _as_text(short(name, LONGEST)) for name in classes if name != short(name, LONGEST)}
    return {"type": "category", "labelalias": cut, "automargin": True}


def _as_text(name: str) -> str:
    """Return a name as Plotly shows it unchanged: in a text it reads `<b>` as bold type, and drops unknown tags."""
    return html.escape(name, quote=False)


def _group_marks(groups: Groups) -> dict[str, Any]:
    """Return lines between groups of classes, and their names to the right of the rows."""
    lines: list[dict[str, Any]] = []
    names: list[dict[str, Any]] = []
    start = -0.5
    for name, members in groups.items():
        if start > 0:
            for one, other in ("xy", "yx"):
                ends = {f"{one}0": start, f"{one}1": start, f"{other}0": 0, f"{other}1": 1, f"{other}ref": "paper"}
                lines.append({"type": "line", **ends, "line": {"color": "rgba(128,128,128,0.6)", "width": 1}})
        place = {"x": 1, "xref": "paper", "xanchor": "left", "y": start + len(members) / 2}
        label = "<br>".join(textwrap.wrap(name, 22))
        names.append({**place, "text": label, "align": "left", "showarrow": False, "font": {"size": 11}})
        start += len(members)
    return {"shapes": lines, "annotations": names}


def class_accuracies(results: Results) -> str:
    """Return a bar chart of the accuracy of each class, as JSON."""
    share = 100 * results.confusion.diagonal() / np.maximum(1, results.confusion.sum(1))
    order = share.argsort()
    trace = {
        "type": "bar",
        "orientation": "h",
        "x": share[order].round(2).tolist(),
        "y": [_as_text(results.classes[index]) for index in order],
        "marker": {"color": COLOURS[0]},
        "hovertemplate": "%{y}: %{x:.2f} %<extra></extra>",
    }
    return as_json(
        [trace],
        "Accuracy of each class (%)",
        xaxis={"range": [0, 100]},
        yaxis=_class_axis(results.classes),
        margin={"l": 90, "r": 16, "t": 40, "b": 40},
    )
