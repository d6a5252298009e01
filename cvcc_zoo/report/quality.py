"""Tables of the results of a model on its test images: over all classes, and of each class."""

from cvcc_zoo.plots.confusion import LONGEST
from cvcc_zoo.plots.figure import short
from cvcc_zoo.report.elements import Cell, number, table
from cvcc_zoo.report.reports import Results
from cvcc_zoo.runs.intervals import with_interval

TITLES = {
    "f1": "macro F1",
    "balanced_accuracy": "balanced accuracy",
    "log_loss": "log loss",
    "brier_score": "Brier score",
    "calibration_error": "calibration error",
}


def numbers(results: Results) -> str:
    """Return a table with the accuracy, its 95 % interval, and the numbers over all classes."""
    correct, count = int(results.right.sum()), len(results.right)
    cells: list[Cell] = [(with_interval(correct, count), correct / count)]
    for name in TITLES:
        percent = name == "balanced_accuracy"
        cells.append(number(results.quality[name], "{:.2f} %" if percent else "{:.4f}", 100 if percent else None))
    head = ("test images", "accuracy (95 % interval)", *TITLES.values())
    return table(head, [[number(count, "{:,}"), *cells]], sortable=False)


def per_class(results: Results) -> str:
    """Return a folded table with precision, recall, F1 and support of each class; "-" is not defined."""
    rows: list[list[Cell]] = []
    for name, found in results.quality["per_class"].items():
        shares = [number(found[key], "{:.4f}") for key in ("precision", "recall", "f1")]
        rows.append([(short(name, LONGEST), name), *shares, number(found["support"], "{:,}")])
    listed = table(("class", "precision", "recall", "F1", "support"), rows, sortable=True)
    return f"<details><summary>Precision, recall and F1 of each class</summary>{listed}</details>"
