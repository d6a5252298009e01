"""The figure of a learning rate range test."""

from collections.abc import Sequence

from cvcc_zoo.plots.curves import cut_above
from cvcc_zoo.plots.figure import Figure, fitted


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
