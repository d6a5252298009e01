"""A process that reads image files for another one, with limits on memory and time.

`workers` starts it; it takes jobs from its standard input until that ends.
"""

import os
import pickle
import signal
import sys
import time
import warnings
from pathlib import Path
from typing import Any

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

MEMORY = 200_000_000  # bytes beyond the libraries, for a header, its metadata and the pixels of a batch
OUT_OF_MEMORY = 99  # exit code
READY = b"cvcc_zoo: ready for jobs\n"
SECONDS = 5  # of processor time, for a header and a small image
PIXELS_PER_SECOND = 2_000_000  # a tenth of what decoders reach

_own_memory: list[int] = []
"""Bytes that this process used before its job; empty in a process that is not a worker, which has no limits."""


def allow(pixels: int, memory_per_pixel: int = 0) -> None:
    """Limit this process to the needs of an image: MEMORY plus `memory_per_pixel` bytes per pixel, and `seconds`.

    Does nothing in a process that is not a worker, or on Windows; macOS does not limit memory.
    """
    if not _own_memory or resource is None:
        return
    _limit(resource.RLIMIT_CPU, int(time.process_time()) + seconds(pixels))
    _limit(resource.RLIMIT_DATA, _own_memory[0] + MEMORY + memory_per_pixel * pixels)


def out_of_memory() -> None:
    """Exit if this is a worker, as the partly decoded image still occupies its memory."""
    if _own_memory:
        os._exit(OUT_OF_MEMORY)


def seconds(pixels: int) -> int:
    """Return the processor time that an image may take."""
    return SECONDS + pixels // PIXELS_PER_SECOND


def _limit(kind: int, value: int) -> None:
    hard = resource.getrlimit(kind)[1]
    resource.setrlimit(kind, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))


def serve() -> None:
    """Do jobs until standard input ends, and answer each with a result or an error.

    A job is the folder that relative paths start from, a function and its arguments.
    """
    with os.fdopen(os.dup(1), "wb") as answers, open(os.devnull, "wb") as nowhere:  # noqa: PTH123
        for stream in (1, 2):  # libraries print remarks on files there, without their names
            os.dup2(nowhere.fileno(), stream)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes of a terminal
        warnings.simplefilter("ignore")
        if resource is not None:
            _limit(resource.RLIMIT_CORE, 0)
            _own_memory.append(0)
        answers.write(b"\n" + READY)
        answers.flush()
        while True:
            try:
                folder, job, arguments = pickle.load(sys.stdin.buffer)
            except EOFError:
                return
            answer: tuple[Any, Exception | None]
            try:
                if folder is not None and _working_folder() != folder:
                    os.chdir(folder)  # may fail for another user, so only if needed
                _own_memory[:] = [_data() for _ in _own_memory]
                allow(0)
                answer = job(*arguments), None
            except Exception as error:
                if isinstance(error, MemoryError):
                    out_of_memory()
                answer = None, error
            pickle.dump(answer, answers, protocol=5)
            answers.flush()


def _working_folder() -> str:
    try:
        return os.getcwd()  # noqa: PTH109
    except FileNotFoundError:
        return ""


def _data() -> int:
    """Return the bytes of memory that this process can write to; 0 on a system without /proc."""
    try:
        return int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[5]) * os.sysconf("SC_PAGESIZE")
    except OSError:
        return 0
