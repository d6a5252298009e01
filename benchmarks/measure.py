"""Description and peak performance of the machine, and tables of measurements."""

import os
import platform
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cvcc_zoo.runs.summary import hardware, processor
from cvcc_zoo.timing import seconds


def name_of(device: str) -> str:
    """Return the name of the GPU (`cuda`), or that of the processor (`cpu`), and the number of cores."""
    return f"{hardware() if device == 'cuda' else processor()}, {os.cpu_count()} cores"


def versions() -> str:
    """Return the versions on which the speed depends."""
    return f"Python {platform.python_version()}, torch {torch.__version__}, lightning {version('lightning')}"


def machine(device: str = "cpu") -> str:
    """Return the name of the machine and the versions in one line."""
    return f"{name_of(device)}; {versions()}"


def limits(device: str) -> dict[str, float]:
    """Return the measured peak rates of matrix products and of copies, in the units of the page."""
    if device == "cuda":
        found = {
            "bfloat16 products": gemm_gflops("cuda", torch.bfloat16, 8192) / 1e3,
            "copies": copy_gbytes("cuda", 4096),
        }
        torch.cuda.empty_cache()  # the runs that follow are other processes
        return found
    return {"float32 products": gemm_gflops(), "copies": copy_gbytes()}


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


def peak_mb(pid: int) -> float:
    """Return the peak memory of a process, VmHWM, or 0 if it has ended. (ru_maxrss would be that of its parent.)"""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((1024 * int(line.split()[1]) / 1e6 for line in lines if line.startswith("VmHWM")), 0.0)


def markdown(header: list[str], rows: list[list[str]]) -> str:
    """Return a table in Markdown whose first column is aligned to the left, the others to the right."""
    lines = ["| " + " | ".join(header) + " |", "|---|" + "---:|" * (len(header) - 1)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def training_pass(network: nn.Module, images: Tensor, *, half: bool, run: Any = None) -> Callable[[], None]:
    """Return a function that runs the forward and backward pass of images, and waits for a GPU.

    With `half` it computes in bfloat16 where autocast does. `run` is called instead of the network, if it is compiled.
    """
    labels = torch.arange(len(images), device=images.device) % 10

    def work() -> None:
        network.zero_grad()
        with torch.autocast(images.device.type, torch.bfloat16, enabled=half):
            loss = F.cross_entropy((run or network)(images), labels)
        torch.autograd.backward(loss)
        if images.is_cuda:
            torch.cuda.synchronize()

    return work
