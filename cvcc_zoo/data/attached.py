"""A DataModule and its Trainer, which it follows only during a run; checkpoints hold its place in the epoch."""

import math
from typing import Any

from lightning import LightningDataModule, Trainer
from lightning.pytorch.trainer.states import TrainerStatus

from cvcc_zoo.data.images import Images
from cvcc_zoo.data.loader import Position
from cvcc_zoo.internals.lightning import batches_of_epoch


class Attached(LightningDataModule):
    """A DataModule that behaves outside of a run as if there had never been a Trainer."""

    batch_size: int
    _on_device: dict[int, Images]

    def __init__(self) -> None:
        super().__init__()
        self._position = Position()
        self._limit: float | int | None = None  # the Trainer's `limit_val_batches`, while nothing is validated

    @property
    def running(self) -> Trainer | None:
        """The Trainer during a run; Lightning leaves that of the last run in `trainer`."""
        trainer = self.trainer
        return trainer if trainer is not None and trainer.state.status == TrainerStatus.RUNNING else None

    def skip_validation(self) -> None:
        """Let a Trainer that runs validate nothing in this run; Lightning would warn about an empty loader."""
        if self.running is not None and self._limit is None:
            self._limit, self.running.limit_val_batches = self.running.limit_val_batches, 0

    def teardown(self, stage: str) -> None:
        """Let the Trainer validate other images in its next run, and give the memory of an accelerator back."""
        self._on_device = {}
        if self.trainer is not None and self._limit is not None:
            self.trainer.limit_val_batches, self._limit = self._limit, None

    def on_exception(self, exception: BaseException) -> None:
        """Do so also after a run that failed."""
        self.teardown("fit")

    def state_dict(self) -> dict[str, Any]:
        """Return the epoch, its finished batches (0 after its end) and their size, for checkpoints."""
        if self.trainer is None:
            return {}
        done, batches = batches_of_epoch(self.trainer), self.trainer.num_training_batches
        finished = done % int(batches) if 0 < batches < math.inf else 0  # infinite before training, and for a stream
        return {"epoch": self.trainer.current_epoch, "batches": finished, "batch_size": self.batch_size}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Resume after the batches that a checkpoint was trained on; to test or validate it skips nothing."""
        if self.trainer is None or self.trainer.state.fn == "fit":
            self._position.epoch, self._position.batches = state_dict.get("epoch", 0), state_dict.get("batches", 0)
