"""Signals that ask the process to end: SIGTERM, and SIGHUP of a closed terminal or a lost connection."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


def ending_signals() -> list[signal.Signals]:
    """Return SIGTERM, and SIGHUP where the system has it and `nohup` does not let the process ignore it."""
    found = [signal.SIGTERM]
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        found.append(signal.SIGHUP)
    return found


def forget_lost_terminal() -> None:
    """Discard output to a terminal that is gone; writing there would raise an error before the files are in order."""
    for stream in (1, 2):
        try:
            os.write(stream, b"")
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream)


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Let these signals end the process as Ctrl-C does, so that its files are removed; only in the main thread."""

    def end(number: int, frame: FrameType | None) -> None:
        forget_lost_terminal()
        sys.exit(128 + number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {each: signal.signal(each, end) for each in ending_signals()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
