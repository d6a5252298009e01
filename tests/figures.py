"""Figures that are neither made nor written: that takes most of the time of a short training."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

from matplotlib.figure import Figure

from cvcc_zoo.files.own import write_whole


def empty(*plotted: object) -> Figure:
    """An empty figure, whatever is plotted."""
    return Figure()


def blank(path: Path, figure: Figure) -> None:
    """Write a file in place of a figure."""
    write_whole(path, b"\x89PNG")


@contextmanager
def blank_figures() -> Iterator[dict[str, Callable[..., Any]]]:
    """Leave the figures of runs blank; gives what makes and writes them, by its names in `cvcc_zoo.runs.figures`."""
    from cvcc_zoo.runs import figures

    stand_ins: dict[str, Any] = dict.fromkeys(("plot_curves", "plot_confusion", "plot_calibration"), empty)
    stand_ins["write_picture"] = blank
    drawing = {name: vars(figures)[name] for name in stand_ins}
    with patch.multiple(figures, **stand_ins):
        yield drawing
