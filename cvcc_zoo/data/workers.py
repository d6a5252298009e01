"""Image files are read by processes of their own, which a hostile file can end without harm.

A decoder is what the files of others reach first: it may take any memory and time, or crash. These processes have
limits of both (see `worker`). Where one is ended its files are read again, each by itself, and the culprit is named.
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

from cvcc_zoo.data.opening import UnreadableImageError
from cvcc_zoo.data.worker import OUT_OF_MEMORY, READY
from cvcc_zoo.files.own import shown

T = TypeVar("T")
Broken = dict[str, ValueError]
"""What is wrong with files, by their paths."""
PATIENCE = 60  # seconds for a process of Python to start
START = "import sys; sys.path[:] = sys.argv[1:]; from cvcc_zoo.data.worker import serve; serve()"


class EndedError(EOFError):
    """A process came to its end over a job; `by_limits` says whether because that would take too much."""

    def __init__(self, message: str, *, by_limits: bool) -> None:
        super().__init__(message)
        self.by_limits = by_limits


class Worker:
    """A process that does one job after the other; it ends when this one does."""

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
            if READY not in iter(self._answers.readline, b""):  # before it comes what is printed when Python starts
                self.end()
                raise _not_python("does not answer")
        finally:
            clock.cancel()

    def ask(self, job: Callable[..., T], *arguments: Any) -> T:
        """What the job gives, or raises. Raises EndedError, which says why, where the process came to its end."""
        folder = None
        with suppress(FileNotFoundError):  # it was removed; paths may be absolute
            folder = os.getcwd()  # noqa: PTH109  which may be another one than when the process was started
        try:
            pickle.dump((folder, job, arguments), self._jobs, protocol=5)
            self._jobs.flush()
            found, error = pickle.load(self._answers)
        except (EOFError, BrokenPipeError, pickle.UnpicklingError) as ended:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(1)  # it has ended, or is told to
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
        """Whether it takes another job."""
        return self._process.poll() is None

    def end(self) -> None:
        """End the process, whatever it does."""
        self._process.kill()
        with suppress(BrokenPipeError):
            self._jobs.close()
        self._process.wait()
        self._answers.close()


def _not_python(why: str) -> ValueError:
    """The error for a program that should be Python."""
    return ValueError(
        f"images are decoded by another process of Python, and {shown(str(sys.executable))} {why}; set sys.executable "
        "to Python"
    )


idle: defaultdict[int, list[Worker]] = defaultdict(list)
"""Workers that wait, by the process that started them: a fork must not take those of another process."""


@atexit.register
def _end_idle(kept: int = 0) -> None:
    """End all that wait but for so many."""
    waiting = idle[os.getpid()]
    with suppress(IndexError):  # another thread may take the last one
        while len(waiting) > kept:
            waiting.pop().end()


def _waiting() -> Worker | None:
    """One that waits, if something else has not ended it meanwhile."""
    while True:
        try:
            worker = idle[os.getpid()].pop()
        except IndexError:
            return None
        if worker.lives():
            return worker
        worker.end()


@contextmanager
def _a_worker(busy: set[Worker]) -> Iterator[Worker]:
    """One that waited, or a new one, which is busy for the time; afterwards it waits again, unless it has ended."""
    worker = _waiting() or Worker()
    busy.add(worker)
    try:
        yield worker
    except BaseException as error:
        if not isinstance(error, ValueError):  # which a job raises
            worker.end()
        raise
    finally:
        busy.discard(worker)
        if worker.lives():
            idle[os.getpid()].append(worker)


def read_files(
    parts: Sequence[Sequence[str]], job: Callable[[Sequence[str]], tuple[T, Broken]]
) -> Generator[tuple[T | None, Broken], None, None]:
    """What a job gives for each part of some files, in order, with what is wrong with files; None where that is all.

    The job is done by as many processes as there are processors. What it raises is raised.
    """
    busy, stopped = set[Worker](), threading.Event()

    def read(part: Sequence[str], *, again: bool = True) -> list[tuple[T | None, Broken]]:
        if stopped.is_set():
            return []
        try:
            with _a_worker(busy) as worker:
                return [worker.ask(job, part)]
        except EndedError as error:
            if len(part) == 1 and again and not error.by_limits:  # by whom it was ended is not known
                return read(part, again=False)
            if len(part) > 1:
                return [each for path in part for each in read([path])]
            return [(None, {part[0]: ended_by(part[0], error)})]

    with ThreadPoolExecutor(max(1, min(processors(), len(parts)))) as pool:
        try:
            for found in pool.map(read, parts):
                yield from found
        except BaseException:
            stopped.set()
            pool.shutdown(wait=False, cancel_futures=True)  # nobody waits for the other images
            for worker in list(busy):
                worker.end()
            raise
        finally:
            _end_idle(kept=1)


def ended_by(path: str, error: EndedError) -> UnreadableImageError:
    """The error for a file that ended its process."""
    return UnreadableImageError(f"{shown(path)} is not an image that can be read ({error}); move it away")


def processors() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
