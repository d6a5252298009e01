"""Checks that model and data, or model and checkpoint, fit together; their errors say what to do."""

from collections.abc import Collection, Mapping
from typing import Any

import torch
from lightning import Trainer
from lightning.pytorch.strategies import FSDPStrategy
from lightning.pytorch.utilities import rank_zero_info
from torch import nn

from cvcc_zoo.classifier.network import evaluating, zero_images
from cvcc_zoo.classifier.prediction import Predicting
from cvcc_zoo.data.classes import differences, matching, pairs_of
from cvcc_zoo.data.datamodule import ImageDataModule
from cvcc_zoo.internals.lightning import trainer_of
from cvcc_zoo.kinds import check_bounds
from cvcc_zoo.losses import SOFT, takes_soft_labels
from cvcc_zoo.printing import first_line
from cvcc_zoo.registry import FAMILIES, family_options

TRAINING_OPTIONS = ("loss", "optimizer", "lr_scheduler", "freeze", "dropout", "ridge", "pretrained")
"""Hyperparameters that do not change the shapes of the weights."""
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
OWN_TENSORS = ("fixup", "skipinit")
"""Values of the hyperparameter `init` that add tensors; the others do not change the shapes of the weights."""
FEWEST_CLASSES = 2
SMALLEST_IMAGE = 8  # pixels


def check_shape(num_classes: int, in_channels: int, image_size: int) -> None:
    """Raise ValueError for numbers of classes, channels or pixels that no model can have."""
    if num_classes != 0 and num_classes < FEWEST_CLASSES:
        raise ValueError(
            f"num_classes must be at least {FEWEST_CLASSES}, got {num_classes}; or 0 for features without a classifier"
        )
    if in_channels < 1:
        raise ValueError(f"in_channels must be at least 1, got {in_channels}")
    if image_size < SMALLEST_IMAGE:
        raise ValueError(
            f"image_size must be at least {SMALLEST_IMAGE} pixels, got {image_size}; "
            f"resize the images: --data.image_size={SMALLEST_IMAGE}"
        )


def check_data(hparams: Mapping[str, Any], data: ImageDataModule) -> None:
    """Raise ValueError if a model with these hyperparameters cannot take the images of the data set."""
    for name in ("num_classes", "in_channels", "image_size"):
        mine, theirs = hparams[name], getattr(data, name)
        if mine != theirs:
            raise ValueError(
                f"the model has {name}={mine}, but the images of {data.dataset.title} have {name}={theirs}; "
                + _advice(name, mine, theirs)
            )


def check_classes(model: Predicting, data: ImageDataModule) -> None:
    """Give the images' classes the order in which the model knows them, if it knows any.

    Raises ValueError, and says which names differ, if the model was trained on other classes.
    """
    if model.classes is None:
        return
    if (places := matching(model.classes, data.classes)) is None:
        trainer = trainer_of(model)
        predicts = trainer is not None and trainer.state.fn == "predict"
        anyway = "; to predict them anyway, in Python: Trainer().predict(model, dataloaders=data.test_dataloader())"
        raise ValueError(
            f"the model's classes are not those of {data.dataset.title}: {differences(model.classes, data.classes)}; "
            "choose the images by --data.dataset=... and --data.root=..., rename the class folders if they are the "
            "same, or train a new classifier (cvcc-zoo fit --weights=..., or create(..., new_head=True))"
            + (anyway if predicts else "")
        )
    if tuple(model.classes) != tuple(data.classes):
        table = pairs_of(model.classes, data.classes, places)
        rank_zero_info(f"The classes of {data.dataset.title} are matched with the model's by name:\n{table}")
        data.order_as(model.classes)


def _advice(name: str, mine: int, theirs: int) -> str:
    if name == "num_classes":
        return f"build the model with num_classes={theirs}, or choose the data set that it was trained on"
    return f"convert the images with --data.{name}={mine}, or build the model with {name}={theirs}"


def check_training(network: nn.Module, hparams: Mapping[str, Any], data: ImageDataModule) -> None:
    """Raise ValueError if a network with these hyperparameters cannot be trained on the data set, or not be loaded."""
    check_bounds(hparams, "train on fewer classes or smaller images, as no checkpoint of this model could be loaded")
    if data.soft_labels and not takes_soft_labels(hparams["loss"]):
        raise ValueError(
            "MixUp and CutMix mix the labels of two images, but this loss takes a single label; choose --model.loss="
            f"{' or '.join(SOFT)}, leave them out of --data.augmentations, or give your own loss that takes shares of "
            "classes the attribute soft_labels = True"
        )
    processes = data.running.world_size if data.running else 1
    images = min(data.batch_size, len(data.training_images()[2])) // processes
    if images == 1 and any(isinstance(module, BATCH_NORMS) for module in network.modules()):
        raise ValueError(
            "batch norm needs several images for its statistics, but each process has only one; choose at least "
            f"--data.batch_size={2 * processes}, or a model without batch norm"
        )


