"""The confusion matrix, counts (true class, predicted class): its figure, and the pairs that are confused most."""

import math
import textwrap
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.image import AxesImage

from cvcc_zoo.plots.figure import Figure, fitted, inches, short

Groups = Mapping[str, tuple[str, ...]]
"""Names of groups and the classes of each."""

CIFAR100: Groups = {
    "aquatic mammals": ("beaver", "dolphin", "otter", "seal", "whale"),
    "fish": ("aquarium_fish", "flatfish", "ray", "shark", "trout"),
    "flowers": ("orchid", "poppy", "rose", "sunflower", "tulip"),
    "food containers": ("bottle", "bowl", "can", "cup", "plate"),
    "fruit and vegetables": ("apple", "mushroom", "orange", "pear", "sweet_pepper"),
    "household electrical devices": ("clock", "keyboard", "lamp", "telephone", "television"),
    "household furniture": ("bed", "chair", "couch", "table", "wardrobe"),
    "insects": ("bee", "beetle", "butterfly", "caterpillar", "cockroach"),
    "large carnivores": ("bear", "leopard", "lion", "tiger", "wolf"),
    "large man-made outdoor things": ("bridge", "castle", "house", "road", "skyscraper"),
    "large natural outdoor scenes": ("cloud", "forest", "mountain", "plain", "sea"),
    "large omnivores and herbivores": ("camel", "cattle", "chimpanzee", "elephant", "kangaroo"),
    "medium-sized mammals": ("fox", "porcupine", "possum", "raccoon", "skunk"),
    "non-insect invertebrates": ("crab", "lobster", "snail", "spider", "worm"),
    "people": ("baby", "boy", "girl", "man", "woman"),
    "reptiles": ("crocodile", "dinosaur", "lizard", "snake", "turtle"),
    "small mammals": ("hamster", "mouse", "rabbit", "shrew", "squirrel"),
    "trees": ("maple_tree", "oak_tree", "palm_tree", "pine_tree", "willow_tree"),
    "vehicles 1": ("bicycle", "bus", "motorcycle", "pickup_truck", "train"),
    "vehicles 2": ("lawn_mower", "rocket", "streetcar", "tank", "tractor"),
}  # Krizhevsky 2009, https://www.cs.toronto.edu/~kriz/cifar.html

Counts = npt.NDArray[np.int64]
FEW = 20  # classes for which the cells show numbers
LONGEST = 24  # characters of a class name
LISTED = 20  # pairs
EXPONENT = 0.4  # of the colour scale for many classes: a share of 1 % is 16 % of the way to the darkest colour
TICKS = (0, 1, 5, 10, 25, 50, 100)  # percent
TITLE_SIZE, LIST_SIZE, GROUP_SIZE = 12, 10, 8  # points
LINE, GAP, BAR = 0.21, 0.25, 3.4  # inches: a line of the list, the gap between its columns, the colour bar
GREY, HEADING = "#8a94a0", "#4a5563"


@dataclass(frozen=True)
class Pair:
    """A class, and another class that its images were mistaken for."""

    true: str
    predicted: str
    count: int
    share: float
    """Of the images of the true class, in [0, 1]."""


def most_confused(counts: Counts, classes: Sequence[str]) -> list[Pair]:
    """Return the up to 20 pairs with the largest counts; equal counts are in the order of the classes."""
    true, predicted = np.nonzero(counts)
    wrong = true != predicted
    true, predicted = true[wrong], predicted[wrong]
    found = counts[true, predicted]
    pairs = []
    for place in np.argsort(-found, kind="stable")[:LISTED]:
        row, column, count = true[place], predicted[place], int(found[place])
        pairs.append(Pair(classes[row], classes[column], count, count / int(counts[row].sum())))
    return pairs


def in_groups(counts: Counts, classes: Sequence[str], groups: Groups) -> tuple[Counts, list[str]]:
    """Sort counts and classes by group; without groups return them unchanged."""
    if not groups:
        return counts, list(classes)
    names = [name for members in groups.values() for name in members]
    places = {name: place for place, name in enumerate(classes)}
    order = [places[name] for name in names]
    return counts[np.ix_(order, order)], names


def plot_confusion(counts: Counts, classes: Sequence[str], title: str) -> Figure:
    """Plot a confusion matrix of counts (true class, predicted class) as percentages of each true class.

    For more than 20 classes the colours show rare mistakes, a list names the pairs that are confused most, and the
    classes of a known data set are sorted by group.
    """
    if len(classes) <= FEW:
        return _plot_few(counts, classes, title)
    return plot_many(counts, classes, groups_of(classes), title)


def _shares(counts: Counts) -> npt.NDArray[np.float64]:
    """Return the counts as percentages of each true class."""
    shares: npt.NDArray[np.float64] = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    return shares


