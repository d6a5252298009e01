"""Timing that survives a noisy machine: runs that take turns, and their medians."""

import statistics
import time
from collections.abc import Callable, Mapping


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
