"""Clocks for training runs; they wait until a GPU has done its work."""

import time
from pathlib import Path

import torch
from lightning import Callback, LightningModule, Trainer


def now() -> float:
    """Return the time in seconds when the GPU, if there is one, has done its work."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


class Whole(Callback):
    """Measures the `seconds` of training, from before the first batch to after the last."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self.start = now()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the clock."""
        self.seconds = now() - self.start


class Steady(Callback):
    """Writes the seconds from the start of the second epoch to the end of training to a `file`.

    The first epoch compiles and fills caches.
    """

    def __init__(self, file: str) -> None:
        self.file = Path(file)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock at the second epoch."""
        if trainer.current_epoch == 1:
            self.start = now()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the seconds. Raises RuntimeError if there was only one epoch."""
        if trainer.current_epoch < 2:
            raise RuntimeError("the steady state needs a second epoch; train for at least two")
        self.file.write_text(str(now() - self.start))


class Steps(Callback):
    """Measures the mean `milliseconds` of the steps after the `first` until the `last`."""

    def __init__(self, first: int, last: int) -> None:
        self.first, self.last = first, last

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *given: object) -> None:
        """Start and stop the clock."""
        if trainer.global_step == self.first:
            self.start = now()
        elif trainer.global_step == self.last:
            self.milliseconds = 1000 * (now() - self.start) / (self.last - self.first)
