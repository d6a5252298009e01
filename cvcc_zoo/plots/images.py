"""Sheets of images."""

from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes

Pictures = npt.NDArray[np.floating[Any]]


def plot_images(axes: Axes, images: Pictures, title: str = "") -> None:
    """Show rows and columns of images (R, C, H, W, 1 or 3) in [0, 1] as one sheet with gaps between them."""
    rows, columns, height, width, channels = images.shape
    gap = max(1, height // 16)
    sheet = np.ones((rows * (height + gap) - gap, columns * (width + gap) - gap, channels))
    for row in range(rows):
        for column in range(columns):
            top, left = row * (height + gap), column * (width + gap)
            sheet[top : top + height, left : left + width] = images[row, column]
    axes.imshow(sheet.repeat(3 // channels, axis=2), interpolation="nearest")
    axes.set_title(title)
    axes.set_axis_off()


def stretch(images: Pictures) -> Pictures:
    """Scale each image (..., H, W, C) so that zero is middle grey and its largest absolute value black or white."""
    largest = np.abs(images).max(axis=(-3, -2, -1), keepdims=True)
    return 0.5 + 0.5 * images / np.where(largest > 0, largest, 1)
