"""Timing for noisy machines: runs that take turns, and their medians."""

import functools
import statistics
import time
from collections.abc import Callable, Mapping

import torch

from cvcc_zoo.internals.torch import has_bfloat16


def alternate(sides: Mapping[str, Callable[[], float]], repeats: int) -> dict[str, float]:
    """Return the median result of each side, called `repeats` times, taking turns."""
    results: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(repeats):
        for name, run in sides.items():
            results[name].append(run())
    return {name: statistics.median(values) for name, values in results.items()}


def seconds(work: Callable[[], object]) -> float:
    """Return the seconds that a call takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def seconds_each(work: Callable[[], object], least: float) -> float:
    """Return the seconds that a call takes: the mean over calls that together take at least `least` seconds."""
    calls, taken = 0, 0.0
    while taken < least:
        taken += seconds(work)
        calls += 1
    return taken / calls


WORTHWHILE = 0.9
"""bfloat16 is used if it takes at most this share of float32's time; otherwise it is not worth its rounding."""


@functools.cache
def fast_precision() -> str:
    """Return bf16-mixed on a GPU or a CPU whose convolutions are faster in bfloat16; otherwise 32-true.

    A CPU with bfloat16 instructions is not always faster: in a virtual machine that hides the matrix unit of an Intel
    processor but not AVX-512's bfloat16, convolutions took 1.7 times as long as in float32. So a CPU that has the
    instructions is timed, for a tenth of a second.
    """
    if torch.cuda.is_available():
        return "bf16-mixed"
    if not has_bfloat16():
        return "32-true"
    half, single = (_convolution(dtype) for dtype in (torch.bfloat16, torch.float32))
    times = [(seconds(half), seconds(single)) for _ in range(6)][1:]  # without the first, which is slower
    half_time, single_time = (min(column) for column in zip(*times, strict=True))
    return "bf16-mixed" if half_time <= WORTHWHILE * single_time else "32-true"


def _convolution(dtype: torch.dtype) -> Callable[[], object]:
    """Return a function that runs a 3x3 convolution of 64 channels forward and back on 16 images of 16 x 16 pixels."""
    x, weight = torch.ones(16, 64, 16, 16, dtype=dtype), torch.ones(64, 64, 3, 3, dtype=dtype)
    x, weight = (each.contiguous(memory_format=torch.channels_last).requires_grad_() for each in (x, weight))
    return lambda: torch.autograd.backward(torch.nn.functional.conv2d(x, weight, padding=1).sum())
