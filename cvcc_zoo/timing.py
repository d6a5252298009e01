"""Timing for noisy machines: runs that take turns, and which device and precision are fast."""

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


def default_device() -> str:
    """Return the device on which work is done that chooses none: "cuda" if there is a GPU, otherwise "cpu"."""
    return "cuda" if torch.cuda.is_available() else "cpu"


WORTHWHILE = 0.9
"""bfloat16 is used if it takes at most this share of float32's time; otherwise it is not worth its rounding."""
SLOW = 1.5
"""A type of 16 bits is worth a warning if it takes at least this multiple of float32's time."""


@functools.cache
def fast_precision() -> str:
    """Return bf16-mixed on a GPU with bfloat16 or a CPU whose convolutions are faster in it; otherwise 32-true.

    GPUs before NVIDIA's Ampere, such as the T4, have no instructions for bfloat16 and emulate it.
    A CPU with bfloat16 instructions is not always faster: in a virtual machine that hides the matrix unit of an Intel
    processor but not AVX-512's bfloat16, convolutions took 1.7 times as long as in float32. So a CPU that has the
    instructions is timed, for a tenth of a second.
    """
    if torch.cuda.is_available():
        return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "32-true"
    return _fast_on_cpu()


def _fast_on_cpu() -> str:
    fast = has_bfloat16() and against_float32(torch.bfloat16, turns=6) <= WORTHWHILE
    return "bf16-mixed" if fast else "32-true"


def slow_precision(precision: str) -> str:
    """Return what to do about a precision whose 16-bit type this CPU computes slowly; "" if it does not.

    `precision` is one of Lightning's names; only those with 16 bits are timed. Processors without instructions for a
    type emulate it: with AVX2 alone, convolutions in bfloat16 took nine times as long as in float32.
    """
    dtype = {"bf16": torch.bfloat16, "16": torch.float16}.get(precision.partition("-")[0])
    if dtype is None or (ratio := against_float32(dtype, turns=2)) < SLOW:
        return ""
    times = f"{ratio:.0f}" if ratio >= 10 else f"{ratio:.1f}"
    return (
        f"precision={precision} is slow on this processor: convolutions take {times} times as long as in float32. "
        f"Choose --trainer.precision={_fast_on_cpu()}"
    )


@functools.cache
def against_float32(dtype: torch.dtype, turns: int) -> float:
    """Return the time of a convolution in this type on the CPU, as a multiple of its time in float32.

    Both take `turns` turns, without the first, which is slower, and the shortest time of each counts.
    """
    half, single = (_convolution(each) for each in (dtype, torch.float32))
    times = [(seconds(half), seconds(single)) for _ in range(turns)][1:]
    return min(first for first, _ in times) / min(second for _, second in times)


def _convolution(dtype: torch.dtype) -> Callable[[], object]:
    """Return a function that runs a 3x3 convolution of 64 channels forward and back on 16 images of 16 x 16 pixels."""
    x, weight = torch.ones(16, 64, 16, 16, dtype=dtype), torch.ones(64, 64, 3, 3, dtype=dtype)
    x, weight = (each.contiguous(memory_format=torch.channels_last).requires_grad_() for each in (x, weight))
    return lambda: torch.autograd.backward(torch.nn.functional.conv2d(x, weight, padding=1).sum())
