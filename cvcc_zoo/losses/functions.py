"""Losses by name: logits (N, num_classes) and labels (N,) to a scalar, the mean over the batch.

With `reduction="none"` they return the loss of each image (N,). `cross_entropy`, `focal` and `squared_error` also take
soft labels (N, num_classes), the shares of the classes in a mixed image.

`cross_entropy`   softmax and negative log-likelihood, with label smoothing
`focal`           the same, with less weight on images whose class is probable already: times (1 - p)^gamma
`hinge`           the multi-class SVM of Weston & Watkins: sum over wrong classes of max(0, s_j - s_y + margin)^power
`crammer_singer`  the SVM of Crammer & Singer: the largest of these terms instead of their sum
`squared_error`   least squares against the one-hot label: sum over the classes of (s_j - [j = y])^2

torch's `multi_margin_loss` and `mse_loss` also divide by the number of classes; these are sums, as in the course.

`cross_entropy` and `focal` take `class_weights`, one number for each class: the loss of an image is multiplied by the
weight of its class, and the mean is the weighted one. The weight of a mixed image is the mean of those of its classes,
by their shares. torch's `cross_entropy` weights each term of a smoothed or soft label by the class of the term instead:
with weights of 1 and 10, `label_smoothing` 0.2 makes the rare class the best prediction for an image of the common one,
0.9 against 0.1 * 10. The options of a model may name the weights: "balanced", or {name of a class: weight}
(`resolve_class_weights`).

Each takes `l2`, the course's lambda: training adds lambda ||W||^2 over all weights except biases and norms. For SGD
this equals torch's `weight_decay` of 2 lambda.
"""

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from cvcc_zoo.internals.torch import is_recorded

Reduction = Literal["mean", "none"]
Weights = Tensor | None
SUM = 1e-3  # how far the shares in a soft label may add up from 1; coarser types round more


def cross_entropy(
    logits: Tensor,
    labels: Tensor,
    label_smoothing: float = 0.0,
    class_weights: Weights = None,
    *,
    reduction: Reduction = "mean",
) -> Tensor:
    """Return -log softmax(logits)[label]; `label_smoothing` moves that share of the target evenly to all classes."""
    _check(logits, labels)
    losses = F.cross_entropy(logits, labels, label_smoothing=label_smoothing, reduction="none")
    return _weighted(losses, labels, class_weights, reduction)


def focal(
    logits: Tensor, labels: Tensor, gamma: float = 2.0, class_weights: Weights = None, *, reduction: Reduction = "mean"
) -> Tensor:
    """Return -(1 - p)^gamma log p with p = softmax(logits)[label]; with gamma 0 it is the cross-entropy.

    Lin et al. 2017, https://arxiv.org/abs/1708.02002, equation 4, with a softmax over the classes instead of a sigmoid
    for each. The terms of soft labels are weighted by their shares.
    """
    _check(logits, labels)
    log_p = logits.log_softmax(1)
    rest = -log_p.expm1()  # 1 - p, exact also where p is almost 1
    # For gamma below 1, rest^gamma has an infinite gradient at 0; `clamp` gives none below its limit.
    terms = rest.clamp(min=torch.finfo(log_p.dtype).tiny).pow(gamma) * -log_p
    soft = labels.is_floating_point()
    losses = (terms * labels).sum(1) if soft else terms.gather(1, labels[:, None]).squeeze(1)
    return _weighted(losses, labels, class_weights, reduction)


def hinge(
    logits: Tensor, labels: Tensor, margin: float = 1.0, power: int = 1, *, reduction: Reduction = "mean"
) -> Tensor:
    """Return the sum over the wrong classes of max(0, s_j - s_y + margin)^power; `power` is 1 or 2.

    Weston & Watkins 1999, https://www.esann.org/sites/default/files/proceedings/legacy/es1999-461.pdf
    """
    return _reduce(_violations(logits, labels, margin).pow(power).sum(1), reduction)


def crammer_singer(
    logits: Tensor, labels: Tensor, margin: float = 1.0, power: int = 1, *, reduction: Reduction = "mean"
) -> Tensor:
    """Return the largest max(0, s_j - s_y + margin)^power of the wrong classes; `power` is 1 or 2.

    Crammer & Singer 2001, https://www.jmlr.org/papers/v2/crammer01a.html
    """
    return _reduce(_violations(logits, labels, margin).pow(power).amax(1), reduction)


