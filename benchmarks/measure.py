"""Timing that survives a noisy machine: alternating runs, medians, ratios; and what the machine can do at most."""

import os
import statistics
import time
from collections.abc import Callable

import torch

from cvcc_zoo.runs.summary import hardware


def alternate(sides: dict[str, Callable[[], float]], repeats: int) -> dict[str, float]:
    """The median of what each side returns, over runs that take turns."""
    found: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(repeats):
        for name, run in sides.items():
            found[name].append(run())
    return {name: statistics.median(values) for name, values in found.items()}


def seconds(work: Callable[[], object]) -> float:
    """How long a call takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def machine() -> str:
    """Processor, threads and versions in a line."""
    return f"{hardware()}, {os.cpu_count()} cores, torch {torch.__version__}"


def gemm_gflops(size: int = 2048) -> float:
    """float32 matrix products, in 1e9 floating-point operations a second, the best of five."""
    a = torch.randn(size, size)
    out = torch.empty_like(a)
    torch.mm(a, a, out=out)
    return 2 * size**3 / min(seconds(lambda: torch.mm(a, a, out=out)) for _ in range(5)) / 1e9


def copy_gbytes(megabytes: int = 256) -> float:
    """Bandwidth of a copy, bytes read and written, in 1e9 a second, the best of five."""
    source = torch.zeros(megabytes << 18)
    target = torch.empty_like(source)
    target.copy_(source)
    return 2 * source.nbytes / min(seconds(lambda: target.copy_(source)) for _ in range(5)) / 1e9


def markdown(header: list[str], rows: list[list[str]]) -> str:
    """A table, its numbers to the right."""
    lines = ["| " + " | ".join(header) + " |", "|---|" + "---:|" * (len(header) - 1)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])
