"""Quality of predictions beyond their accuracy: F1, balanced accuracy, log loss, Brier score, calibration error.

    p = softmax(logits), k = the label, and a class c has tp images that are rightly predicted as c
    precision of c         tp / images that are predicted as c
    recall of c            tp / images of c
    F1 of c                2 tp / (images of c + images predicted as c); macro F1 is the mean over the classes
    balanced accuracy      mean recall of the classes that have images
    log loss               mean of -ln p_k, in nats
    Brier score            mean of sum_c (p_c - [c = k])^2, in [0, 2]: Brier 1950, https://doi.org/fdp6dk
    calibration error      mean over images of |accuracy - confidence| of their bin, with 15 equally wide bins of the
                           highest probability: Guo et al. 2017, https://arxiv.org/abs/1706.04599, equation 3

A class without images and predictions has no F1 and does not enter macro F1, as in scikit-learn.
"""

import math
from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor
from torchmetrics.metric import CompositionalMetric

from cvcc_zoo.classifier.means import EXACT, UNIT, Counting, in_units

BINS = 15  # of confidence
CHUNK = 4096  # images whose probabilities are in memory at the same time
MEANS = ("f1", "balanced_accuracy", "log_loss", "brier_score", "calibration_error")
"""The numbers over all classes; `f1` is macro F1."""


class Quality(Counting):
    """Count predictions batch by batch, and compute the numbers above from the counts.

    Counts are int64, and sums float64 of whole units as in ImageMean: the result has the same bits in any order of the
    images and on any number of processes, whatever dtype the model is cast to. Memory grows with the number of
    classes, not with that of the images. Nothing waits for a GPU.
    """

    classes: Tensor  # int64 (3, num_classes): images of each class, images predicted as it, and both
    bins: Tensor  # int64 (2, BINS): images in each bin of confidence, and those of them that are right
    confidence: Tensor  # (BINS,) sum of the confidences in units
    losses: Tensor  # (2,) sums of log loss and Brier score in units

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        for name, shape in (("classes", (3, num_classes)), ("bins", (2, BINS))):
            self.add_state(name, torch.zeros(shape, dtype=torch.int64), dist_reduce_fx="sum")
        for name, count in (("confidence", BINS), ("losses", 2)):
            self.add_state(name, torch.zeros(count, dtype=EXACT), dist_reduce_fx="sum")

    def update(self, logits: Tensor, labels: Tensor) -> None:
        """Add a batch of logits (N, num_classes) and labels (N,)."""
        predicted = logits.argmax(1)
        right, ones = (predicted == labels).long(), torch.ones_like(labels)
        for row, (index, added) in enumerate(((labels, ones), (predicted, ones), (labels, right))):
            self.classes[row].index_add_(0, index, added)
        logs = logits.to(EXACT).log_softmax(1)
        shares, own = logs.exp(), logs.gather(1, labels[:, None])[:, 0]
        brier = shares.square().sum(1) - 2 * own.exp() + 1
        self.losses += torch.stack((in_units(-own).sum(), in_units(brier).sum()))
        confidence = shares.amax(1)
        place = (confidence.nan_to_num() * BINS).long().clamp(max=BINS - 1)
        self.bins.index_add_(1, place, torch.stack((ones, right)))
        self.confidence.index_add_(0, place, in_units(confidence))

    def compute(self) -> dict[str, Tensor]:
        """Return MEANS, and for each class `precision`, `recall`, `class_f1` and `support` (its number of images).

        And of each bin `bin_images`, `bin_accuracy` and `bin_confidence`. Numbers that are not defined are NaN.
        """
        support, predicted, right = self.classes
        images, accurate = self.bins
        recall, class_f1 = right.to(EXACT) / support, 2 * right.to(EXACT) / (support + predicted)
        confidence, total = self.confidence * UNIT, images.sum()
        log_loss, brier_score = self.losses * UNIT / total
        return {
            "f1": class_f1.nanmean(),
            "balanced_accuracy": recall.nanmean(),
            "log_loss": log_loss,
            "brier_score": brier_score,
            "calibration_error": (accurate - confidence).abs().sum() / total,
            "precision": right.to(EXACT) / predicted,
            "recall": recall,
            "class_f1": class_f1,
            "support": support,
            "bin_images": images,
            "bin_accuracy": accurate.to(EXACT) / images,
            "bin_confidence": confidence / images,
        }


class Part(CompositionalMetric):
    """One of the MEANS as a metric of its own, because Lightning logs one number at a time."""

    def __init__(self, whole: Quality, name: str) -> None:
        super().__init__(itemgetter(name), whole, None)
        self.name = name

    def __repr__(self) -> str:
        return f"Part({self.name})"


def quality_of(logits: Tensor | npt.NDArray[Any], labels: Tensor | npt.NDArray[Any]) -> dict[str, Tensor]:
    """Return what `Quality` computes from the logits (N, num_classes) and labels (N,) of all images."""
    logits, labels = torch.as_tensor(logits), torch.as_tensor(labels).long()
    found = Quality(logits.shape[1]).to(logits.device)
    for start in range(0, len(labels), CHUNK):
        found.update(logits[start : start + CHUNK], labels[start : start + CHUNK])
    computed: dict[str, Tensor] = found.compute()
    return computed


def bins_of(found: Mapping[str, Tensor]) -> tuple[npt.NDArray[Any], ...]:
    """Return the number of images, the accuracy and the mean confidence of each bin, (BINS,), from `Quality`."""
    return tuple(found[f"bin_{name}"].cpu().numpy() for name in ("images", "accuracy", "confidence"))


def plain_quality(found: Mapping[str, Tensor], names: Sequence[str]) -> dict[str, Any]:
    """Return what `Quality` computed as plain data: MEANS, and `per_class` by the names of the classes.

    Numbers are rounded to six digits; those that are not defined are None.
    """
    columns = [_numbers(found[name]) for name in ("precision", "recall", "class_f1")]
    rows = zip(names, *columns, found["support"].tolist(), strict=True)
    return {
        **{name: _numbers(found[name][None])[0] for name in MEANS},
        "per_class": {
            name: {"precision": precision, "recall": recall, "f1": f1, "support": support}
            for name, precision, recall, f1, support in rows
        },
    }


def _numbers(values: Tensor) -> list[float | None]:
    return [round(value, 6) if math.isfinite(value) else None for value in values.tolist()]
