"""Description and peak performance of the machine, and tables of measurements."""

import os
from collections.abc import Callable

import torch

from cvcc_zoo.runs.summary import hardware
from cvcc_zoo.timing import seconds


def machine() -> str:
    """Return the processor, threads and versions in one line."""
    return f"{hardware()}, {os.cpu_count()} cores, torch {torch.__version__}"


def limits() -> str:
    """Return the measured peak rates of matrix products and copies, on the GPU if there is one."""
    if not torch.cuda.is_available():
        return f"float32 products {gemm_gflops():.0f} GFLOP/s, copies {copy_gbytes():.0f} GB/s"
    products, copies = gemm_gflops("cuda", torch.bfloat16, 8192), copy_gbytes("cuda", 4096)
    return f"bfloat16 products {products / 1e3:.0f} TFLOP/s, copies {copies / 1e3:.1f} TB/s"


def gemm_gflops(device: str = "cpu", dtype: torch.dtype = torch.float32, size: int = 2048) -> float:
    """Return the rate of matrix products, in 1e9 floating-point operations per second, the best of five."""
    a = torch.randn(size, size, device=device, dtype=dtype)
    out = torch.empty_like(a)
    return 2 * size**3 / _best(lambda: torch.mm(a, a, out=out), device) / 1e9


def copy_gbytes(device: str = "cpu", megabytes: int = 256) -> float:
    """Return the bandwidth of a copy, in 1e9 bytes read and written per second, the best of five."""
    source = torch.zeros(megabytes << 18, device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / _best(lambda: target.copy_(source), device) / 1e9


def _best(work: Callable[[], object], device: str) -> float:
    """Return the seconds of the fastest of five calls, after one that is not counted."""

    def whole() -> None:
        work()
        if device == "cuda":
            torch.cuda.synchronize()

    whole()
    return min(seconds(whole) for _ in range(5))


def markdown(header: list[str], rows: list[list[str]]) -> str:
    """Return a table in Markdown whose first column is aligned to the left, the others to the right."""
    lines = ["| " + " | ".join(header) + " |", "|---|" + "---:|" * (len(header) - 1)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])
