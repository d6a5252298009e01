"""A clock for the steady state of a training run: all epochs but the first, which compiles and fills caches."""

import time
from pathlib import Path

import torch
from lightning import Callback, LightningModule, Trainer


class Steady(Callback):
    """Writes the seconds from the start of the second epoch to the end of training to a `file`."""

    def __init__(self, file: str) -> None:
        self.file = Path(file)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock at the second epoch."""
        if trainer.current_epoch == 1:
            self.start = _now()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the seconds. Raises RuntimeError if there was only one epoch."""
        if trainer.current_epoch < 2:
            raise RuntimeError("the steady state needs a second epoch; train for at least two")
        self.file.write_text(str(_now() - self.start))


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()  # kernels may still be running
    return time.perf_counter()
