"""Stopping at a deadline, at Ctrl-C (SIGINT), or at SIGTERM or SIGHUP (a lost connection).

Training stops between two steps, after `last.ckpt` was written; outside training a signal stops the process at once. A
process that was stopped by a signal always exits with 128 + its number, so that a job queue starts it again.
"""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer

from cvcc_zoo.files.signals import ending_signals, forget_lost_terminal
from cvcc_zoo.internals.lightning import release_processes
from cvcc_zoo.runs.checkpoints import LastCheckpoint, between_steps


class StoppedError(BaseException):
    """Training, or what comes before or after it, was stopped; `code` is the exit code of the process.

    Like KeyboardInterrupt it is not an Exception: code that handles errors of all kinds, such as the parser of the
    options, does not take it for one of them.
    """

    def __init__(self, message: str, code: int = 0) -> None:
        super().__init__(message)
        self.code = code


class Stop(Callback):
    """Write `last.ckpt` and raise StoppedError at the start of the first step for which there is a `reason`."""

    def reason(self) -> str:
        """Return why training stops now, or an empty text to continue; every process calls this."""
        raise NotImplementedError

    code = 0

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Stop if any of the processes has to."""
        if not between_steps(trainer, batch_idx):
            return
        reason = self.reason()
        if not trainer.strategy.reduce_boolean_decision(bool(reason), all=False):
            return
        for saver in trainer.checkpoint_callbacks:
            if isinstance(saver, LastCheckpoint):
                saver.save(trainer)
        text = f"{reason or 'another process stopped'}: stopped after {steps(trainer)}"
        raise StoppedError(text, _greatest(self.code, trainer))


class Deadline(Stop):
    """Stop at a time of `time.monotonic()`."""

    def __init__(self, at: float) -> None:
        self.at = at

    def reason(self) -> str:
        """Return the reason once the time has come."""
        return "the time limit is reached" if time.monotonic() >= self.at else ""


class StopAtSignal(Stop):
    """Stop at Ctrl-C, SIGTERM or SIGHUP after the current step; a second Ctrl-C stops at once."""

    def __init__(self) -> None:
        self._handlers: dict[int, Any] = {}
        self._received = 0
        self._saves = ""

    @property
    def code(self) -> int:  # type: ignore[override]
        """The exit code that a shell reports for a process ended by a signal."""
        return 128 + self._received

    def reason(self) -> str:
        """Return the name of the signal that was received."""
        return signal.Signals(self._received).name if self._received else ""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Install the signal handlers; Python allows that in the main thread only."""
        self._received = 0
        saves = any(isinstance(saver, LastCheckpoint) for saver in trainer.checkpoint_callbacks)
        self._saves = " and writing last.ckpt" if saves else ""
        if threading.current_thread() is not threading.main_thread():
            return
        self._handlers = {number: signal.signal(number, self._receive) for number in (signal.SIGINT, *ending_signals())}

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self._received and number == signal.SIGINT:
            raise StoppedError("SIGINT twice: stopped in the middle of a step", 128 + number)
        self._received = number
        forget_lost_terminal()
        with suppress(OSError):  # print() is not safe here: the signal may have interrupted one
            os.write(2, f"{signal.Signals(number).name}: ending this step{self._saves}\n".encode())

    def _restore(self) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers = {}

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restore the handlers. Raises StoppedError if a signal came in the last step; everything is saved by now."""
        self._restore()
        if trainer.strategy.reduce_boolean_decision(bool(self._received), all=False):
            reason = self.reason() or "another process stopped"
            raise StoppedError(f"{reason}: stopped after {steps(trainer)}, the last one", _greatest(self.code, trainer))

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Restore the handlers of the signals; after a stop, the processes end in any order."""
        self._restore()
        if isinstance(exception, StoppedError):
            release_processes(trainer)


def _greatest(code: int, trainer: Trainer) -> int:
    """Return the code of the process that received a signal; the others have 128."""
    return int(trainer.strategy.reduce(torch.tensor(code, device=trainer.strategy.root_device), reduce_op="max"))


def steps(trainer: Trainer) -> str:
    """Return the number of steps made, as text with its unit."""
    return f"{trainer.global_step:,} step{'s' * (trainer.global_step != 1)}"


@contextmanager
def stopped_by_signals() -> Iterator[None]:
    """Raise StoppedError at once at Ctrl-C, SIGTERM and SIGHUP; during training, StopAtSignal completes the step first.

    If other code swallows or replaces the exception, it is raised again at the end of the context.
    """
    received = 0

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal received
        received = number
        forget_lost_terminal()
        raise stopped()

    def stopped() -> StoppedError:
        return StoppedError(signal.Signals(received).name, 128 + received)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers = {number: signal.signal(number, stop) for number in (signal.SIGINT, *ending_signals())}
    try:
        yield
    except StoppedError:
        raise
    except BaseException as error:
        if received:
            raise stopped() from error
        raise
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    if received:
        raise stopped()
