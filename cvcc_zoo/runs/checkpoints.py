"""Checkpoints of a run: the best by validation, and the last, which is also written every few minutes."""

import time
from datetime import timedelta
from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

MINUTES = 10.0


class TimedCheckpoint(ModelCheckpoint):
    """Writes `last.ckpt` every `minutes` of training, so that a run that is killed loses no more.

    Nothing is written after the last batch of an epoch: the checkpoint of the epoch follows at once, and one from
    between the two makes Lightning (2.6) count epochs wrongly when it is resumed.
    """

    def __init__(self, folder: Path, minutes: float = MINUTES) -> None:
        super().__init__(folder, "last", train_time_interval=timedelta(minutes=minutes), enable_version_counter=False)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write, if it is time and not the end of an epoch."""
        if not trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Nothing: the other callback does it."""

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Nothing: the other callback does it."""


class OutOfTimeError(Exception):
    """A training was stopped by its deadline; it goes on from its `last.ckpt`."""


class Deadline(Callback):
    """Stops a training at a time of `time.monotonic()`: writes `last.ckpt` and raises OutOfTimeError."""

    def __init__(self, at: float) -> None:
        self.at = at

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stop, if it is time; not between the last batch of an epoch and the checkpoint of the epoch."""
        if time.monotonic() < self.at or trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
            return
        timed = next(saver for saver in trainer.checkpoint_callbacks if isinstance(saver, TimedCheckpoint))
        trainer.save_checkpoint(Path(str(timed.dirpath)) / "last.ckpt")
        raise OutOfTimeError(f"the time is over after {trainer.global_step:,} steps; last.ckpt goes on from there")


def checkpoints(folder: Path, *, validation: bool) -> list[ModelCheckpoint]:
    """`best.ckpt` by val/accuracy where there are validation images, and `last.ckpt`, each by its own callback.

    ModelCheckpoint's own `save_last` (2.6) leaves out epochs that are not among the best.
    """
    last = [ModelCheckpoint(folder, "last", enable_version_counter=False), TimedCheckpoint(folder)]
    if not validation:
        return last
    best = ModelCheckpoint(folder, "best", monitor="val/accuracy", mode="max", enable_version_counter=False)
    return [best, *last]