def _plot_few(counts: Counts, classes: Sequence[str], title: str) -> Figure:
    names = [short(name, LONGEST) for name in classes]
    side = 2.5 + 0.55 * len(classes) + max(0, inches(names, 10) - 2)  # 2: as wide as most names of 24 letters
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    axes = figure.subplots()
    shares = _shares(counts)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=100)
    figure.colorbar(image, ax=axes, shrink=0.8, label="% of the true class")
    _label(axes, range(len(classes)), names, "medium", fitted(title, 0.6 * (side + 1), TITLE_SIZE))
    for (row, column), share in np.ndenumerate(shares):
        if share > 0.5:
            colour = "white" if share > 50 else "black"
            axes.text(column, row, f"{share:.0f}", ha="center", va="center", color=colour, fontsize="small")
    return figure


def plot_many(counts: Counts, classes: Sequence[str], groups: Groups, title: str) -> Figure:
    """Plot a confusion matrix of too many classes for numbers in the cells, with lines between groups of classes."""
    pairs = most_confused(counts, classes)
    counts, classes = in_groups(counts, classes, groups)
    side = min(max(0.13 * len(classes), 7), 24)  # inches, as all lengths here
    step = math.ceil(0.07 * len(classes) / side)  # above 342 classes there is no room for every name
    places = range(0, len(classes), step)
    size = min(54 * side * step / len(classes), 9)  # points: three quarters of the distance between two names
    names = [short(classes[place], LONGEST) for place in places]
    wrapped = {textwrap.fill(name, 20): len(members) for name, members in groups.items()}
    near = 0.5 + inches(names, size)
    far = near + side + (0.2 + inches("\n".join(wrapped).split("\n"), GROUP_SIZE) if groups else 0)
    columns = _columns(pairs)
    list_width = sum(inches(column, LIST_SIZE) + GAP for column in columns)
    width, height = far + GAP + max(list_width, BAR + GAP), near + side + 0.4

    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((near / width, near / height, side / width, side / height))
    image = axes.imshow(_shares(counts), cmap="Blues", norm=PowerNorm(EXPONENT, vmin=0, vmax=100))
    _label(axes, places, names, size, fitted(title, side, TITLE_SIZE))
    _draw_groups(axes, wrapped)
    panel = figure.add_axes((far / width, near / height, 1 - far / width, side / height))
    panel.set(xlim=(-GAP, width - far - GAP), ylim=(side, 0))  # inches
    panel.set_axis_off()
    _list(panel, columns)
    _draw_bar(panel, image, top=LINE * len(columns[0]) + 0.6)
    return figure


def _label(axes: Axes, places: Sequence[int], names: Sequence[str], size: float | str, title: str) -> None:
    axes.set_xticks(places, names, rotation=90, fontsize=size, parse_math=False)
    axes.set_yticks(places, names, fontsize=size, parse_math=False)
    axes.set(xlabel="predicted", ylabel="true")
    axes.set_title(title, fontsize=TITLE_SIZE, parse_math=False)


def _draw_groups(axes: Axes, groups: Mapping[str, int]) -> None:
    """Draw lines between groups, and the name of each group to the right of its rows."""
    start = -0.5
    for name, count in groups.items():
        if start > 0:
            axes.axhline(start, color=GREY, linewidth=0.6)
            axes.axvline(start, color=GREY, linewidth=0.6)
        axes.annotate(
            name, (1, start + count / 2), xycoords=axes.get_yaxis_transform(), xytext=(5, 0),
            textcoords="offset points", va="center", fontsize=GROUP_SIZE, annotation_clip=False, parse_math=False,
        )  # fmt: skip
        start += count


def _draw_bar(axes: Axes, image: AxesImage, top: float) -> None:
    """Draw the colour bar of an image on axes in inches."""
    bar = axes.inset_axes((0, top, BAR, 0.16), transform=axes.transData)
    axes.figure.colorbar(image, cax=bar, orientation="horizontal", ticks=TICKS)
    label = f"% of the true class; the scale is not linear\n(power {EXPONENT}), to show rare mistakes"
    bar.set_title(label, fontsize=LIST_SIZE, loc="left")


def _columns(pairs: Sequence[Pair]) -> list[list[str]]:
    """Return the pairs as the columns of a table with headings; one empty column if there are no pairs."""
    if not pairs:
        return [[]]
    names = [f"{short(pair.true, LONGEST)} \u2192 {short(pair.predicted, LONGEST)}" for pair in pairs]
    return [
        ["most confused: true \u2192 predicted", *names],
        ["images", *(f"{pair.count:,}" for pair in pairs)],
        ["of the true class", *(f"{100 * pair.share:.0f} %" for pair in pairs)],
    ]


def _list(axes: Axes, columns: Sequence[Sequence[str]]) -> None:
    """Draw a table in the upper left corner of axes in inches, its first column left-aligned, the others right."""
    right = -GAP
    for column in columns:
        left, right = right + GAP, right + GAP + inches(column, LIST_SIZE)
        first = column is columns[0]
        for line, text in enumerate(column):
            axes.text(
                left if first else right, LINE * (line + 0.5), text, ha="left" if first else "right", va="center",
                fontsize=LIST_SIZE, color="black" if line else HEADING, parse_math=False,
            )  # fmt: skip


def groups_of(classes: Collection[str]) -> Groups:
    """Return the superclasses of CIFAR-100 if these are its classes, in any order; else no groups."""
    return CIFAR100 if sorted(classes) == sorted(chain.from_iterable(CIFAR100.values())) else {}
