"""Two trainings that take turns every few seconds: a machine that is slow for a while is slow for both."""

import fcntl
import os
import time
from pathlib import Path
from typing import Self

from lightning import Callback, LightningModule, Trainer

LENGTH = 15.0
"""Seconds of a turn; it goes on to the end of a step."""
HANDING_OVER = 0.1
"""Seconds that the other has to lock the file; who unlocked it would be first."""


class Turns:
    """Lets one of several processes work at a time: that which has locked the `file`.

    A process waits here for its first turn, and keeps its last until it ends, or leaves the block of a `with`. Alone it
    works all the time. `seconds` is how long it worked between `start` and `stop`.
    """

    def __init__(self, file: str | Path, length: float = LENGTH) -> None:
        self.file, self.length, self.seconds = os.open(file, os.O_RDWR | os.O_CREAT), length, 0.0
        fcntl.flock(self.file, fcntl.LOCK_EX)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        os.close(self.file)

    def start(self) -> None:
        """Count from now on."""
        self.since = time.perf_counter()

    def stop(self) -> None:
        """Count no longer."""
        self.seconds += time.perf_counter() - self.since

    def next(self) -> None:
        """Between two steps: let another work, if this turn was long enough."""
        if time.perf_counter() - self.since < self.length:
            return
        self.stop()
        fcntl.flock(self.file, fcntl.LOCK_UN)
        time.sleep(HANDING_OVER)
        fcntl.flock(self.file, fcntl.LOCK_EX)
        self.start()


class TakeTurns(Callback):
    """A training that takes turns with another, and writes beside their `file` for how many seconds it worked."""

    def __init__(self, file: str, length: float = LENGTH) -> None:
        self.turns, self.written = Turns(file, length), Path(f"{file}.seconds")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start."""
        self.turns.start()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: object, batch_idx: int) -> None:
        """Between two steps."""
        self.turns.next()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop."""
        self.turns.stop()
        self.written.write_text(str(self.turns.seconds))
