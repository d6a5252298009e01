"""Progress of long jobs: a bar on a terminal, elsewhere (as in a log) a plain line from time to time.

Both go to stderr, so that the output of a command can be piped.
"""

import logging
import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TextIO, TypeVar

from lightning.fabric.utilities.rank_zero import rank_zero_only
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

T = TypeVar("T")
PATIENCE = 1.0  # seconds that a job takes before it gets a bar
EVERY = 10.0  # seconds between two lines
REDRAWN = 0.1  # seconds between two updates of a bar
LOGS = ("lightning.pytorch", "lightning.fabric")
"""Loggers that keep writing to the stream they started with, which would break a bar."""


def duration(seconds: float) -> str:
    """Return a time in hours, minutes and seconds, such as 1:02:03."""
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{seconds:02}"


class Display:
    """Progress of a job of size `total`, of which `start` was done before, and the time left, estimated from the past.

    A bar appears after `patience` seconds, by default 1, and a line every `every` seconds, by default 10. The job ends
    at the latest at `until`, a time of `time.monotonic()`.
    """

    def __init__(
        self,
        title: str,
        total: float,
        start: float = 0,
        *,
        patience: float | None = None,
        every: float | None = None,
        until: float = math.inf,
    ) -> None:
        self.title, self.total, self.start, self.until = title, total, start, until
        self.patience = PATIENCE if patience is None else patience
        self.every = EVERY if every is None else every
        self._began = self._shown = time.monotonic()
        self._bar: Progress | None = None
        self._streams: list[tuple[logging.StreamHandler, object]] = []  # type: ignore[type-arg]
        self._silent = bool(getattr(rank_zero_only, "rank", 0))  # of several processes only the first one prints
        self._on_terminal = sys.stderr.isatty() and not Console(stderr=True).is_dumb_terminal

    def left(self, done: float) -> str:
        """Return the time left once `done` is done, in words; an empty text if it cannot be estimated yet."""
        now = time.monotonic()
        rest = math.inf
        if done > self.start:
            rest = (now - self._began) * max(0.0, self.total - done) / (done - self.start)
        rest = min(rest, max(0.0, self.until - now))
        return "" if math.isinf(rest) else duration(rest)

    def due(self) -> bool:
        """Return whether it is time to show something."""
        now = time.monotonic()
        if self._silent or now - self._began < self.patience:
            return False
        return now - self._shown >= (REDRAWN if self._bar else 0.0 if self._on_terminal else self.every)

    def update(self, done: float, title: str = "", text: str = "") -> None:
        """Show that `done` is done; a bar shows `title` instead of its first one, and `text` before the time left."""
        if not self.due():
            return
        self._shown, left = time.monotonic(), self.left(done)
        if self._on_terminal:
            self._draw(done, title or self.title, f"{text} {left and f'{left} left'}".strip())
        else:
            of = "" if math.isinf(self.total) else f" of {self.total:,}"
            print(f"{self.title}: {done:,}{of}{left and f', {left} left'}", file=sys.stderr, flush=True)

    def _draw(self, done: float, title: str, text: str) -> None:
        if self._bar is None:
            texts = [TextColumn(f"{{task.{name}}}", markup=False) for name in ("description", "fields[text]")]
            console = Console(stderr=True, highlight=False)
            self._bar = Progress(
                texts[0],
                BarColumn(None),
                texts[1],
                console=console,
                transient=True,
                expand=True,
                refresh_per_second=4,
                redirect_stdout=sys.stdout.isatty(),  # output into a file does not disturb the bar
            )
            self._bar.add_task(title, total=None if math.isinf(self.total) else self.total, text=text)
            plain = sys.stderr
            self._bar.start()
            self._redirect_logs(plain)
        self._bar.update(self._bar.task_ids[0], completed=done, description=title, text=text)

    def _redirect_logs(self, plain: TextIO) -> None:
        """Print Lightning's messages above the bar."""
        for handler in (each for log in LOGS for each in logging.getLogger(log).handlers):
            if isinstance(handler, logging.StreamHandler) and handler.stream is plain:
                self._streams.append((handler, handler.setStream(sys.stderr)))

    def close(self) -> None:
        """Remove the bar."""
        for handler, stream in self._streams:
            handler.setStream(stream)
        self._streams = []
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def tracked(parts: Iterable[T], title: str, total: int, size: Callable[[T], int]) -> Iterator[T]:
    """Yield the parts of a job, and show how much of `total` is done; `size` returns the size of a part."""
    display, done = Display(title, total), 0
    try:
        for part in parts:
            yield part
            done += size(part)
            display.update(done)
    finally:
        display.close()
