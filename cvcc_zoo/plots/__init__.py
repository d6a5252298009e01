"""Numbers in, matplotlib figures out: curves, images beside each other, confusion matrices."""

from cvcc_zoo.plots.confusion import plot_confusion
from cvcc_zoo.plots.curves import Curve, plot_curves, plot_depth, plot_runs, plot_search, read_metrics
from cvcc_zoo.plots.images import Pictures, plot_images, stretch

__all__ = [
    "Curve",
    "Pictures",
    "plot_confusion",
    "plot_curves",
    "plot_depth",
    "plot_images",
    "plot_runs",
    "plot_search",
    "read_metrics",
    "stretch",
]
