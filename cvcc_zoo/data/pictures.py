"""Figures of whitening and augmentation, and images as arrays and PNG."""

import base64
import io
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from matplotlib.axes import Axes
from PIL import Image
from torch import Tensor

from cvcc_zoo.data.decorrelation import PRINCIPAL
from cvcc_zoo.plots import Pictures, plot_images, stretch
from cvcc_zoo.plots.figure import Figure
from cvcc_zoo.plots.scores import gap_between

WINDOW = 11  # pixels of a filter that are shown, as the others are nearly zero


class Decorrelating(Protocol):
    """The part of a Whitening, whose file imports this one, that a figure shows."""

    method: str
    scope: str
    eps: float
    in_channels: int
    image_size: int
    decorrelates: bool
    mean: Tensor
    matrix: Tensor
    spectrum: Tensor

    def forward(self, images: Tensor) -> Tensor:
        """Return the whitened images (N, C, H, W)."""


def pixels(images: Tensor) -> Pictures:
    """Convert images (..., C, H, W) to a numpy array (..., H, W, C) of floats; uint8 0..255 becomes [0, 1].

    Raises ValueError unless there are 1 or 3 channels.
    """
    if images.shape[-3] not in (1, 3):
        raise ValueError(f"images with 1 or 3 channels can be drawn, and these have {images.shape[-3]}")
    x = images.float() / 255 if images.dtype == torch.uint8 else images.float()
    return x.detach().cpu().movedim(-3, -1).numpy()


def as_png(image: Pictures) -> str:
    """Encode an image (H, W, C) or (H, W) in [0, 1] as a PNG in a data URI."""
    file = io.BytesIO()
    Image.fromarray((np.squeeze(image) * 255).round().astype(np.uint8)).save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def plot_augmentations(images: Tensor, drawn: Sequence[Tensor], title: str) -> Figure:
    """Plot images (N, C, H, W) in the first column, and beside each its augmentations, one of each of the `drawn`."""
    draws = len(drawn)
    floats = [each if each.is_floating_point() else each / 255 for each in drawn]
    augmented = torch.stack(floats, 1)  # (N, draws, C, H, W)
    figure = Figure(figsize=(1.1 * (draws + 1) + 0.3, 1.1 * len(images) + 0.7), layout="constrained")
    height, width = images.shape[-2:]
    gap = gap_between(height)
    sheets = [gap + columns * (width + gap) for columns in (1, draws)]  # pixels wide, drawn at one scale
    left, right = figure.subplots(1, 2, width_ratios=sheets)
    plot_images(left, pixels(images[:, None]), "original")
    plot_images(right, pixels(augmented).clip(0, 1), f"{draws} draws of each")
    figure.suptitle(title)
    return figure


def plot_whitening(whitening: Decorrelating, images: Tensor, title: str) -> Figure:
    """Plot images (N, C, H, W) before and after whitening, the eigenvalues of the covariance, and some filters.

    Each whitened image and each filter is stretched around middle grey on its own.
    """
    decorrelates = whitening.decorrelates
    places = "BB;AA;SF" if decorrelates else "B;A"  # before, after, spectrum, filters
    heights = [1.5, 1.5, 4.0][: 3 if decorrelates else 2]
    figure = Figure(figsize=(12, 1 + sum(heights)), layout="constrained")
    axes = figure.subplot_mosaic(places, height_ratios=heights)
    with torch.no_grad():
        x = whitening.forward(images.to(whitening.mean.device))
    plot_images(axes["B"], pixels(images[None]), "before")
    plot_images(axes["A"], stretch(pixels(x[None])), "after")
    figure.suptitle(title)
    if not decorrelates:
        return figure
    _plot_spectrum(axes["S"], whitening)
    if whitening.scope == "channel_values":
        matrix = axes["F"].imshow(whitening.matrix[0].cpu().numpy(), cmap="coolwarm")
        figure.colorbar(matrix, ax=axes["F"], shrink=0.8)
        channels = range(whitening.in_channels)
        axes["F"].set(xticks=channels, yticks=range(len(whitening.matrix[0])))
        axes["F"].set(title="whitening matrix", xlabel="channel in", ylabel="channel out")
    else:
        filters, caption = _filters(whitening)
        plot_images(axes["F"], stretch(pixels(filters)), caption)
    return figure


def _plot_spectrum(axes: Axes, whitening: Decorrelating) -> None:
    for number, values in enumerate(whitening.spectrum.cpu()):
        label = f"channel {number}" if len(whitening.spectrum) > 1 else None
        marker = "o" if len(values) < 50 else ""
        if len(values) <= 4:
            axes.set_xticks(range(1, len(values) + 1))
        axes.semilogy(range(1, len(values) + 1), values.clamp(min=1e-12).numpy(), marker=marker, label=label)
    if (kept := whitening.matrix.shape[1]) < whitening.spectrum.shape[1]:
        axes.axvline(kept + 0.5, color="tab:gray", linestyle=":", label=f"kept: {kept}")
    if whitening.eps > 0:
        axes.axhline(whitening.eps, color="tab:red", linestyle="--", label=f"eps = {whitening.eps:g}")
    axes.set(title="variance of each direction", xlabel="direction", ylabel="eigenvalue")
    axes.grid(alpha=0.3)
    if axes.get_legend_handles_labels()[0]:
        axes.legend()


def _filters(whitening: Decorrelating) -> tuple[Tensor, str]:
    """Return rows of the whitening matrices as images (R, K, C, H, W), and a caption.

    These are the first components (for `pca_cor` those of standardized pixels) or, for a method whose filters belong to
    pixels, the filters of four pixels in each channel, cropped.
    """
    size, matrix = whitening.image_size, whitening.matrix.cpu()
    channels = whitening.in_channels // len(matrix)  # of a filter
    if whitening.method in PRINCIPAL:
        if whitening.method == "pca_cor":  # without its division by the deviations, which are tiny at some pixels
            variances = whitening.spectrum.cpu()[:, : matrix.shape[1], None] + whitening.eps
            matrix = matrix * (matrix.square() * variances).sum(1, keepdim=True).clamp(min=1e-12).rsqrt()
        across = min(8, matrix.shape[1])
        down = min(3, matrix.shape[1] // across) if len(matrix) == 1 else 1
        first = matrix[:, : across * down].reshape(-1, across, channels, size, size)
        return first, f"first {across * down} components" + (" of each channel" if len(matrix) > 1 else "")
    radius = min(WINDOW, size - 1) // 2
    rows = []
    for channel in range(whitening.in_channels):
        for place in torch.linspace(radius, size - 1 - radius, 4).long().tolist():
            pixel = (channel % channels * size + place) * size + place
            image = matrix[channel // channels][pixel].view(channels, size, size)
            rows.append(image[:, place - radius : place + radius + 1, place - radius : place + radius + 1])
    shape = (whitening.in_channels, 4, *rows[0].shape)
    return torch.stack(rows).view(shape), f"filters of 4 pixels in each channel ({2 * radius + 1} pixels wide)"
