"""The figure of robustness: accuracy over the strength of each corruption."""

from collections.abc import Mapping, Sequence

from cvcc_zoo.plots.figure import Figure

COLUMNS = 4


def plot_corruptions(accuracy: Mapping[str, Sequence[float]], clean: float, title: str) -> Figure:
    """Return a panel for each corruption, by its title: the accuracy in percent over its strength.

    A strength of 0 stands for the unchanged images.
    """
    rows = -(-len(accuracy) // COLUMNS)
    figure = Figure(figsize=(2.3 * COLUMNS, 1.9 * rows + 0.4), layout="constrained")
    panels = figure.subplots(rows, COLUMNS, sharex=True, sharey=True, squeeze=False)
    for panel, (name, values) in zip(panels.ravel(), accuracy.items(), strict=False):
        panel.axhline(100 * clean, color="0.6", linestyle=":", linewidth=1)
        panel.plot(range(len(values) + 1), [100 * value for value in (clean, *values)], "o-", markersize=4)
        panel.set_title(name, fontsize=10)
        panel.set(xticks=range(len(values) + 1), ylim=(0, 100))
        panel.grid(alpha=0.3)
    for panel in panels.ravel()[len(accuracy) :]:
        panel.set_axis_off()
    figure.supxlabel("strength", fontsize=10)
    figure.supylabel("accuracy (%)", fontsize=10)
    figure.suptitle(title, parse_math=False)
    return figure
