"""The sides of a comparison, each in its own process: the time that a user waits, and the memory."""

import json
import os
import pty
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmarks.clocks import Whole
from benchmarks.measure import peak_mb
from cvcc_zoo.classifier import ImageClassifier
from cvcc_zoo.cli.lightning import build
from cvcc_zoo.runs import Compile

VISIBLE = "CUDA_VISIBLE_DEVICES"
CHECKOUT = Path(__file__).parents[1]
BARE = [f"--trainer.{name}=false" for name in ("logger", "enable_checkpointing", "enable_progress_bar")]


@dataclass(frozen=True)
class Settings:
    """Settings that all topics share."""

    dataset: str
    root: str | None
    repeats: int
    threads: int
    """Threads of torch in each process; `benchmarks.run` sets those of its own."""
    small: bool = False
    """Run only a few batches of each, to see that everything runs; the numbers then mean nothing."""
    lines: tuple[str, ...] = ()
    """Lines of `gpu_training`, such as resnet20-128; all if empty."""
    timm_train: Path | None = None
    """timm's script train.py, in a checkout of its repository."""

    def data(self) -> list[str]:
        """Return the settings as options of the benchmark's own scripts."""
        return [f"--dataset={self.dataset}", *([f"--root={self.root}"] if self.root else [])]

    def options(self) -> list[str]:
        """Return the settings as options of `cvcc-zoo`."""
        return [f"--data.dataset={self.dataset}", *([f"--data.root={self.root}"] if self.root else [])]


@dataclass(frozen=True)
class Ended:
    """Time and memory of a process."""

    seconds: float
    """Seconds from its start to its end."""
    peak_mb: float
    """Peak resident memory, without that of its child processes."""
    shown: str
    """Text that it printed."""
    summary: dict[str, Any] = field(default_factory=dict)
    """summary.json of a training run."""


@contextmanager
def without_gpu() -> Iterator[None]:
    """Hide the GPUs from the processes that are started in the block."""
    before = os.environ.get(VISIBLE)
    os.environ[VISIBLE] = ""
    try:
        yield
    finally:
        del os.environ[VISIBLE]
        os.environ.update({} if before is None else {VISIBLE: before})


def run(words: Sequence[str], threads: int) -> Ended:
    """Run `python WORDS` on a terminal, as a user sees it. Raises RuntimeError with the last lines if it fails."""
    master, slave = pty.openpty()
    shown: list[bytes] = []

    def read() -> None:
        try:
            while part := os.read(master, 1 << 16):
                shown.append(part)
        except OSError:  # the other end is closed
            pass

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    environment["PYTHONPATH"] = os.pathsep.join([str(CHECKOUT), *filter(None, [os.environ.get("PYTHONPATH")])])
    start, peak = time.perf_counter(), 0.0
    process = subprocess.Popen([sys.executable, *words], stdin=slave, stdout=slave, stderr=slave, env=environment)
    os.close(slave)
    while process.poll() is None:
        peak = max(peak, peak_mb(process.pid))
        time.sleep(0.02)
    seconds = time.perf_counter() - start
    reader.join()
    os.close(master)
    text = b"".join(shown).decode(errors="replace")
    if process.returncode:
        raise RuntimeError(f"{' '.join(words)}:\n{text[-2000:]}")
    return Ended(seconds, peak, text)


def fit(settings: Settings, *options: str) -> Ended:
    """Run `cvcc-zoo fit` on all training images, without the test, in a folder that is removed."""
    folder = Path(tempfile.mkdtemp()) / "run"
    words = ["-m", "cvcc_zoo", "fit", *settings.options(), "--data.validation=0", "--test=false", f"--run={folder}"]
    try:
        ended = run([*words, *options], settings.threads)
        return replace(ended, summary=json.loads((folder / "summary.json").read_text()))
    finally:
        shutil.rmtree(folder.parent)


def fit_here(words: Sequence[str]) -> tuple[ImageClassifier, float]:
    """Run `cvcc-zoo fit` compiled on a GPU, in this process; return the model and the seconds of training.

    It writes no files and shows no progress bar. Kernels that an earlier run compiled are reused; CUDA graphs are not.
    """
    built, clock = build([*words, *BARE]), Whole()
    for callback in (clock, Compile()):
        built.trainer.callbacks.append(callback)  # type: ignore[attr-defined]
    built.trainer.fit(built.model, built.datamodule)
    return built.model, clock.seconds


def usual(settings: Settings, *options: str, script: str = "usual") -> Ended:
    """Run the usual script: `python -m benchmarks.usual`, or `usual_gpu`."""
    return run(["-m", f"benchmarks.{script}", *settings.data(), *options], settings.threads)
