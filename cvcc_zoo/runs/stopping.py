"""Stops between two steps, after `last.ckpt` was written: at a time, at Ctrl-C, at a SIGTERM."""

import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from lightning import Callback, LightningModule, Trainer

from cvcc_zoo.runs.checkpoints import LastCheckpoint, between_steps

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StoppedError(Exception):
    """A training was stopped, and goes on from its `last.ckpt`; `code` is what the process ends with."""

    def __init__(self, message: str, code: int = 0) -> None:
        super().__init__(message)
        self.code = code


class Stop(Callback):
    """Writes `last.ckpt` and raises StoppedError at the start of the first step at which `reason` says why."""

    def reason(self) -> str:
        """Why the training stops now, or nothing; asked in every process."""
        raise NotImplementedError

    code = 0

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Stop, if one of the processes has to."""
        if not between_steps(trainer, batch_idx):
            return
        reason = self.reason()
        if not trainer.strategy.reduce_boolean_decision(bool(reason), all=False):
            return
        goes_on = "nothing of it was kept"
        for saver in trainer.checkpoint_callbacks:
            if not isinstance(saver, LastCheckpoint):
                continue
            saver.save(trainer)
            folder, here = saver.path.parent.resolve(), Path.cwd()
            folder = folder.relative_to(here) if folder.is_relative_to(here) else folder
            goes_on = f"`cvcc-zoo fit --config={folder}/config.yaml --ckpt_path=last` goes on"
        why = reason or "another process stopped"
        raise StoppedError(f"{why}: stopped after {trainer.global_step:,} steps; {goes_on}", self.code)


class Deadline(Stop):
    """Stops at a time of `time.monotonic()`."""

    def __init__(self, at: float) -> None:
        self.at = at

    def reason(self) -> str:
        """Whether it is time."""
        return "the time is over" if time.monotonic() >= self.at else ""


class StopAtSignal(Stop):
    """Stops at Ctrl-C or SIGTERM; a second Ctrl-C does not wait for the end of the step."""

    def __init__(self) -> None:
        self._before: dict[int, Any] = {}
        self._got = 0

    @property
    def code(self) -> int:  # type: ignore[override]
        """As a shell has it for a process that a signal ended."""
        return 128 + self._got

    def reason(self) -> str:
        """The name of the signal that came."""
        return signal.Signals(self._got).name if self._got else ""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the signals over, where that is possible: in the main thread."""
        self._got = 0
        if threading.current_thread() is not threading.main_thread():
            return
        self._before = {number: signal.signal(number, self._take) for number in SIGNALS}

    def _take(self, number: int, frame: FrameType | None) -> None:
        if self._got and number == signal.SIGINT:
            self._give_back()
            raise KeyboardInterrupt
        self._got = number
        print(f"{signal.Signals(number).name}: ending this step and writing last.ckpt", file=sys.stderr)

    def _give_back(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Give the signals back."""
        self._give_back()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Give the signals back."""
        self._give_back()


class LateSignal(Callback):
    """Remembers a signal that came after the last step of a training, for those who would start another one."""

    def __init__(self) -> None:
        self._late: StopAtSignal | None = None

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look."""
        late = [each for each in vars(trainer)["callbacks"] if isinstance(each, StopAtSignal) and each.reason()]
        self._late = late[0] if late else None

    def check(self) -> None:
        """Raise StoppedError if there was one."""
        if self._late is not None:
            raise StoppedError(f"{self._late.reason()}: stopped at the end of a training", self._late.code)


@contextmanager
def stopped_by_signals() -> Iterator[None]:
    """Ctrl-C and SIGTERM raise StoppedError here, between trainings; within one they end its step first."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise StoppedError(signal.Signals(number).name, 128 + number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, stop) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
