"""Figures that are made but not drawn: drawing takes most of the time of a short training."""

from pathlib import Path

from matplotlib.figure import Figure

from cvcc_zoo.files.own import write_whole

WRITER = "cvcc_zoo.runs.figures.write_picture"
"""What writes the figures of a run."""


def blank(path: Path, figure: Figure) -> None:
    """Write a file in place of a figure."""
    write_whole(path, b"\x89PNG")
