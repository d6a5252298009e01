"""The figures of a report, as Plotly draws them in a browser."""

import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np

from cvcc_zoo.plots.confusion import EXPONENT, FEW, LONGEST, in_groups
from cvcc_zoo.plots.names import short
from cvcc_zoo.plots.superclasses import Groups, groups_of
from cvcc_zoo.reporting.reports import Judged, RunReport

COLOURS = ("#1f6f8b", "#d9822b", "#2a7f62", "#a23b72", "#6b5b95", "#8a6d3b", "#c0504d", "#3c5a99")
BINS = 15
SIDE = 900  # pixels of a confusion matrix with many classes
LAYOUT: dict[str, Any] = {
    "margin": {"l": 56, "r": 16, "t": 40, "b": 44},
    "font": {"family": "system-ui, sans-serif", "size": 13},
    "paper_bgcolor": "rgba(0,0,0,0)",
    "plot_bgcolor": "rgba(0,0,0,0)",
    "hovermode": "closest",
}
GRID = {"gridcolor": "rgba(128,128,128,0.25)", "zeroline": False}


def plotly() -> Any:
    """The package. Raises ValueError, which says what to install."""
    try:
        import plotly.graph_objects
        import plotly.offline
    except ImportError as error:
        raise ValueError("a report needs `pip install 'cvcc_zoo[report]'`") from error
    return plotly


def _figure(traces: list[dict[str, Any]], title: str, x: str, y: str, **layout: Any) -> str:
    """A figure as JSON, checked by Plotly."""
    figure = plotly().graph_objects.Figure(
        data=traces,
        layout={
            **LAYOUT,
            "title": {"text": title, "font": {"size": 15}},
            "xaxis": {"title": {"text": x}, **GRID, **layout.pop("xaxis", {})},
            "yaxis": {"title": {"text": y}, **GRID, **layout.pop("yaxis", {})},
            **layout,
        },
    )
    text: str = figure.to_json()
    return text


def learning_curves(runs: Sequence[RunReport], quantity: str) -> str | None:
    """`loss`, `accuracy` or `lr` of all runs over the epochs, training dotted; None if no run has it."""
    traces: list[dict[str, Any]] = []
    for number, run in enumerate(runs):
        steps_an_epoch = run.summary["steps"] / max(1, run.summary["epochs"])
        names = [f"train/{quantity}", f"val/{quantity}"]
        if quantity == "lr":
            names = [name for name in run.curves if name.startswith("lr-")][:1]
        present = [name for name in names if name in run.curves]
        for name in present:
            steps, values = run.curves[name]
            scale = 100 if quantity == "accuracy" else 1
            stage = name.partition("/")[0] if quantity != "lr" else ""
            traces.append(
                {
                    "type": "scatter",
                    "mode": "lines",
                    "name": run.name,
                    "legendgroup": run.name,
                    "showlegend": name == present[-1],
                    "hovertemplate": f"%{{x:.2f}}: %{{y:.4g}} {stage}",
                    "x": [round((step + 1) / steps_an_epoch, 3) for step in steps],
                    "y": [scale * value for value in values],
                    "line": {
                        "color": COLOURS[number % len(COLOURS)],
                        "dash": "dot" if stage == "train" else "solid",
                        "width": 2,
                    },
                }
            )
    if not traces:
        return None
    dotted = "; dotted: training" if any(trace["line"]["dash"] == "dot" for trace in traces) else ""
    titles = {"loss": f"Loss{dotted}", "accuracy": f"Accuracy (%){dotted}", "lr": "Learning rate"}
    return _figure(
        traces, titles[quantity], "epoch", "", legend={"orientation": "h", "y": -0.25}, yaxis={"rangemode": "tozero"}
    )


def sizes(runs: Sequence[RunReport], cost: str, title: str) -> str | None:
    """Test accuracy over parameters or MACs, on a logarithmic axis; None if no run was tested."""
    traces = [
        {
            "type": "scatter",
            "mode": "markers+text",
            "name": run.name,
            "text": [run.name],
            "textposition": "top center",
            "x": [run.summary[cost]],
            "y": [100 * run.summary["test_accuracy"]],
            "marker": {"size": 12, "color": COLOURS[number % len(COLOURS)]},
        }
        for number, run in enumerate(runs)
        if run.summary["test_accuracy"] is not None
    ]
    if not traces:
        return None
    return _figure(traces, f"Test accuracy (%) over {title}", title, "", xaxis={"type": "log"}, showlegend=False)


