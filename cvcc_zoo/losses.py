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

import math
from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cvcc_zoo.kinds import is_number
from cvcc_zoo.registry import Spec, as_spec, check_options, pick

Reduction = Literal["mean", "none"]
Weights = Tensor | None


def cross_entropy(
    logits: Tensor,
    labels: Tensor,
    label_smoothing: float = 0.0,
    class_weights: Weights = None,
    *,
    reduction: Reduction = "mean",
) -> Tensor:
    """Return -log softmax(logits)[label]; `label_smoothing` moves that share of the target evenly to all classes."""
    losses = F.cross_entropy(logits, labels, label_smoothing=label_smoothing, reduction="none")
    return _weighted(losses, labels, class_weights, reduction)


def focal(
    logits: Tensor, labels: Tensor, gamma: float = 2.0, class_weights: Weights = None, *, reduction: Reduction = "mean"
) -> Tensor:
    """Return -(1 - p)^gamma log p with p = softmax(logits)[label]; with gamma 0 it is the cross-entropy.

    Lin et al. 2017, https://arxiv.org/abs/1708.02002, equation 4, with a softmax over the classes instead of a sigmoid
    for each. The terms of soft labels are weighted by their shares.
    """
    log_p = logits.log_softmax(1)
    # The gradient of a root at 0 is infinite, and that of `clamp` below its limit is 0.
    terms = (-log_p.expm1()).clamp(min=torch.finfo(log_p.dtype).tiny).pow(gamma) * -log_p
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
            "hinge and crammer_singer take one label for each image, not shares of classes; choose cross_entropy"
        )
    right = logits.gather(1, labels[:, None])
    return F.relu(logits - right + margin).scatter(1, labels[:, None], 0.0)


def squared_error(logits: Tensor, labels: Tensor, *, reduction: Reduction = "mean") -> Tensor:
    """Return the squared distance from the logits to the one-hot label, or to the soft label."""
    target = (labels if labels.is_floating_point() else F.one_hot(labels, logits.shape[1])).to(logits.dtype)
    return _reduce((logits - target).square().sum(1), reduction)


def _reduce(losses: Tensor, reduction: Reduction) -> Tensor:
    return losses if reduction == "none" else losses.mean()


def _weighted(losses: Tensor, labels: Tensor, class_weights: Weights, reduction: Reduction) -> Tensor:
    if class_weights is None:
        return _reduce(losses, reduction)
    weights = image_weights(labels, class_weights)
    losses = losses * weights
    return losses if reduction == "none" else losses.sum() / weights.sum()


def image_weights(labels: Tensor, class_weights: Tensor) -> Tensor:
    """Return the weight of each image (N,): that of its class, or the mean of those of its classes by their shares.

    `labels` are (N,) or soft, (N, num_classes); `class_weights` (num_classes,).
    """
    return (labels * class_weights).sum(1) if labels.is_floating_point() else class_weights[labels]


LOSSES: dict[str, Callable[..., Tensor]] = {
    f.__name__: f for f in (cross_entropy, focal, hinge, crammer_singer, squared_error)
}
SOFT = ("cross_entropy", "focal", "squared_error")
VALID: dict[str, tuple[Callable[[Any], bool], str]] = {
    "label_smoothing": (lambda value: 0 <= value < 1, "in [0, 1)"),
    "gamma": (lambda value: 0 <= value < math.inf, "at least 0"),
    "margin": (lambda value: 0 < value < math.inf, "above 0"),
    "power": (lambda value: value in (1, 2), "1 or 2"),
    "l2": (lambda value: 0 <= value < math.inf, "at least 0"),
}
QUOTES = "; quote names with commas, brackets, colons or quotes, and write a blank before the number: '{\"a, b\": 2}'"


