"""Losses by name: logits (N, num_classes) and labels (N,) to a scalar, the mean over the batch.

With `reduction="none"` they give the loss of each image (N,).

`cross_entropy` and `squared_error` also take soft labels (N, num_classes), the shares of the classes of a mixed image.

`cross_entropy`   softmax and negative log-likelihood, with label smoothing
`hinge`           the multi-class SVM of Weston & Watkins: sum over wrong classes of max(0, s_j - s_y + margin)^power
`squared_error`   least squares against the one-hot label: sum over the classes of (s_j - [j = y])^2

torch's `multi_margin_loss` and `mse_loss` divide by the number of classes too; these are the course's sums.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal

import torch.nn.functional as F
from torch import Tensor

from cvcc_zoo.registry import as_spec, check_options, unknown

Loss = Callable[..., Tensor]
Reduction = Literal["mean", "none"]


def cross_entropy(
    logits: Tensor, labels: Tensor, label_smoothing: float = 0.0, *, reduction: Reduction = "mean"
) -> Tensor:
    """-log softmax(logits)[label]; `label_smoothing` moves that share of the target to all classes evenly."""
    return F.cross_entropy(logits, labels, label_smoothing=label_smoothing, reduction=reduction)


def hinge(
    logits: Tensor, labels: Tensor, margin: float = 1.0, power: int = 1, *, reduction: Reduction = "mean"
) -> Tensor:
    """Sum over the wrong classes of max(0, s_j - s_y + margin)^power; `power` is 1 or 2."""
    if labels.is_floating_point():
        raise ValueError("hinge takes one label for each image, not shares of classes; choose cross_entropy")
    right = logits.gather(1, labels[:, None])
    violation = F.relu(logits - right + margin).scatter(1, labels[:, None], 0.0)
    return _reduce(violation.pow(power).sum(1), reduction)


def squared_error(logits: Tensor, labels: Tensor, *, reduction: Reduction = "mean") -> Tensor:
    """Squared distance from the logits to the one-hot label, or to the soft label."""
    target = (labels if labels.is_floating_point() else F.one_hot(labels, logits.shape[1])).to(logits.dtype)
    return _reduce((logits - target).square().sum(1), reduction)


def _reduce(losses: Tensor, reduction: Reduction) -> Tensor:
    return losses if reduction == "none" else losses.mean()


LOSSES: dict[str, Callable[..., Tensor]] = {f.__name__: f for f in (cross_entropy, hinge, squared_error)}

SOFT = ("cross_entropy", "squared_error")


def takes_soft_labels(spec: str | Mapping[str, Any]) -> bool:
    """Whether the loss takes the shares of the classes that MixUp and CutMix give."""
    return as_spec("loss", spec)["name"] in SOFT


def make_loss(spec: str | Mapping[str, Any]) -> Loss:
    """A loss from its name or from `{"name": ..., option: value}`. Raises ValueError with the nearest names."""
    options = as_spec("loss", spec)
    name = options.pop("name")
    if name not in LOSSES:
        raise unknown("loss", name, LOSSES)
    check_options(f"loss {name}", LOSSES[name], options, skip=("logits", "labels", "reduction"))
    return partial(LOSSES[name], **options)


def check_labels(labels: Tensor, num_classes: int) -> None:
    """Raise ValueError for labels outside of 0 .. num_classes - 1, or soft labels not of shape (N, num_classes).

    On a GPU this waits for the labels.
    """
    if labels.is_floating_point():
        if labels.ndim != 2 or labels.shape[1] != num_classes:
            raise ValueError(f"soft labels must have the shape (N, {num_classes}), got {tuple(labels.shape)}")
        return
    if not len(labels):
        return
    low, high = (int(value) for value in labels.aminmax())
    if low < 0 or high >= num_classes:
        raise ValueError(
            f"labels must be in 0 .. {num_classes - 1} for {num_classes} classes, got {low} .. {high}; "
            "number the classes from 0, or build the model with more classes"
        )
