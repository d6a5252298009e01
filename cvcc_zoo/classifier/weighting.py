"""Weights of classes in the loss: from names or counts to numbers, and the mean loss of a batch."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import yaml
from lightning import Trainer
from torch import Tensor

from cvcc_zoo.data.classes import plain_name, unique_places
from cvcc_zoo.data.loader import TensorLoader
from cvcc_zoo.losses import Loss
from cvcc_zoo.registry import unknown


def resolve_class_weights(chosen: Any, classes: Sequence[str], labels: Tensor) -> list[float]:
    """Return the weight of each class for "balanced" or {name: weight}; a list is returned as it is.

    `labels` int64 (N,) are those of the training images. "balanced" is N / (K n_k) for the n_k images of a class among
    K, and classes that a mapping does not name weigh 1, both as in scikit-learn's `compute_class_weight`. Raises
    ValueError for a name that is not a class, and for a class without images.
    """
    if chosen == "balanced":
        counts = torch.bincount(labels, minlength=len(classes))
        if not counts.all():
            missing = classes[int(counts.argmin())]
            raise ValueError(
                f"class_weights=balanced needs training images of every class, and {missing!r} has none; add some, or "
                "give the weights as numbers"
            )
        return (len(labels) / (len(classes) * counts.double())).tolist()
    if not isinstance(chosen, Mapping):
        return [float(weight) for weight in chosen]
    weights, places = [1.0] * len(classes), {name: place for place, name in enumerate(classes)}
    plain, read = unique_places(classes, plain_name), unique_places(classes, _as_yaml_reads)
    for name, weight in chosen.items():
        place = places.get(name, plain.get(plain_name(name), read.get(name)))
        if place is None:
            raise unknown("class in class_weights", name, classes)
        weights[place] = float(weight)
    return weights


def _as_yaml_reads(name: str) -> str:
    """Return how YAML reads a plain name in {name: weight}: `no` is False, and `01` is 1."""
    try:
        return str(yaml.safe_load(name)) if re.fullmatch(r"[\w.+-]+|~", name) else name
    except yaml.YAMLError:  # "..." ends a document
        return name


def without_numbers(loss: Any, chosen: Any = None) -> Any:
    """Return the options of a loss for other classes: without class weights that are numbers of the old classes.

    If the numbers were made of `chosen`, and this is "balanced", it takes their place; weights that are no numbers
    yet stay.
    """
    if not isinstance(loss, Mapping) or "class_weights" not in loss:
        return loss
    weights = chosen if chosen == "balanced" else loss["class_weights"]
    rest = {key: value for key, value in loss.items() if key != "class_weights"}
    return {**rest, "class_weights": weights} if isinstance(weights, str | Mapping) else rest


def batch_mean(losses: Tensor, labels: Tensor, loss: Loss, trainer: Trainer | None) -> Tensor:
    """Return the mean of the losses (N,) of a training batch, weighted if the loss has class weights.

    If several processes share the batch, DDP averages their gradients; the means are scaled so that the average is the
    mean over the whole batch, of which processes may have different numbers of images.
    """
    weights, loader = loss.weights_of(labels), trainer and trainer.train_dataloader
    total = None if weights is None else weights.to(losses.dtype).sum()
    if trainer is None or trainer.world_size == 1 or not isinstance(loader, TensorLoader):
        return losses.mean() if total is None else losses.sum() / total
    if total is None:
        return losses.mean() * (len(labels) * trainer.world_size / loader.batch_size)
    return losses.sum() * trainer.world_size / trainer.strategy.reduce(total, reduce_op="sum")
