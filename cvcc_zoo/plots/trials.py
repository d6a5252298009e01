"""The figure of a search: the score of each trial over the values that it tried."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from cvcc_zoo.plots.figure import Figure, label_logarithmic, short

LOGARITHMIC, LINEAR = "log", "linear"
Axis = Sequence[str] | str
"""The values of a list in order, as strings; or LOGARITHMIC or LINEAR for a range of numbers."""
IN_A_ROW = 4  # panels
PANEL = 3.4  # inches
LETTERS = 28  # characters that fit below a panel
LONGEST = 20  # characters of a value


def plot_search(
    values: Mapping[str, Sequence[float]], axes: Mapping[str, Axis], scores: Sequence[float], label: str
) -> Figure:
    """Plot a panel for each searched option: the score of each trial, called `label`, over the value of the option.

    `axes` says how each option was searched; `values` are numbers, or positions in the option's list, from 0.
    """
    columns = min(IN_A_ROW, len(values))
    rows = -(-len(values) // columns)
    most = max((len(axis) for axis in axes.values() if not isinstance(axis, str)), default=0)
    width = max(PANEL, 0.3 * most)  # 0.3 inches are enough for a rotated label
    figure = Figure(figsize=(0.6 + width * columns, 3.6 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, sharey=True, squeeze=False)
    for panel, (name, found) in zip(panels.ravel(), values.items(), strict=False):
        axis = axes[name]
        panel.plot(found, scores, "o", alpha=0.7)
        if isinstance(axis, str):
            _number_ticks(panel, found, logarithmic=axis == LOGARITHMIC)
        else:
            _list_ticks(panel, [short(value, LONGEST) for value in axis])
        panel.set(xlabel=name)
        panel.grid(alpha=0.3)
    for panel in panels.ravel()[len(values) :]:
        panel.set_axis_off()
    for panel in panels[:, 0]:
        panel.set(ylabel=label)
    return figure


def _list_ticks(axes: Axes, names: Sequence[str]) -> None:
    """Label evenly spaced positions with the values of a list, rotated if they are too long."""
    rotated = len("  ".join(names)) > LETTERS
    options: dict[str, Any] = {"rotation": 35, "ha": "right", "rotation_mode": "anchor"} if rotated else {}
    axes.set_xticks(range(len(names)), names, fontsize="small", parse_math=False, **options)
    axes.set_xlim(-0.5, len(names) - 0.5)


def _number_ticks(axes: Axes, values: Sequence[float], *, logarithmic: bool) -> None:
    """Label as many numbers below a panel as there is room for."""
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    if not logarithmic:
        whole = all(isinstance(value, int) for value in values)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=4, integer=whole))
        return
    axes.set_xscale("log")
    label_logarithmic(axes.xaxis, values)
    if min(values) == max(values):  # one value: a logarithmic axis without a range has too many ticks
        axes.set_xlim(min(values) / 2, max(values) * 2)
