"""Figures of images: sheets of them, and the templates and scores of a model."""

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from cvcc_zoo.plots.figure import Figure, fitted, label_whole, short

Pictures = npt.NDArray[np.floating[Any]]
SHOWN = 99.5  # percent of the pixels of templates within the scale; the few beyond would leave the rest grey
BINS = 60
LONGEST = 14  # letters of a class
TOP = 10  # classes whose scores are drawn
GAP = (0.81, 0.89, 0.95)  # light blue, so that white pixels differ from what is between images
RIGHT, WRONG, OTHER = "tab:green", "tab:red", "#b8c4d0"


def plot_images(axes: Axes, images: Pictures, title: str = "") -> None:
    """Show rows and columns of images (R, C, H, W, 1 or 3) in [0, 1] as one sheet with coloured gaps around them."""
    rows, columns, height, width, _ = images.shape
    gap = gap_between(height)
    sheet = np.full((gap + rows * (height + gap), gap + columns * (width + gap), 3), GAP)
    for row, column in np.ndindex(rows, columns):
        y, x = gap + row * (height + gap), gap + column * (width + gap)
        sheet[y : y + height, x : x + width] = images[row, column]
    axes.imshow(sheet, interpolation="nearest")
    axes.set_title(title)
    axes.set_axis_off()


def gap_between(height: int) -> int:
    """Return the pixels between two images of a sheet that are `height` pixels high."""
    return max(1, height // 16)


def stretch(images: Pictures) -> Pictures:
    """Scale each image (..., H, W, C) so that zero is middle grey and its largest absolute value black or white."""
    largest = np.abs(images).max(axis=(-3, -2, -1), keepdims=True)
    return 0.5 + 0.5 * images / np.where(largest > 0, largest, 1)


def plot_templates(rows: Sequence[tuple[str, Pictures]], classes: Sequence[str]) -> Figure:
    """Return a figure with the templates (K, H, W, C) of models, ten classes a row.

    The templates of a model share a scale, so that they can be compared: grey is 0.
    """
    columns = min(10, len(classes))
    lines = -(-len(classes) // columns)
    figure = Figure(figsize=(1.1 * columns + 0.6, 1.2 * lines * len(rows) + 0.6), layout="constrained")
    axes = figure.subplots(lines * len(rows), columns, squeeze=False)
    for axis in axes.ravel():
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
    for number, (name, pictures) in enumerate(rows):
        scale = float(np.percentile(np.abs(pictures), SHOWN)) or 1.0
        places = axes[number * lines : (number + 1) * lines]
        for axis, picture, label in zip(places.ravel(), pictures, classes, strict=False):
            shown = (0.5 + 0.5 * picture / scale).clip(0, 1)
            axis.imshow(shown.repeat(3 // shown.shape[-1], axis=2), interpolation="nearest")
            if number == 0 or lines > 1:
                axis.set_title(short(label, LONGEST), fontsize=9, parse_math=False)
        places[0, 0].set_ylabel(f"{textwrap.fill(name, 20)}\n\u00b1{scale:.2g}", fontsize=9, parse_math=False)
    note = "grey is 0; where a channel is full, one unit of a pixel adds the number at the left to the score"
    figure.supxlabel(fitted(note, figure.get_figwidth(), 8), fontsize=8)
    return figure


@dataclass(frozen=True)
class Scored:
    """An image (H, W, C) in [0, 1], the scores (K,) of its classes, its label, and the note above them."""

    image: Pictures
    scores: Pictures
    label: int
    note: str
    limit: float | None
    """The value below which the scores of wrong classes cost nothing; None if the loss has no such value."""


def plot_scores(some: Sequence[Scored], margins: Pictures, classes: Sequence[str], title: str) -> Figure:
    """Return a figure with images, the scores of their classes, and a histogram of the margins (N,) of all images."""
    columns = min(3, math.ceil(math.sqrt(len(some))))
    rows = -(-len(some) // columns)
    figure = Figure(figsize=(4.1 * columns, 2.2 * rows + 2.6), layout="constrained")
    (above,), (below,) = figure.subfigures(2, 1, squeeze=False, height_ratios=(2.2 * rows, 2.4))
    axes = above.subplots(rows, 2 * columns, squeeze=False, width_ratios=(1, 1.2) * columns).ravel()
    for axis in axes[2 * len(some) :]:
        axis.set_axis_off()
    for place, scored in enumerate(some):
        _plot_scored(axes[2 * place], axes[2 * place + 1], scored, classes)
    limits = [axis.get_xlim() for axis in axes[1 : 2 * len(some) : 2]]
    for axis in axes[1 : 2 * len(some) : 2]:
        axis.set_xlim(min(low for low, _ in limits), max(high for _, high in limits))
    _plot_margins(below.subplots(), margins)
    figure.suptitle(title, parse_math=False)
    return figure


def _plot_scored(picture: Axes, bars: Axes, scored: Scored, classes: Sequence[str]) -> None:
    picture.imshow(scored.image.repeat(3 // scored.image.shape[-1], axis=2), interpolation="nearest")
    picture.set_axis_off()
    picture.set_anchor("N")
    picture.set_title(short(classes[scored.label], LONGEST), fontsize=10, color=RIGHT, parse_math=False)
    highest = np.argsort(-scored.scores, kind="stable")[:TOP]
    others = [k for k in highest.tolist() if k != scored.label]
    drawn = sorted([*others[: TOP - 1], scored.label])
    best = int(highest[0])
    colours = [RIGHT if k == scored.label else WRONG if k == best else OTHER for k in drawn]
    bars.barh(range(len(drawn)), scored.scores[drawn], color=colours)
    bars.axvline(0, color="black", linewidth=0.8)
    if scored.limit is not None:
        bars.axvline(scored.limit, color="black", linewidth=1, linestyle=":")
    bars.set_yticks(range(len(drawn)), [short(classes[k], LONGEST) for k in drawn], fontsize=7, parse_math=False)
    bars.invert_yaxis()
    bars.tick_params(axis="x", labelsize=7)
    bars.xaxis.set_major_locator(MaxNLocator(3))
    bars.spines[["top", "right", "left"]].set_visible(False)
    bars.tick_params(axis="y", length=0)
    bars.set_title(scored.note, fontsize=8, loc="right")  # it is wider than the bars
    for text, k in zip(bars.get_yticklabels(), drawn, strict=True):
        text.set(color=RIGHT if k == scored.label else WRONG if k == best else "black")


def _plot_margins(axes: Axes, margins: Pictures) -> None:
    span = max(margins.max(), 0) - min(margins.min(), 0)  # 0 is in the picture, too
    width = max(float(span), 1e-2) / BINS
    edges = width * np.arange(np.floor(margins.min() / width), np.floor(margins.max() / width) + 2)  # one of them is 0
    for part, colour in ((margins[margins > 0], RIGHT), (margins[margins <= 0], WRONG)):
        axes.hist(part, bins=edges.tolist(), color=colour, alpha=0.8)
    axes.axvline(0, color="black", linewidth=0.8)
    won = float((margins > 0).mean())
    axes.set_title(f"{100 * won:.2f} % of {len(margins):,} test images are right", fontsize=10)
    axes.set(xlabel="margin: right score minus largest other", ylabel="images")
    axes.spines[["top", "right"]].set_visible(False)
    label_whole(axes.yaxis)
