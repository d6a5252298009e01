"""Checkpoints of a run: the best by validation, and the last, which is also written every few minutes."""

import io
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.fabric.plugins.io import TorchCheckpointIO
from lightning.pytorch.callbacks import ModelCheckpoint

from cvcc_zoo.files import write_whole

MINUTES = 10.0


class WholeCheckpoints(TorchCheckpointIO):
    """Writes a checkpoint under another name in its folder, brings it to the disk, and renames it.

    Lightning's own goes through $TMPDIR, from where another disk gets a copy that a kill can cut off.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write it whole; raises OSError, and leaves what was there, if it cannot be written."""
        target, content = Path(path), io.BytesIO()
        torch.save(checkpoint, content)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            write_whole(target, content.getbuffer())
        except OSError as error:
            kept = "; the one before it is kept" if target.is_file() else ""
            raise OSError(f"the checkpoint {target} cannot be written ({error.strerror or error}){kept}") from error


def between_steps(trainer: Trainer, batch_idx: int) -> bool:
    """Whether a checkpoint at the start of this batch goes on exactly: within an epoch, with no gradients summed up.

    At the end of a batch its metrics are not logged yet, and after the last one of an epoch Lightning (2.6) counts
    epochs wrongly when it is resumed; there the checkpoint of the epoch follows at once.
    """
    return batch_idx > 0 and batch_idx % trainer.accumulate_grad_batches == 0


class TimedCheckpoint(ModelCheckpoint):
    """Writes `last.ckpt` every `minutes` of training, so that a run that is killed loses no more."""

    def __init__(self, folder: Path, minutes: float = MINUTES) -> None:
        super().__init__(folder, "last", train_time_interval=timedelta(minutes=minutes), enable_version_counter=False)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Write, if it is time."""
        if between_steps(trainer, batch_idx):
            super().on_train_batch_end(trainer, pl_module, None, batch, batch_idx)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """At the start of a batch, count it as not begun: Lightning would number the steps from one more."""
        progress = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
        if progress["total"]["ready"] == progress["total"]["started"] + 1:
            for count in (progress["total"], progress["current"]):
                count["ready"] -= 1

    def on_train_batch_end(self, *args: Any) -> None:
        """Nothing: it is done at the start of the next batch."""

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Nothing: the other callback does it."""

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Nothing: the other callback does it."""


def checkpoints(folder: Path, *, validation: bool) -> list[ModelCheckpoint]:
    """`best.ckpt` by val/accuracy where there are validation images, and `last.ckpt`, each by its own callback.

    ModelCheckpoint's own `save_last` (2.6) leaves out epochs that are not among the best.
    """
    last = [ModelCheckpoint(folder, "last", enable_version_counter=False), TimedCheckpoint(folder)]
    if not validation:
        return last
    best = ModelCheckpoint(folder, "best", monitor="val/accuracy", mode="max", enable_version_counter=False)
    return [best, *last]
