"""A loss of your own or of torch: its import path, or the function or class itself.

    def poly(logits, labels, epsilon=1.0, *, reduction="mean"):
        ...

    create("resnet20", loss="my_losses.poly")                               # its import path
    create("resnet20", loss={"name": "my_losses.poly", "epsilon": 2.0})     # with options
    create("resnet20", loss=partial(poly, epsilon=2.0))                     # itself
    create("resnet20", loss="torch.nn.MultiMarginLoss")                     # a class

A function is called with logits (N, num_classes), labels (N,), its options and reduction="none"; a class, which is an
nn.Module, is built with its options and reduction="none", and called with logits and labels. Both return the loss of
each image (N,). A loss that also takes soft labels (N, num_classes), which MixUp and CutMix make, says so:
`poly.soft_labels = True`. A function with the parameter `class_weights` gets them as a tensor (num_classes,), and
multiplies the loss of each image by the weight of its class.

A checkpoint saves the import path, and may come from others: the path is followed when the loss is first needed, which
it is not for predictions and in `cvcc-zoo evaluate`, and only to a module that is imported already.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from cvcc_zoo.kinds import check_kinds
from cvcc_zoo.losses.functions import Reduction, image_weights
from cvcc_zoo.registry import check_options, imported_class

SOFT_OF_TORCH = (F.cross_entropy, nn.CrossEntropyLoss)


class OwnLoss:
    """A loss at an import path, which is followed when the loss is first needed."""

    def __init__(self, path: str, options: Mapping[str, Any]) -> None:
        self.path, self.options = path, dict(options)
        self._found: Callable[..., Tensor] | None = None

    def find(self) -> Callable[..., Tensor]:
        """Return the function, or the module that the class builds. Raises ValueError for wrong options, too."""
        if self._found is None:
            kind, found = f"loss {self.path}", find_own(self.path)
            parameters, is_class = inspect.signature(found).parameters, inspect.isclass(found)
            given = ("class_weights",) if is_class else list(parameters)[:2]
            check_options(kind, found, self.options, skip=("reduction", *given))
            check_kinds(parameters, self.options, f"{kind}: ")
            self._found = _built(kind, found, self.options) if is_class else found
        return self._found

    def __call__(self, logits: Tensor, labels: Tensor, *, reduction: Reduction = "mean", **options: Any) -> Tensor:
        """Return the loss of each image (N,), or their mean. Raises ValueError if the loss returns anything else."""
        function = self.find()
        if isinstance(function, nn.Module):
            losses = self._computed(function.to(logits.device), logits, labels)
        else:
            losses = function(logits, labels, reduction="none", **options)
        if not isinstance(losses, Tensor) or losses.shape != logits.shape[:1]:
            got = f"a tensor {tuple(losses.shape)}" if isinstance(losses, Tensor) else type(losses).__name__
            raise ValueError(
                f"loss {self.path} must return the loss of each image with reduction='none', a tensor "
                f"{tuple(logits.shape[:1])}, but it returns {got}"
            )
        if reduction == "none":
            return losses
        weights = options.get("class_weights")
        return losses.mean() if weights is None else losses.sum() / image_weights(labels, weights).sum()

    def _computed(self, module: nn.Module, logits: Tensor, labels: Tensor) -> Any:
        try:
            return module(logits, labels)
        except RuntimeError as error:
            raise ValueError(
                f"loss {self.path} does not take logits {tuple(logits.shape)} and labels {tuple(labels.shape)} "
                f"({error}); choose one for classes, such as torch.nn.CrossEntropyLoss or torch.nn.MultiMarginLoss"
            ) from error


def find_own(path: str) -> Callable[..., Any]:
    """Return the function or class at an import path that may come from a file; no module is imported for it.

    Raises ValueError if there is none, or if it has no parameter `reduction`, without which a mean would be wrong.
    """
    found = imported_class("loss", path, None)
    if not (inspect.isfunction(found) or (inspect.isclass(found) and issubclass(found, nn.Module))):
        raise ValueError(
            f"{path} is not a valid loss: make it a function of logits and labels, or a subclass of torch.nn.Module"
        )
    if "reduction" not in inspect.signature(found).parameters:
        raise ValueError(
            f"the loss {path} has no parameter `reduction`, by which it could return the loss of each image (N,); add "
            "it, or write a function of logits, labels and reduction around it"
        )
    return found


def own_takes_soft_labels(path: str) -> bool:
    """Return whether the loss at an import path takes soft labels: it says so, or is torch's cross-entropy."""
    found = find_own(path)
    return found in SOFT_OF_TORCH or getattr(found, "soft_labels", False) is True


def _built(kind: str, found: Callable[..., nn.Module], options: Mapping[str, Any]) -> nn.Module:
    try:
        module = found(**options, reduction="none")
    except (TypeError, ValueError) as error:
        raise ValueError(f"{kind} cannot be built with {dict(options)}: {error}; change its options") from error
    if next(module.parameters(), None) is not None:
        raise ValueError(f"{kind} has parameters, which nothing would train or save; put them into the network")
    return module
