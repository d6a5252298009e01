"""The figures of a report, as Plotly draws them in a browser."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from cvcc_zoo.reporting.reports import Judged, RunReport

COLOURS = ("#1f6f8b", "#d9822b", "#2a7f62", "#a23b72", "#6b5b95", "#8a6d3b", "#c0504d", "#3c5a99")
BINS = 15
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
    """Counts of true and predicted classes; the diagonal is left out of the colours, so that mistakes are seen."""
    counts = judged.confusion
    shades = counts.astype(float)
    np.fill_diagonal(shades, np.nan)
    trace = {
        "type": "heatmap",
        "x": judged.classes,
        "y": judged.classes,
        "z": [[None if np.isnan(value) else value for value in row] for row in shades.tolist()],
        "text": counts.tolist(),
        "texttemplate": "%{text}" if len(judged.classes) <= 20 else "",
        "hovertemplate": "%{y} taken for %{x}: %{text}<extra></extra>",
        "colorscale": [[0, "rgba(217,130,43,0.05)"], [1, "#d9822b"]],
        "showscale": False,
    }
    return _figure(
        [trace],
        "Confusion: rows are true, columns predicted",
        "",
        "",
        xaxis={"tickangle": -45, "type": "category"},
        yaxis={"autorange": "reversed", "type": "category"},
        margin={"l": 90, "r": 10, "t": 40, "b": 90},
    )


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
        yaxis={"type": "category"},
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