def _violations(logits: Tensor, labels: Tensor, margin: float) -> Tensor:
    if labels.is_floating_point():
        raise ValueError(
            f"hinge and crammer_singer take one label for each image, not shares of classes; choose {' or '.join(SOFT)}"
        )
    _check(logits, labels)
    right = logits.gather(1, labels[:, None])
    return F.relu(logits - right + margin).scatter(1, labels[:, None], 0.0)


def squared_error(logits: Tensor, labels: Tensor, *, reduction: Reduction = "mean") -> Tensor:
    """Return the squared distance from the logits to the one-hot label, or to the soft label."""
    _check(logits, labels)
    target = (labels if labels.is_floating_point() else F.one_hot(labels, logits.shape[1])).to(logits.dtype)
    return _reduce((logits - target).square().sum(1), reduction)


def _check(logits: Tensor, labels: Tensor) -> None:
    """Raise ValueError for labels of wrong shapes or, on a CPU, values: from a GPU it would have to wait for them."""
    if logits.ndim != 2 or len(labels) != len(logits):
        raise ValueError(
            "a loss takes logits (N, num_classes) and labels (N,) or shares of classes (N, num_classes), got "
            f"{tuple(logits.shape)} and {tuple(labels.shape)}"
        )
    readable = labels.device.type == "cpu" and not (torch.compiler.is_compiling() or is_recorded())
    check_labels(labels, logits.shape[1], values=readable)


def check_labels(labels: Tensor, num_classes: int, *, values: bool = True) -> None:
    """Raise ValueError for labels outside 0 .. num_classes - 1, or soft labels not of shape (N, num_classes).

    On a GPU this waits for the labels, unless their `values` are not checked.
    """
    shape, column = tuple(labels.shape), labels.ndim == 2 and labels.shape[1] == 1
    if labels.is_floating_point():
        if labels.ndim != 2 or labels.shape[1] != num_classes:
            numbers = f"; if they are numbers of classes, give labels{'[:, 0]' * column}.long()"
            hint = numbers if labels.ndim == 1 or column else ""
            raise ValueError(f"soft labels must have the shape (N, {num_classes}), got {shape}{hint}")
        if values and len(labels):
            _check_shares(labels)
        return
    if labels.ndim != 1:
        one = "one number for each image otherwise; several labels for one image are not supported"
        hint = "labels[:, 0]" if column else f"labels.argmax(1) if they are one-hot, {one}"
        raise ValueError(f"labels must have the shape (N,), got {shape}; give {hint}")
    if not (values and len(labels)):
        return
    try:
        low, high = (int(value) for value in labels.aminmax())
    except RuntimeError:  # inside torch.func.vmap, or traced
        return
    if low < 0 or high >= num_classes:
        raise ValueError(
            f"labels must be in 0 .. {num_classes - 1} for {num_classes} classes, got {low} .. {high}; "
            "number the classes from 0, or build the model with more classes"
        )


def _check_shares(labels: Tensor) -> None:
    """Raise ValueError for soft labels (N, num_classes) that are not shares of the classes."""
    limit = max(SUM, torch.finfo(labels.dtype).eps)
    try:
        are_shares = bool(((labels >= 0).all(1) & ((labels.float().sum(1) - 1).abs() <= limit)).all())
    except RuntimeError:  # inside torch.func.vmap, or traced
        return
    if not are_shares:
        raise ValueError(
            "soft labels are shares of the classes, which add up to 1 in each row; several labels for an image "
            "(multi-label) are not supported"
        )


def _reduce(losses: Tensor, reduction: Reduction) -> Tensor:
    if reduction not in ("mean", "none"):
        raise ValueError(f"reduction must be mean or none, not {reduction!r}; sum what reduction='none' returns")
    return losses if reduction == "none" else losses.mean()


def _weighted(losses: Tensor, labels: Tensor, class_weights: Weights, reduction: Reduction) -> Tensor:
    if class_weights is None:
        return _reduce(losses, reduction)
    weights = image_weights(labels, class_weights)
    losses = losses * weights
    return losses.sum() / weights.sum() if reduction == "mean" else _reduce(losses, reduction)


def image_weights(labels: Tensor, class_weights: Tensor) -> Tensor:
    """Return the weight of each image (N,): that of its class, or the mean of those of its classes by their shares.

    `labels` are (N,) or soft, (N, num_classes); `class_weights` (num_classes,).
    """
    return (labels * class_weights).sum(1) if labels.is_floating_point() else class_weights[labels]


LOSSES: dict[str, Callable[..., Tensor]] = {
    f.__name__: f for f in (cross_entropy, focal, hinge, crammer_singer, squared_error)
}
SOFT = ("cross_entropy", "focal", "squared_error")
