"""Read image files in separate processes, so that a hostile file does no harm.

A decoder is the code that files of others reach first: a file may make it crash, or use any amount of memory and time.
These processes have limits on both (see `worker`). If one dies, its files are read again one by one, and the file at
fault is named.
"""

import atexit
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections import defaultdict
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

from cvcc_zoo.data.opening import NeedsOptionError, UnreadableImageError
from cvcc_zoo.data.worker import OUT_OF_MEMORY, READY
from cvcc_zoo.files.own import shown

T = TypeVar("T")
AT_ONCE = 256  # files that a process reads at once
PATIENCE = 60  # seconds for a process of Python to start
START = "import sys; sys.path[:] = sys.argv[1:]; from cvcc_zoo.data.worker import serve; serve()"


class EndedError(EOFError):
    """A process died during a job; `by_limits` is true if it reached its limits of memory or time."""

    def __init__(self, message: str, *, by_limits: bool) -> None:
        super().__init__(message)
        self.by_limits = by_limits


class Worker:
    """A process that does one job at a time; it ends when this process does."""

    def __init__(self) -> None:
        command, pipe = [sys.executable or "", "-P", "-c", START, *sys.path], subprocess.PIPE
        try:
            self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL)
        except OSError as error:
            raise _not_python(f"cannot be started ({error.strerror})") from error
        assert self._process.stdin is not None and self._process.stdout is not None
        self._jobs, self._answers = self._process.stdin, self._process.stdout
        clock = threading.Timer(PATIENCE, self._process.kill)
        clock.start()
        try:
            if READY not in iter(self._answers.readline, b""):  # Python may print other lines first when it starts
                self.end()
                raise _not_python("does not answer")
        finally:
            clock.cancel()

    def ask(self, job: Callable[..., T], *arguments: Any) -> T:
        """Do a job: return its result or raise its error. Raises EndedError, with the reason, if the process died."""
        folder = None
        with suppress(FileNotFoundError):  # the folder was removed, but paths may be absolute
            folder = os.getcwd()  # noqa: PTH109  (it may have changed since the process started)
        try:
            pickle.dump((folder, job, arguments), self._jobs, protocol=5)
            self._jobs.flush()
            found, error = pickle.load(self._answers)
        except (EOFError, BrokenPipeError, pickle.UnpicklingError) as ended:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(1)  # usually it has ended already; if not, end() kills it
            self.end()
            raise self._reason(self._process.wait()) from ended
        if error is not None:
            raise error
        return found  # type: ignore[no-any-return]

    @staticmethod
    def _reason(code: int) -> EndedError:
        if code == -getattr(signal, "SIGXCPU", 0):
            return EndedError("it takes too long to decode", by_limits=True)
        if code == OUT_OF_MEMORY:
            return EndedError("it takes more memory than images of its size", by_limits=True)
        name = signal.Signals(-code).name if -code in set(signal.Signals) else f"exit code {code}"
        return EndedError(f"its decoder crashed: {name}", by_limits=False)

    def lives(self) -> bool:
        """Return whether the process is running."""
        return self._process.poll() is None

    def end(self) -> None:
        """Kill the process."""
        self._process.kill()
        with suppress(BrokenPipeError):
            self._jobs.close()
        self._process.wait()
        self._answers.close()


def _not_python(why: str) -> ValueError:
    """Return the error for a `sys.executable` that is not Python."""
    return ValueError(
        f"images are decoded by another Python process, and {shown(str(sys.executable))} {why}; set sys.executable "
        "to Python"
    )


idle: defaultdict[int, list[Worker]] = defaultdict(list)
"""Idle workers by the process that started them, as a fork must not use those of its parent."""


@atexit.register
def _end_idle(kept: int = 0) -> None:
    """End all idle workers but `kept`."""
    workers = idle[os.getpid()]
    with suppress(IndexError):  # another thread may take the last one
        while len(workers) > kept:
            workers.pop().end()


def _idle_worker() -> Worker | None:
    """Take an idle worker that is still running, if there is one."""
    while True:
        try:
            worker = idle[os.getpid()].pop()
        except IndexError:
            return None
        if worker.lives():
            return worker
        worker.end()


@contextmanager
def _borrowed_worker(busy: set[Worker]) -> Iterator[Worker]:
    """Lend an idle worker or a new one, which is in `busy` meanwhile and idle afterwards, unless it has ended."""
    worker = _idle_worker() or Worker()
    busy.add(worker)
    try:
        yield worker
    except BaseException as error:
        if not isinstance(error, ValueError):  # a ValueError comes from the job, not from the process
            worker.end()
        raise
    finally:
        busy.discard(worker)
        if worker.lives():
            idle[os.getpid()].append(worker)


def read_each(
    paths: Sequence[str], read: Callable[[str], T], at_once: int = AT_ONCE
) -> Generator[tuple[str, T | ValueError], None, None]:
    """Yield each file, in order, with what `read` returns for it, or with its error if it cannot be read.

    As many processes work as there are processors, each on `at_once` files at a time. A file that ends its process has
    an UnreadableImageError. Raises any error of `read` but UnreadableImageError and NeedsOptionError.
    """
    busy, stopped = set[Worker](), threading.Event()

    def read_part(part: Sequence[str], *, again: bool = True) -> list[tuple[str, T | ValueError]]:
        if stopped.is_set():
            return []
        try:
            with _borrowed_worker(busy) as worker:
                return list(zip(part, worker.ask(outcomes, part, read), strict=True))
        except EndedError as error:
            if len(part) == 1 and again and not error.by_limits:  # something other than the file may have killed it
                return read_part(part, again=False)
            if len(part) > 1:
                return [each for path in part for each in read_part([path])]
            return [(part[0], ended_by(part[0], error))]

    parts = [paths[start : start + at_once] for start in range(0, len(paths), at_once)]
    with ThreadPoolExecutor(max(1, min(processors(), len(parts)))) as pool:
        try:
            for found in pool.map(read_part, parts):
                yield from found
        except BaseException:
            stopped.set()
            pool.shutdown(wait=False, cancel_futures=True)  # the other images are no longer needed
            for worker in list(busy):
                worker.end()
            raise
        finally:
            _end_idle(kept=1)


def outcomes(paths: Sequence[str], read: Callable[[str], T]) -> list[T | ValueError]:
    """Return what `read` returns for each file, or its error if it cannot be read; the job of `read_each`."""
    found = list[T | ValueError]()
    for path in paths:
        try:
            found.append(read(path))
        except (UnreadableImageError, NeedsOptionError) as error:
            found.append(error)
    return found


def ended_by(path: str, error: EndedError) -> UnreadableImageError:
    """Return the error for a file that ended its process."""
    return UnreadableImageError(f"{shown(path)} is not an image that can be read ({error}); move it away")


def processors() -> int:
    """Return the number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
