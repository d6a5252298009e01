"""Sides of a comparison as processes of their own: what a user waits for, and the memory that it takes."""

import json
import os
import pty
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer

from cvcc_zoo.classifier import ImageClassifier
from cvcc_zoo.cli.lightning import build
from cvcc_zoo.runs import Compile

BARE = [f"--trainer.{name}=false" for name in ("logger", "enable_checkpointing", "enable_progress_bar")]


@dataclass(frozen=True)
class Settings:
    """What all topics share."""

    dataset: str
    root: str | None
    repeats: int
    threads: int
    small: bool = False
    """A few batches of each, to see that everything runs; the numbers then mean nothing."""

    def data(self) -> list[str]:
        """As options of the benchmark's own scripts."""
        return [f"--dataset={self.dataset}", *([f"--root={self.root}"] if self.root else [])]

    def options(self) -> list[str]:
        """As options of `cvcc-zoo`."""
        return [f"--data.dataset={self.dataset}", *([f"--data.root={self.root}"] if self.root else [])]


@dataclass(frozen=True)
class Ended:
    """What a process took."""

    seconds: float
    """From its start to its end."""
    peak_mb: float
    """The most memory that it had resident, without that of its own children."""
    summary: dict[str, Any] = field(default_factory=dict)
    """summary.json of a training."""


def run(words: Sequence[str], threads: int) -> Ended:
    """Run `python -m WORDS` on a terminal, as a user sees it. Raises RuntimeError with the last lines if it fails."""
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
    start, peak = time.perf_counter(), 0.0
    process = subprocess.Popen([sys.executable, "-m", *words], stdin=slave, stdout=slave, stderr=slave, env=environment)
    os.close(slave)
    while process.poll() is None:
        peak = max(peak, _peak_mb(process.pid))
        time.sleep(0.02)
    seconds = time.perf_counter() - start
    reader.join()
    os.close(master)
    if process.returncode:
        raise RuntimeError(f"{' '.join(words)}:\n{b''.join(shown).decode(errors='replace')[-2000:]}")
    return Ended(seconds, peak)


def _peak_mb(pid: int) -> float:
    """VmHWM of a process that may have ended; 0 then. (ru_maxrss would be that of its parent.)"""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((1024 * int(line.split()[1]) / 1e6 for line in lines if line.startswith("VmHWM")), 0.0)


def fit(settings: Settings, *options: str) -> Ended:
    """`cvcc-zoo fit` on all training images, without the test, in a folder that is removed."""
    folder = Path(tempfile.mkdtemp()) / "run"
    words = ["cvcc_zoo", "fit", *settings.options(), "--data.validation=0", "--test=false", f"--run={folder}"]
    try:
        ended = run([*words, *options], settings.threads)
        return Ended(ended.seconds, ended.peak_mb, json.loads((folder / "summary.json").read_text()))
    finally:
        shutil.rmtree(folder.parent)


class Clock(Callback):
    """The seconds of a training on a GPU, from its first batch to the end of its last."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start."""
        torch.cuda.synchronize()
        self.start = time.perf_counter()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop."""
        torch.cuda.synchronize()
        self.seconds = time.perf_counter() - self.start


def fit_here(words: Sequence[str]) -> tuple[ImageClassifier, float]:
    """`cvcc-zoo fit` with these options on a GPU, compiled, in this process, and how many seconds its training took.

    It has neither files nor a bar. Kernels that an earlier one compiled are there; CUDA graphs are made anew.
    """
    built, clock = build([*words, *BARE]), Clock()
    for callback in (clock, Compile()):
        built.trainer.callbacks.append(callback)  # type: ignore[attr-defined]
    built.trainer.fit(built.model, built.datamodule)
    return built.model, clock.seconds


def usual(settings: Settings, *options: str) -> Ended:
    """The usual script: `python -m benchmarks.usual`."""
    return run(["benchmarks.usual", *settings.data(), *options], settings.threads)
