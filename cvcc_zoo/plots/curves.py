"""Figures of the curves of runs, of a learning rate range test, and of quantities block by block."""

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes

from cvcc_zoo.plots.figure import Figure, fitted, label_logarithmic, label_whole

Curve = tuple[Sequence[float], Sequence[float]]  # optimizer steps, and a value at each
SPIKE = 5  # times the 90th percentile of the highest curve; a larger loss would flatten all the others
FEW = 10  # values of a curve up to which it is drawn with points, because its line may be too short to see
NO_RATES = ("-momentum", "-weight_decay")
"""Endings of the other numbers that a LearningRateMonitor can log; their names begin as those of learning rates."""
COLOURS = {"train": "tab:blue", "val": "tab:orange", "test": "tab:green"}


def cut_above(curves: Iterable[Sequence[float]]) -> tuple[float, float] | None:
    """Return the upper limit of a loss axis that cuts off spikes, and the largest loss; None if there are no spikes.

    A spike is larger than five times the 90th percentile of the highest curve.
    """
    finite = [sorted(value for value in values if math.isfinite(value)) for values in curves]
    found = [values for values in finite if values]
    usual = SPIKE * max((values[int(0.9 * (len(values) - 1))] for values in found), default=0.0)
    largest = max((values[-1] for values in found), default=0.0)
    if not 0 < usual < largest:
        return None
    return 1.1 * max(value for values in found for value in values if value <= usual), largest


def _cut(axes: Axes, curves: Iterable[Sequence[float]]) -> None:
    """Cut the loss axis below the spikes, and note this on the plot."""
    if (cut := cut_above(curves)) is None:
        return
    top, largest = cut
    axes.set_ylim(0, top)
    axes.text(
        0.02, 0.98, f"cut at {top:.3g}: the largest is {largest:.3g}", transform=axes.transAxes, va="top",
        fontsize="small", bbox={"facecolor": "white", "alpha": 0.7, "edgecolor": "none", "pad": 1.0},
    )  # fmt: skip


def distinct_rates(curves: Mapping[str, Curve]) -> list[str]:
    """Return the names of the learning rates among the curves of a run; groups of parameters often share one."""
    rates = {name: curve for name, curve in curves.items() if name.startswith("lr-") and not name.endswith(NO_RATES)}
    return [name for i, name in enumerate(rates) if rates[name] not in list(rates.values())[:i]]


def plot_curves(metrics: Mapping[str, Curve], title: str) -> Figure:
    """Plot loss, accuracy and learning rate over the optimizer steps, and the norms that OptimizerMonitor logs."""
    lengths = {"train/grad_norm": "gradient", "train/update_ratio": "update / parameters"}
    monitored = any(name in metrics for name in lengths)
    figure = Figure(figsize=(16 if monitored else 12, 3.6), layout="constrained")
    loss, accuracy, rate, *more = figure.subplots(1, 4 if monitored else 3, sharex=True)
    if "train/batch_loss" in metrics:
        options = {"color": COLOURS["train"], "alpha": 0.3, "linewidth": 1, "label": "train, batch"}
        loss.plot(*metrics["train/batch_loss"], marker=_marker(metrics["train/batch_loss"]), **options)
    for axes, name in ((loss, "loss"), (accuracy, "accuracy")):
        for stage in ("train", "val"):
            if f"{stage}/{name}" in metrics:
                steps, values = metrics[f"{stage}/{name}"]
                scale = 100 if name == "accuracy" else 1
                axes.plot(steps, [scale * v for v in values], color=COLOURS[stage], marker=".", label=stage)
        if f"test/{name}" in metrics:
            value = metrics[f"test/{name}"][1][-1]
            label = f"test {100 * value:.2f} %" if name == "accuracy" else f"test {value:.3f}"
            axes.axhline(
                100 * value if name == "accuracy" else value,
                color=COLOURS["test"], linestyle="--", linewidth=1, label=label,
            )  # fmt: skip
    rates = distinct_rates(metrics)
    for name in rates:
        label = name.removeprefix("lr-")
        label = label if len(rates) > 1 else label.partition("/")[0]
        rate.plot(*metrics[name], marker=_marker(metrics[name]), label=label)
    for axes in more:
        for name in [name for name in lengths if name in metrics]:
            axes.semilogy(*metrics[name], label=lengths[name])
    panels = [(loss, "loss"), (accuracy, "accuracy (%)"), (rate, "learning rate"), *((axes, "length") for axes in more)]
    for axes, label in panels:
        axes.set(xlabel="optimizer step", title=label)
        label_whole(axes.xaxis)
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend(fontsize="small")
        else:
            axes.text(0.5, 0.5, "nothing was recorded", transform=axes.transAxes, ha="center", color="tab:gray")
            axes.set_yticks([])
    if rates:
        rate.set(ylim=(0, None))
    rate.set(xlim=(0, None))
    _cut(loss, [np.asarray(line.get_ydata(), dtype=float).tolist() for line in loss.lines])
    figure.suptitle(title, parse_math=False)
    return figure


def _marker(curve: Curve) -> str:
    """Return the marker of the points of a curve, none if it has many."""
    return "." if len(curve[0]) <= FEW else ""


def plot_range_test(
    rates: Sequence[float], smoothed: Sequence[float], losses: Sequence[float], suggestion: float | None, title: str
) -> Figure:
    """Plot the loss of each batch and the smoothed loss over the learning rate, and mark the suggested rate.

    The axis has room for the fall of the smoothed loss and half as much above; what is higher leaves the picture.
    """
    figure = Figure(figsize=(6.4, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot(rates, losses, color="tab:blue", alpha=0.3, linewidth=1, label="loss of the batch")
    axes.plot(rates, smoothed, color="tab:blue", label="smoothed")
    if suggestion is not None:
        height = smoothed[min(range(len(rates)), key=lambda number: abs(rates[number] - suggestion))]
        axes.plot([suggestion], [height], "o", color="tab:red", label=f"steepest slope: {suggestion:.2g}")
    lowest = min(smoothed)
    highest = max(smoothed[: smoothed.index(lowest) + 1])  # before it is lowest
    if (fall := highest - lowest) > 0:
        axes.set_ylim(lowest - 0.1 * fall, highest + 0.5 * fall)
    elif (cut := cut_above([smoothed, losses])) is not None:
        axes.set_ylim(0, cut[0])
    axes.set_xscale("log")
    axes.set(xlabel="learning rate", ylabel="training loss", title=fitted(title, 5.4, 12))
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    return figure


def plot_depth(panels: Mapping[str, Mapping[str, Sequence[float]]], title: str) -> Figure:
    """Plot a panel for each quantity, by its title: its values for each model over the blocks, logarithmically.

    A quantity that is nowhere above 0 has a linear axis.
    """
    figure = Figure(figsize=(0.6 + 4.2 * len(panels), 4), layout="constrained")
    for axes, (name, models) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        for label, values in models.items():
            axes.plot(range(1, len(values) + 1), values, marker=".", label=label)
        positive = [value for values in models.values() for value in values if value > 0]
        if positive:  # zeros alone have no logarithm
            axes.set_yscale("log")
            label_logarithmic(axes.yaxis, positive)
        axes.set(xlabel="block", title=name)
        label_whole(axes.xaxis)
        axes.grid(alpha=0.3)
    lines, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(lines, labels, loc="outside lower center", ncols=4, fontsize="small")
    figure.suptitle(title)
    return figure
