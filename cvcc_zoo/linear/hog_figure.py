"""Figures of HOG features."""

import math

import numpy as np
import torch
from matplotlib.collections import LineCollection
from torch import Tensor

from cvcc_zoo.data.pictures import pixels
from cvcc_zoo.linear.hog import HOG
from cvcc_zoo.plots.figure import Figure


def plot_hog(hog: HOG, images: Tensor, title: str) -> Figure:
    """Draw images (N, C, H, W) in a row, and below each a star for every cell of its histograms.

    Edges are drawn as in the image, at a right angle to their gradient, at the centre of their bin. Brightness is the
    square root of the votes, scaled for each image.
    """
    histograms = hog.histograms(images)  # (N, down, across, orientations)
    figure = Figure(figsize=(1.5 * len(images) + 0.3, 3.6), layout="constrained")
    rows = figure.subplots(2, len(images), squeeze=False)
    shown = pixels(images)
    angles = [math.pi * (number + 0.5) / hog.orientations + math.pi / 2 for number in range(hog.orientations)]
    ends = hog.cell / 2 * torch.tensor([[math.cos(angle), math.sin(angle)] for angle in angles])
    for column, (image, votes) in enumerate(zip(shown, histograms, strict=True)):
        top, below = rows[:, column]
        top.imshow(image.repeat(3 // image.shape[-1], axis=-1))
        down, across = (torch.arange(side) * hog.cell + (hog.cell - 1) / 2 for side in votes.shape[:2])
        centres = torch.cartesian_prod(down, across).flip(1)[:, None]  # (cells, 1, 2)
        lines = torch.stack([centres - ends, centres + ends], -2).flatten(0, 1)  # (cells and bins, 2, 2)
        strength = (votes / votes.max().clamp(min=1e-12)).sqrt().flatten().numpy()
        order = np.argsort(strength)  # the strongest on top
        below.add_collection(
            LineCollection(list(lines.numpy()[order]), array=strength[order], cmap="gray", linewidths=1.2)
        )
        height, width = images.shape[2:]
        below.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5), aspect="equal", facecolor="black")
        top.set_axis_off()
        below.set(xticks=[], yticks=[])
    figure.suptitle(title)
    return figure
