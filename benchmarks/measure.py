"""What the machine is and can do at most, and tables of what was measured."""

import os

import torch

from cvcc_zoo.runs.summary import hardware
from cvcc_zoo.timing import seconds


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
