"""Lightning's callbacks (2.6) that average weights: the copies that they make, and an epoch that does not train."""

from typing import Any

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import StochasticWeightAveraging, WeightAveraging

from cvcc_zoo.internals.lightning import callbacks_of

CURRENT = "cvcc_zoo_current"  # key of the trained weights in a checkpoint whose state_dict is a SavedAverage


class SavedAverage(Callback):
    """A callback that saves its average as the weights of the model, and restores it and the trained ones."""


def go_on_without_average(trainer: Trainer | None, checkpoint: dict[str, Any]) -> None:
    """Let a training from a checkpoint go on with the trained weights in it if no callback restores their average."""
    if trainer is None or trainer.state.fn != "fit":
        return
    for kind, key in ((SavedAverage, CURRENT), (WeightAveraging, "current_model_state")):
        if key in checkpoint and not any(isinstance(each, kind) for each in callbacks_of(trainer)):
            checkpoint["state_dict"] = checkpoint[key]


def copy_again(trainer: Trainer, module: LightningModule) -> None:
    """Let every average be a copy of the module as it is now: callbacks copy it before its own `setup`.

    What a checkpoint knows of an average is loaded later. The length of an earlier training is forgotten.
    """
    for each in callbacks_of(trainer):
        if isinstance(each, WeightAveraging | StochasticWeightAveraging):
            each.setup(trainer, module, "fit")
            vars(each).pop("_max_epochs", None)


def measures_norms_again(trainer: Trainer) -> bool:
    """Return whether the statistics of all batch norms are reset at the end, and measured in an epoch of their own."""
    return any(isinstance(each, StochasticWeightAveraging) for each in callbacks_of(trainer))


def training_epochs(trainer: Trainer) -> int | None:
    """Return `max_epochs` without the epoch that StochasticWeightAveraging adds, which only measures batch norms."""
    for each in callbacks_of(trainer):
        if isinstance(each, StochasticWeightAveraging) and (epochs := vars(each).get("_max_epochs", -1)) != -1:
            return int(epochs)
    return trainer.max_epochs
