"""The figures of a report, in Plotly's JSON."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from cvcc_zoo.plots.curves import FEW, cut_above, distinct_rates
from cvcc_zoo.plots.figure import short
from cvcc_zoo.registry import needed
from cvcc_zoo.report.reports import Results, RunReport

COLOURS = ("#1f6f8b", "#d9822b", "#2a7f62", "#a23b72", "#6b5b95", "#8a6d3b", "#c0504d", "#3c5a99")
SYMBOLS = ("circle", "square", "diamond", "cross", "star")
HEIGHT, LINE = 340, 20  # pixels: the height of a figure, and of each line of its legend
LONGEST = 36  # letters of a run in a legend; three figures are side by side
MOST_TICKS = 6
UNITS = ((1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""))
LAYOUT: dict[str, Any] = {
    "margin": {"l": 56, "r": 16, "t": 40, "b": 44},
    "font": {"family": "system-ui, sans-serif", "size": 13},
    "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": "rgba(128,128,128,0.5)", "activecolor": "rgb(128,128,128)"},
    "paper_bgcolor": "rgba(0,0,0,0)",
    "plot_bgcolor": "rgba(0,0,0,0)",
    "hovermode": "closest",
    "hoverlabel": {"namelength": -1},  # Plotly cuts the names of runs after 15 letters
}
GRID = {"gridcolor": "rgba(128,128,128,0.25)", "zeroline": False}


def plotly(part: str) -> Any:
    """Import a part of Plotly. Raises ValueError, which says what to install, if it is missing."""
    return needed(f"plotly.{part}", "a report", "report")


def as_json(
    traces: Sequence[dict[str, Any]], title: str, x: str = "", y: str = "", *, note: str = "", **layout: Any
) -> str:
    """Return a figure as JSON, validated by Plotly, with a `note` in small print below its title."""
    below = {"subtitle": {"text": note, "font": {"size": 12}}} if note else {}
    figure = plotly("graph_objects").Figure(
        data=list(traces),
        layout={
            **LAYOUT,
            "title": {"text": title, "font": {"size": 15}, **below},
            "xaxis": {"title": {"text": x}, **GRID, **layout.pop("xaxis", {})},
            "yaxis": {"title": {"text": y}, **GRID, **layout.pop("yaxis", {})},
            **layout,
        },
    )
    text: str = figure.to_json()
    return text


def _with_legend(runs: Sequence[RunReport]) -> dict[str, Any]:
    """Return the layout of a legend below the figure with a line for each run; the figure grows by its height."""
    legend = {"orientation": "h", "yref": "container", "y": 0, "yanchor": "bottom", "entrywidthmode": "fraction"}
    return {
        "height": HEIGHT + LINE * len(runs),
        "legend": {**legend, "entrywidth": 1},
        "margin": {**LAYOUT["margin"], "t": 64, "b": 52 + LINE * len(runs)},
        "showlegend": True,
    }


def _style(number: int) -> tuple[str, str]:
    """Return the colour of a run, and the symbol of its points."""
    return COLOURS[number % len(COLOURS)], SYMBOLS[number // len(COLOURS) % len(SYMBOLS)]


def _steps_an_epoch(run: RunReport) -> float:
    """Return the optimizer steps of the first epoch; a last one that was not finished counts as one in the summary.

    The curves of a run that was resumed in another folder begin with a later epoch, so that this is the mean.
    """
    steps, epochs = run.summary["steps"], max(1, run.summary["epochs"])
    each = run.curves.get("train/loss", ([-1.0], []))[0][0] + 1
    return each if (epochs - 1) * each < steps <= epochs * each else steps / epochs


def learning_curves(runs: Sequence[RunReport], quantity: str) -> str | None:
    """Plot the `loss`, `accuracy` or `lr` of all runs over the epochs, training dotted; None if no run has it.

    A run has a line for each rate of its parameter groups, and the mouse names the optimizer and the group.
    """
    traces: list[dict[str, Any]] = []
    for number, run in enumerate(runs):
        steps_an_epoch = _steps_an_epoch(run)
        names = distinct_rates(run.curves) if quantity == "lr" else [f"train/{quantity}", f"val/{quantity}"]
        present = [name for name in names if name in run.curves]
        colour, _ = _style(number)
        for name in present:
            steps, values = run.curves[name]
            scale = 100 if quantity == "accuracy" else 1
            stage = name.partition("/")[0]
            which = stage if quantity != "lr" else name.removeprefix("lr-") if len(present) > 1 else ""
            traces.append(
                {
                    "type": "scatter",
                    "mode": "lines+markers" if len(values) <= FEW else "lines",
                    "name": short(run.name, LONGEST),
                    "legendgroup": run.name,
                    "showlegend": name == present[-1],
                    "hovertemplate": f"%{{x:.2f}}: %{{y:.4g}} {which}",
                    "x": [round((step + 1) / steps_an_epoch, 3) for step in steps],
                    "y": [scale * value for value in values],
                    "line": {"color": colour, "dash": "dot" if stage == "train" else "solid", "width": 2},
                    "marker": {"size": 5},
                }
            )
    if not traces:
        return None
    notes = ["dotted: training"] if any(trace["line"]["dash"] == "dot" for trace in traces) else []
    if quantity == "lr" and len(traces) > len({trace["legendgroup"] for trace in traces}):
        notes.append("several lines of a run: its parameter groups, named under the mouse")
    axis: dict[str, Any] = {"rangemode": "tozero"}
    if quantity == "loss" and (cut := cut_above(trace["y"] for trace in traces)):
        axis = {"range": [0, cut[0]]}
        notes.append(f"cut at {cut[0]:.3g}: the largest is {cut[1]:.3g}")
    epochs = {"dtick": 1} if max(max(trace["x"], default=0) for trace in traces) <= MOST_TICKS else {}
    titles = {"loss": "Loss", "accuracy": "Accuracy (%)", "lr": "Learning rate"}
    layout = {"xaxis": epochs, "yaxis": axis, **_with_legend(runs)}
    return as_json(traces, titles[quantity], "epoch", note="; ".join(notes), **layout)


def sizes(runs: Sequence[RunReport], cost: str, title: str) -> str | None:
    """Plot the test accuracy over parameters or MACs, on a logarithmic axis; None if no run was tested."""
    tested = [(number, run) for number, run in enumerate(runs) if run.summary["test_accuracy"] is not None]
    traces = []
    for number, run in tested:
        colour, symbol = _style(number)
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": short(run.name, LONGEST),
                "hovertemplate": "%{x:,}: %{y:.2f} %",
                "x": [run.summary[cost]],
                "y": [100 * run.summary["test_accuracy"]],
                "marker": {"size": 12, "color": colour, "symbol": symbol},
            }
        )
    if not traces:
        return None
    axis = logarithmic([max(1, run.summary[cost]) for _, run in tested])
    return as_json(traces, f"Test accuracy (%) over {title}", title, xaxis=axis, **_with_legend(runs))


def logarithmic(values: Sequence[float]) -> dict[str, Any]:
    """Return a logarithmic axis for values above 0, with ticks at 1, 2 and 5 or only at powers of ten."""
    low, high = min(values) / 1.6, max(values) * 1.6
    powers = [10.0**power for power in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)]
    places = [each for each in (factor * power for power in powers for factor in (1, 2, 5)) if low <= each <= high]
    if len(places) > MOST_TICKS:
        places = [power for power in powers if low <= power <= high]
    texts = [next(f"{each / unit:g}{name}" for unit, name in UNITS if each >= unit) for each in places]
    return {"type": "log", "range": [math.log10(low), math.log10(high)], "tickvals": places, "ticktext": texts}


def calibration(results: Results) -> str:
    """Plot the accuracy over the confidence in 15 bins, with the number of images in each."""
    counts, accuracy, confidence = (each[results.bins[0] > 0] for each in results.bins)
    traces = [
        {
            "type": "scatter",
            "mode": "lines",
            "x": [0, 1],
            "y": [0, 1],
            "line": {"dash": "dash", "color": "gray"},
            "name": "perfect calibration",
        },
        {
            "type": "scatter",
            "mode": "markers+lines",
            "name": "measured",
            "cliponaxis": False,  # a circle at 1 is whole
            "x": confidence.round(4).tolist(),
            "y": accuracy.round(4).tolist(),
            "text": [f"{count:,} images" for count in counts],
            "hovertemplate": "probability %{x:.3f}, accuracy %{y:.3f}, %{text}<extra></extra>",
            "marker": {
                "size": (6 + 18 * np.sqrt(counts / counts.max())).round(1).tolist(),
                "color": COLOURS[0],
            },
        },
    ]
    return as_json(
        traces,
        f"Calibration: {100 * results.quality['calibration_error']:.1f} points off on average",
        "probability of the predicted class",
        "accuracy",
        xaxis={"range": [0, 1.02]},
        yaxis={"range": [0, 1.02]},
        showlegend=False,
    )
