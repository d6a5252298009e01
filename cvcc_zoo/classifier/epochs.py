"""The metrics of an epoch are logged at its end, before the callbacks of a user read them there."""

from typing import Any

from lightning import Callback, LightningModule, Trainer

from cvcc_zoo.classifier.divergence import check_finite
from cvcc_zoo.classifier.metrics import ON_BAR, StageMetrics
from cvcc_zoo.internals.lightning import callbacks_of


class LogsEpochs(LightningModule):
    """A model that logs its metrics at the end of each epoch."""

    metrics: StageMetrics

    def __setattr__(self, name: str, value: Any) -> None:
        """Raise ValueError for other metrics in the place of those that every model counts."""
        if name == "metrics" and not isinstance(value, StageMetrics):
            raise ValueError(
                f"`metrics` of {type(self).__name__} are those that every model counts; give your "
                f"{type(value).__name__} another name"
            )
        super().__setattr__(name, value)

    def log_stage(self, stage: str) -> None:
        """Log what train, val or test has counted; to do so again in the same hook changes nothing."""
        for name, metric in self.metrics.of_images(stage).items():
            self.log(name, metric, prog_bar=name in ON_BAR)  # Lightning sums and resets

    def on_train_epoch_end(self) -> None:
        """Log the means train/loss and train/accuracy. Raises FloatingPointError if a weight is not finite."""
        check_finite(self)  # the loss does not show what the last step did
        self.log_stage("train")

    def on_validation_epoch_end(self) -> None:
        """Log the metrics of validation."""
        self.log_stage("val")

    def on_test_epoch_end(self) -> None:
        """Log the metrics of the test."""
        self.log_stage("test")


class EpochMetrics(Callback):
    """Log the metrics of an epoch in the hooks of a callback, all of which Lightning calls before those of the model.

    Callbacks after this one see them in `trainer.callback_metrics`. The model logs them again, because Lightning's
    Tuner trains without callbacks.
    """

    def __init__(self) -> None:
        self.model: tuple[str, dict[str, Any]] | None = None  # the family and the hyperparameters of the last training
        self.options: dict[str, Any] = {}  # all its options, as loggers were told them

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the means of the epoch."""
        _log(pl_module, "train")

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the metrics of validation."""
        _log(pl_module, "val")

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the metrics of the test."""
        _log(pl_module, "test")


def _log(model: LightningModule, stage: str) -> None:
    if isinstance(model, LogsEpochs):  # a Trainer may go on with a model of another kind
        model.log_stage(stage)


def log_first(trainer: Trainer) -> None:
    """Let the first callback of a Trainer be the one that logs the metrics of an epoch."""
    callbacks = callbacks_of(trainer)
    if not any(isinstance(each, EpochMetrics) for each in callbacks):
        callbacks.insert(0, EpochMetrics())
