"""Timing that survives a noisy machine: runs that take turns, and their medians."""

import functools
import statistics
import time
from collections.abc import Callable, Mapping

import torch

from cvcc_zoo.internals.torch import has_bfloat16


def alternate(sides: Mapping[str, Callable[[], float]], repeats: int) -> dict[str, float]:
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


def seconds_each(work: Callable[[], object], least: float) -> float:
    """How long a call takes: the mean over as many as take `least` seconds together."""
    calls, taken = 0, 0.0
    while taken < least:
        taken += seconds(work)
        calls += 1
    return taken / calls


PAYS = 0.9
"""bfloat16 takes at most this share of the time that float32 takes, or it is not worth its rounding."""


@functools.cache
def fast_precision() -> str:
    """bf16-mixed on a GPU, and on a CPU whose convolutions are faster in bfloat16; else 32-true.

    That a CPU has the instructions does not say so: where a virtual machine hides the matrix unit of an Intel processor
    and leaves AVX-512's bfloat16, convolutions took 1.7 times as long as in float32. So it is timed, for a tenth of a
    second; without the instructions it is clear.
    """
    if torch.cuda.is_available():
        return "bf16-mixed"
    if not has_bfloat16():
        return "32-true"
    short, long = (_convolution(dtype) for dtype in (torch.bfloat16, torch.float32))
    times = [(seconds(short), seconds(long)) for _ in range(6)][1:]  # the first of each prepares
    return "bf16-mixed" if min(time[0] for time in times) <= PAYS * min(time[1] for time in times) else "32-true"


def _convolution(dtype: torch.dtype) -> Callable[[], object]:
    """A pass forward and back through a 3x3 convolution of 64 channels, of 16 images of 16 x 16 pixels."""
    x, weight = torch.ones(16, 64, 16, 16, dtype=dtype), torch.ones(64, 64, 3, 3, dtype=dtype)
    x, weight = (each.contiguous(memory_format=torch.channels_last).requires_grad_() for each in (x, weight))
    return lambda: torch.autograd.backward(torch.nn.functional.conv2d(x, weight, padding=1).sum())
