"""Matplotlib figures from numbers: curves, sheets of images, confusion matrices."""

from cvcc_zoo.plots.calibration import plot_calibration
from cvcc_zoo.plots.confusion import plot_confusion
from cvcc_zoo.plots.curves import Curve, plot_curves, plot_depth
from cvcc_zoo.plots.figure import Figure
from cvcc_zoo.plots.scores import Pictures, plot_images, stretch
from cvcc_zoo.plots.trials import plot_search

__all__ = [
    "Curve",
    "Figure",
    "Pictures",
    "plot_calibration",
    "plot_confusion",
    "plot_curves",
    "plot_depth",
    "plot_images",
    "plot_search",
    "stretch",
]
