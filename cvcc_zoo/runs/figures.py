"""The figures of a run: its curves, and of its test the confusion matrix and the reliability diagram."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

from cvcc_zoo.classifier import ImageClassifier
from cvcc_zoo.classifier.quality import bins_of
from cvcc_zoo.files.own import write_picture
from cvcc_zoo.plots import plot_calibration, plot_confusion, plot_curves
from cvcc_zoo.runs.metrics_file import NAME, read_metrics


def draw_curves(folder: Path) -> None:
    """Write `curves.png` from the metrics of a run, if there are any."""
    if (metrics := folder / NAME).is_file():
        write_picture(folder / "curves.png", plot_curves(read_metrics(metrics), folder.resolve().name))


def draw_test(folder: Path, model: ImageClassifier, classes: Sequence[str], accuracy: float) -> None:
    """Write `confusion.png` and `calibration.png` of a model that was tested, with an `accuracy` in [0, 1]."""
    title = f"{folder.resolve().name}: test accuracy {100 * accuracy:.2f} %"
    write_picture(folder / "confusion.png", plot_confusion(model.test_confusion.cpu().numpy(), classes, title))
    draw_reliability(folder, model.test_quality, title)


def draw_reliability(folder: Path, quality: Mapping[str, Tensor], title: str) -> None:
    """Write `calibration.png`, the reliability diagram of what `Quality` computed."""
    images, accuracy, confidence = bins_of(quality)
    write_picture(folder / "calibration.png", plot_calibration(images, accuracy, confidence, title))
