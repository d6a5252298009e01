"""The reliability diagram: the accuracy of predictions over their confidence, and how many predictions there are."""

import numpy as np
import numpy.typing as npt

from cvcc_zoo.plots.figure import Figure

COLOUR, MEAN = "tab:blue", "tab:orange"


def plot_calibration(
    images: npt.NDArray[np.int64], accuracy: npt.NDArray[np.float64], confidence: npt.NDArray[np.float64], title: str
) -> Figure:
    """Draw a bar for each of equally wide bins of confidence, which is the probability of the predicted class.

    All arrays are (bins,): the number of images, the accuracy and the mean confidence, fractions in [0, 1] that are
    NaN where there are no images. A bar that ends below its mean confidence stands for overconfident predictions.
    """
    bins, filled = len(images), images > 0
    edges = np.arange(bins) / bins
    right = np.where(filled, accuracy, 0.0)
    error = float((np.abs(accuracy - confidence)[filled] * images[filled]).sum() / max(1, images.sum()))
    figure = Figure(figsize=(5.2, 5.8), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    above.bar(edges, right, 1 / bins, align="edge", color=COLOUR, edgecolor="white", label="accuracy")
    ends = edges[filled], edges[filled] + 1 / bins
    above.hlines(confidence[filled], *ends, color=MEAN, linewidth=2.5, label="mean confidence")
    above.plot((0, 1), (0, 1), color="gray", linestyle="--", linewidth=1, label="perfect calibration")
    above.set(ylabel="accuracy", xlim=(0, 1), ylim=(0, 1))
    above.set_title(f"calibration error {error:.4f} ({bins} bins)", fontsize=10)
    above.legend(loc="best", fontsize=8)
    below.bar(edges, images, 1 / bins, align="edge", color=COLOUR, edgecolor="white")
    for edge, count in zip(edges[filled], images[filled], strict=True):
        text = f"{count:,}" if count < 10_000 else f"{count / 1000:.0f}k"
        below.text(edge + 0.5 / bins, count, text, ha="center", va="bottom", fontsize=6)
    below.set(xlabel="confidence: the probability of the predicted class", ylabel="images")
    below.margins(y=0.2)
    for axes in (above, below):
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title, fontsize=11, parse_math=False)
    return figure