def confusion(judged: Judged) -> str:
    """Counts of true and predicted classes; the diagonal is left out of the colours, so that mistakes are seen.

    More than 20 classes have a larger figure of its own size, and those of a known data set stand in their groups.
    """
    many = len(judged.classes) > FEW
    groups = groups_of(judged.classes) if many else {}
    counts, classes = in_groups(judged.confusion, judged.classes, groups)
    shades = counts.astype(float) ** (EXPONENT if many else 1)
    np.fill_diagonal(shades, 0)
    largest = max(1.0, shades.max())
    np.fill_diagonal(shades, np.nan)
    trace = {
        "type": "heatmap",
        "x": classes,
        "y": classes,
        "z": [[None if np.isnan(value) else value for value in row] for row in shades.round(3).tolist()],
        "text": counts.tolist(),
        "texttemplate": "" if many else "%{text}",
        "hovertemplate": "%{y} taken for %{x}: %{text}<extra></extra>",
        "colorscale": [[0, "rgba(217,130,43,0.05)"], [1, "#d9822b"]],
        "showscale": False,
        "zmin": 0,
        "zmax": largest,
    }
    axis = _class_axis(classes)
    title, layout = "Confusion: rows are true, columns predicted", dict[str, Any]()
    if many:
        title += f"; colours: mistakes to the power {EXPONENT}"
        axis |= {
            "automargin": True,
            "showgrid": False,
            "tickfont": {"size": max(7, min(12, (SIDE / len(classes)) // 1.3))},
        }
        layout = {"width": SIDE + 150 + (150 if groups else 0), "height": SIDE + 150, **_group_marks(groups)}
    return _figure(
        [trace],
        title,
        "",
        "",
        xaxis={"tickangle": -90 if many else -45, **axis},
        yaxis={"autorange": "reversed", **axis},
        margin={"l": 90, "r": 150 if groups else 10, "t": 40, "b": 90},
        **layout,
    )


def _class_axis(classes: Sequence[str]) -> dict[str, Any]:
    """An axis of classes, whose long names are cut."""
    cut = {name: short(name, LONGEST) for name in classes if name != short(name, LONGEST)}
    return {"type": "category", "labelalias": cut, "automargin": bool(cut)}


def _group_marks(groups: Groups) -> dict[str, Any]:
    """Lines between groups of classes, and the name of each at the right of its rows."""
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


def class_accuracies(judged: Judged) -> str:
    """Share of each class that was recognised."""
    share = 100 * judged.confusion.diagonal() / np.maximum(1, judged.confusion.sum(1))
    order = share.argsort()
    trace = {
        "type": "bar",
        "orientation": "h",
        "x": share[order].round(2).tolist(),
        "y": [judged.classes[index] for index in order],
        "marker": {"color": COLOURS[0]},
        "hovertemplate": "%{y}: %{x:.2f} %<extra></extra>",
    }
    return _figure(
        [trace],
        "Accuracy of each class (%)",
        "",
        "",
        xaxis={"range": [0, 100]},
        yaxis=_class_axis(judged.classes),
        margin={"l": 90, "r": 16, "t": 40, "b": 40},
    )


def calibration(judged: Judged) -> str:
    """How often the model is right, over how sure it is, in 15 bins; and how many images each bin has."""
    place = np.minimum((judged.confidences * BINS).astype(int), BINS - 1)
    counts = np.bincount(place, minlength=BINS)
    there = counts > 0
    right = np.bincount(place, weights=judged.right, minlength=BINS)[there] / counts[there]
    sure = np.bincount(place, weights=judged.confidences, minlength=BINS)[there] / counts[there]
    error = (np.abs(right - sure) * counts[there]).sum() / counts.sum()
    traces = [
        {
            "type": "scatter",
            "mode": "lines",
            "x": [0, 1],
            "y": [0, 1],
            "line": {"dash": "dash", "color": "gray"},
            "name": "as sure as right",
        },
        {
            "type": "scatter",
            "mode": "markers+lines",
            "name": "measured",
            "x": sure.round(4).tolist(),
            "y": right.round(4).tolist(),
            "text": [f"{count:,} images" for count in counts[there]],
            "hovertemplate": "sure %{x:.3f}, right %{y:.3f}, %{text}<extra></extra>",
            "marker": {"size": (6 + 18 * np.sqrt(counts[there] / counts.max())).round(1).tolist(), "color": COLOURS[0]},
        },
    ]
    return _figure(
        traces,
        f"Calibration: {100 * error:.1f} points off in the mean",
        "probability of the predicted class",
        "share that is right",
        xaxis={"range": [0, 1.02]},
        yaxis={"range": [0, 1.02]},
        showlegend=False,
    )
