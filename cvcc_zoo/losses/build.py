"""Build a loss from a name and options: `{"name": "hinge", "margin": 1.0, "l2": 0.001}`."""

import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from cvcc_zoo.kinds import check_kinds, is_number
from cvcc_zoo.losses.functions import LOSSES, SOFT, Reduction, image_weights
from cvcc_zoo.losses.own import OwnLoss, own_takes_soft_labels
from cvcc_zoo.registry import Spec, as_spec, as_typed, check_options, pick

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

    def find(self) -> None:
        """Follow the import path of a loss of one's own. Raises ValueError if it leads to no loss with such options."""
        if isinstance(self.function, OwnLoss):
            self.function.find()

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


class UnknownLoss:
    """The loss of a file that this version does not know: it is an error only where the loss is needed."""

    def __init__(self, error: ValueError) -> None:
        self.error = ValueError(
            f"the weights were trained with a loss that this version does not know ({error}); choose another one to "
            "train or test them: create(..., loss='cross_entropy')"
        )

    def __call__(self, *args: Any, **options: Any) -> Tensor:
        """Raise ValueError, which says what was not known."""
        raise self.error


def loss_spec(spec: str | Mapping[str, Any]) -> Spec:
    """Return a loss as `{"name": ..., option: value}`; known names may be typed in any spelling, others stay."""
    options = as_spec("loss", spec)
    if isinstance(weights := options.get("class_weights"), Mapping):  # YAML reads the name of a class 7 as a number
        options["class_weights"] = {str(name): weight for name, weight in weights.items()}
    name = options["name"].removeprefix("cvcc_zoo.losses.").removeprefix("functions.")
    return {**options, "name": as_typed(name, LOSSES) or name}


def is_path(name: str) -> bool:
    """Return whether the name of a loss is an import path."""
    return "." in name.strip(".")


def takes_soft_labels(spec: str | Mapping[str, Any]) -> bool:
    """Return True if the loss takes soft labels, which MixUp and CutMix return."""
    name = loss_spec(spec)["name"]
    return own_takes_soft_labels(name) if is_path(name) else name in SOFT


def check_loss(spec: str | Mapping[str, Any]) -> None:
    """Raise ValueError, with the nearest names, for an unknown loss or option; an import path is not followed yet."""
    options = loss_spec(spec)
    name = options.pop("name")
    options.pop("l2", None)
    if not is_path(name):
        function = LOSSES[pick("loss", name, LOSSES)]
        check_options(f"loss {name}", function, options, skip=("logits", "labels", "reduction"))


def make_loss(spec: str | Mapping[str, Any], num_classes: int | None = None, *, find: bool = False) -> Loss:
    """Make a loss from its name or from `{"name": ..., option: value}`. Raises ValueError with the nearest names.

    With `num_classes`, a list of class weights must have this length. An import path is followed at once with `find`,
    or else when the loss is first needed.
    """
    check_loss(spec)
    options = loss_spec(spec)
    name, l2 = options.pop("name"), options.pop("l2", 0.0)
    own = is_path(name)
    check_class_weights(options.get("class_weights"), num_classes)
    for option, value in {**({} if own else options), "l2": l2}.items():
        valid, words = VALID.get(option, (None, ""))
        if valid is not None and not (is_number(value) and valid(value)):
            raise ValueError(f"loss {name}: {option} must be {words}, not {value!r}")
    if not own:
        others = {option: value for option, value in options.items() if option not in VALID}
        check_kinds(inspect.signature(LOSSES[name]).parameters, others, f"loss {name}: ")
    loss = Loss(OwnLoss(name, options) if own else LOSSES[name], options, l2)
    if find:
        loss.find()
    return loss


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
