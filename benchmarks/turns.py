"""Two training runs that take turns every few seconds, so that a machine that is slow for a while slows down both."""

import fcntl
import os
import time
from pathlib import Path
from typing import Self

from lightning import Callback, LightningModule, Trainer

LENGTH = 15.0
"""Seconds of a turn; it lasts until the end of a step."""
HANDING_OVER = 0.1
"""Seconds in which the other process can lock the file; otherwise the one that unlocked it would be first again."""


class Turns:
    """Lets one of several processes work at a time: the one that has locked the `file`.

    A process waits here for its first turn, and keeps its last until it ends, or leaves the block of a `with`. Alone it
    works all the time. `waited` is how many seconds it waited for the others since.
    """

    def __init__(self, file: str | Path, length: float = LENGTH) -> None:
        self.file, self.length, self.waited = os.open(file, os.O_RDWR | os.O_CREAT), length, 0.0
        fcntl.flock(self.file, fcntl.LOCK_EX)
        self.since = time.perf_counter()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        os.close(self.file)

    def next(self) -> None:
        """Let another process work, if this turn was long enough. Call it between two steps."""
        now = time.perf_counter()
        if now - self.since < self.length:
            return
        fcntl.flock(self.file, fcntl.LOCK_UN)
        time.sleep(HANDING_OVER)
        fcntl.flock(self.file, fcntl.LOCK_EX)
        self.since = time.perf_counter()
        self.waited += self.since - now


class TakeTurns(Callback):
    """Takes turns with another training run, and writes the seconds that it waited next to their `file`."""

    def __init__(self, file: str, length: float = LENGTH) -> None:
        self.turns, self.written = Turns(file, length), Path(f"{file}.waited")

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: object, batch_idx: int) -> None:
        """Take turns between two steps."""
        self.turns.next()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the seconds."""
        self.written.write_text(str(self.turns.waited))
