"""Lightning's callbacks (2.6) that average weights: the copies that they make of a model."""

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import StochasticWeightAveraging, WeightAveraging

from cvcc_zoo.internals.lightning import callbacks_of


def copy_again(trainer: Trainer, module: LightningModule) -> None:
    """Let every average be a copy of the module as it is now: callbacks copy it before its own `setup`.

    What a checkpoint knows of an average is loaded later.
    """
    for each in callbacks_of(trainer):
        if isinstance(each, WeightAveraging | StochasticWeightAveraging):
            each.setup(trainer, module, "fit")