def shapes(option: str, value: Any) -> bool:
    """Return whether a hyperparameter with this value changes the shapes of the weights."""
    return option not in TRAINING_OPTIONS and (option != "init" or value in OWN_TENSORS)


def complete(family: str | None, hparams: Mapping[str, Any]) -> dict[str, Any]:
    """Add the defaults of hyperparameters that are newer than the given ones; tuples become lists."""
    options = family_options(FAMILIES[family]) if family in FAMILIES else {}
    defaults = {name: option.default for name, option in options.items() if option.default is not option.empty}
    whole = {**defaults, **hparams}
    of_network = getattr(FAMILIES[family], "with_defaults", None) if family in FAMILIES else None
    whole = of_network(whole) if of_network else whole
    return {option: list(value) if isinstance(value, tuple) else value for option, value in whole.items()}


def check_model(model: Any, family: str | None, hparams: Mapping[str, Any], but: Collection[str] = ()) -> None:
    """Raise ValueError, and say how they differ, if weights of that family and shape do not fit an ImageClassifier.

    Hyperparameters named in `but` may differ.
    """
    own = type(model).__name__
    theirs = {"family": family, **_asked(complete(family, hparams))}
    mine = {"family": own, **_asked(complete(own, model.hparams))}
    asked = [key for key in mine | theirs if shapes(key, mine.get(key)) or shapes(key, theirs.get(key))]
    different = [key for key in asked if key not in but and mine.get(key) != theirs.get(key)]
    if different:
        there, here = (", ".join(f"{k}={s.get(k)!r}" for k in different) for s in (theirs, mine))
        raise ValueError(
            f"the checkpoint contains a different model: it has {there}, but this one has {here}; "
            "give the options of the checkpoint (--model=..., --model.OPTION=..., --data...=...), or another checkpoint"
        )


def _asked(hparams: dict[str, Any]) -> dict[str, Any]:
    """Leave out how many components a PCA kept, which is known only after it has seen the training images."""
    if not hparams.get("features"):
        return hparams
    return {**hparams, "features": [{k: v for k, v in each.items() if k != "kept"} for each in hparams["features"]]}


def check_logits(
    network: nn.Module, name: str, num_classes: int, in_channels: int, image_size: int, advice: str = ""
) -> None:
    """Raise ValueError if a network does not turn an image of this shape into logits for that many classes."""
    if next(network.parameters(), None) is None:
        raise ValueError(f"{name} has no parameters, so there is nothing to train; give another network")
    shape = f"{in_channels}x{image_size}x{image_size}"
    try:
        with evaluating(network), torch.no_grad():
            logits = network(zero_images(network, (1, in_channels, image_size, image_size)))
    except Exception as error:  # networks raise errors of all kinds
        raise ValueError(
            f"{name} does not take images of {shape} ({first_line(error)}); "
            f"choose another image_size or in_channels (--data.image_size=...){advice}"
        ) from error
    found = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
    if found != (1, num_classes):
        raise ValueError(
            f"{name} must return logits (N, num_classes), for one image of {shape} and {num_classes} classes "
            f"(1, {num_classes}), but it returns {found}; change the network or num_classes"
        )


def is_spawned(trainer: Trainer) -> bool:
    """Return whether processes that the Trainer spawns or forks train a copy, of which only the weights come back."""
    return type(trainer.strategy.launcher).__name__ == "_MultiProcessingLauncher"


def check_strategy(trainer: Trainer | None) -> None:
    """Raise ValueError for strategies with which a trained model would be wrong; a spawned process raises it itself.

    FSDP makes a vector of all parameters, so that none is decayed or is a matrix; spawned processes do not give back
    what a model learns of its images: classes, whitening and class weights.
    """
    if trainer is not None and is_spawned(trainer):
        raise ValueError(
            "spawned and forked processes return nothing but weights, without classes and whitening; use "
            "strategy='ddp' in a script, or one device in a notebook: devices=1"
        )
    if trainer is not None and isinstance(trainer.strategy, FSDPStrategy):
        raise ValueError(
            "strategy=fsdp turns the parameters into vectors, of which weight decay, Muon and checkpoints would be "
            "wrong; train with --trainer.strategy=ddp"
        )