class Loss:
    """A loss with its options, and the penalty on the weights.

    `class_weights` is None, or what was chosen: a number for each class, or else what must become such numbers first.
    """

    def __init__(self, function: Callable[..., Tensor], options: Mapping[str, Any], l2: float) -> None:
        self.function, self.options, self.l2 = function, dict(options), l2
        self.class_weights = self.options.pop("class_weights", None)
        self._weights: Tensor | None = None  # the same as a tensor, on the device of the last batch

    def __call__(self, logits: Tensor, labels: Tensor, *, reduction: Reduction = "mean") -> Tensor:
        """Return the mean over the images, or with `reduction="none"` the loss of each (N,); without the penalty."""
        options = self.options
        if self.class_weights is not None:
            options = {**options, "class_weights": self._weights_on(logits.device).to(logits.dtype)}
        return self.function(logits, labels, reduction=reduction, **options)

    def weights_of(self, labels: Tensor) -> Tensor | None:
        """Return the weight of each image (N,) in the mean loss; None without class weights."""
        return None if self.class_weights is None else image_weights(labels, self._weights_on(labels.device))

    def scaled(self, losses: Tensor, labels: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the losses (N,) and weights of images, both times a power of 2 that brings the largest weight near 1.

        Their quotient, the mean loss, stays the same, and is not lost when numbers are rounded to a fixed unit.
        """
        weights = self.weights_of(labels)
        if weights is None:
            return losses, None
        scale = 2.0 ** -math.floor(math.log2(max(self.class_weights)))
        return losses * scale, weights * scale

    def _weights_on(self, device: torch.device) -> Tensor:
        """Return the class weights (num_classes,); copied once, because copies to a GPU would delay every step."""
        if not isinstance(self.class_weights, list | tuple):
            raise ValueError(
                f"class_weights={self.class_weights!r} become numbers when training with an ImageDataModule starts; "
                "otherwise give a list of numbers, in the order of the classes"
            )
        if self._weights is None or self._weights.device != device:
            self._weights = torch.tensor(self.class_weights, dtype=torch.float32, device=device)
        return self._weights

    def penalty(self, model: nn.Module) -> Tensor:
        """Return `l2` times the sum of squares of all trained weights, except biases and norms."""
        squares = [p.square().sum() for p in model.parameters() if p.requires_grad and p.ndim > 1]
        return self.l2 * torch.stack(squares).sum() if squares else torch.zeros(())


def loss_spec(spec: str | Mapping[str, Any]) -> Spec:
    """Return a loss as `{"name": ..., option: value}`. Raises ValueError, with the nearest names, for unknown names."""
    options = as_spec("loss", spec)
    if isinstance(weights := options.get("class_weights"), Mapping):  # YAML reads the name of a class 7 as a number
        options["class_weights"] = {str(name): weight for name, weight in weights.items()}
    return {**options, "name": pick("loss", options["name"], LOSSES)}


def takes_soft_labels(spec: str | Mapping[str, Any]) -> bool:
    """Return True if the loss takes soft labels, which MixUp and CutMix return."""
    return loss_spec(spec)["name"] in SOFT


def make_loss(spec: str | Mapping[str, Any], num_classes: int | None = None) -> Loss:
    """Make a loss from its name or from `{"name": ..., option: value}`. Raises ValueError with the nearest names.

    With `num_classes`, a list of class weights must have this length.
    """
    options = loss_spec(spec)
    name, l2 = options.pop("name"), options.pop("l2", 0.0)
    check_options(f"loss {name}", LOSSES[name], options, skip=("logits", "labels", "reduction"))
    check_class_weights(options.get("class_weights"), num_classes)
    for option, value in {**options, "l2": l2}.items():
        valid, words = VALID.get(option, (None, ""))
        if valid is not None and not (is_number(value) and valid(value)):
            raise ValueError(f"loss {name}: {option} must be {words}, not {value!r}")
    return Loss(LOSSES[name], options, l2)


def check_class_weights(weights: Any, num_classes: int | None) -> None:
    """Raise ValueError unless these are None, "balanced", {name: number}, or `num_classes` numbers, all above 0."""
    if weights is None or weights == "balanced":
        return
    if not isinstance(weights, Mapping | list | tuple):
        raise ValueError(
            f"class_weights are balanced, a list of numbers in the order of the classes, or {{name: number}}, not "
            f"{weights!r}{QUOTES if isinstance(weights, str) else ''}"
        )
    for weight in weights.values() if isinstance(weights, Mapping) else weights:
        if not (is_number(weight) and 0 < weight < math.inf):
            raise ValueError(
                f"class_weights must be numbers above 0, not {weight!r}{QUOTES if weight in (None, 'None') else ''}"
            )
    if not isinstance(weights, Mapping) and num_classes not in (None, len(weights)):
        raise ValueError(
            f"class_weights has {len(weights)} numbers, but there are {num_classes} classes; give a number for each, "
            "or some by name: {name: number}"
        )
