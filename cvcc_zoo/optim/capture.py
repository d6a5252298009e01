"""Steps of an optimizer that a CUDA graph can record, because they take no changing number from Python.

A graph repeats what was recorded with the same numbers. So those that change from step to step, which are learning
rates and counts of steps, must be tensors on the device. Outside these steps the optimizer keeps them as before.
"""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.optim import Optimizer

from cvcc_zoo.optim.low_rank_adam import LowRankAdam
from cvcc_zoo.optim.optimizer import RuleOptimizer

NOT_REPEATED = ("params", "lr")
"""Keys of a group whose values a recorded step does not repeat."""


def reason_against_recording(optimizer: Optimizer) -> str | None:
    """Return why a graph cannot repeat steps of an optimizer, or None if it can."""
    name = type(optimizer).__name__
    if isinstance(optimizer, RuleOptimizer):
        changes = isinstance(optimizer, LowRankAdam)
        return f"{name} does more in some steps than in others; choose another optimizer" if changes else None
    if all("capturable" in group or group.get("fused") for group in optimizer.param_groups):
        return None
    advice = ", or set fused=true" if "fused" in optimizer.defaults else ""
    return f"{name} reads its learning rate in Python; choose an optimizer of this package or of torch{advice}"


@contextmanager
def without_python_numbers(optimizer: Optimizer, rates: Sequence[Tensor]) -> Iterator[None]:
    """Make the optimizer take its learning rates, one per group, from tensors, and count its steps on the device."""
    for p, state in optimizer.state.items():
        for name, value in state.items():  # counts, and NAdam's product of momenta
            if isinstance(value, Tensor) and value.device != p.device:
                state[name] = value.to(p.device)
    before = [dict(group) for group in optimizer.param_groups]
    with warnings.catch_warnings():  # torch warns about capturable steps outside a graph, such as warm-ups
        warnings.filterwarnings("ignore", "This instance was constructed with capturable=True", UserWarning)
        try:
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate
                if "capturable" in group:
                    group["capturable"] = True
            yield
        finally:
            for group, old in zip(optimizer.param_groups, before, strict=True):
                group.update({name: old[name] for name in ("lr", "capturable") if name in old})


def repeated_numbers(optimizer: Optimizer) -> list[tuple[object, ...]]:
    """Return the options of all groups that a recorded step repeats; if they change, it must be recorded again."""
    return [
        (len(group["params"]), *(value for name, value in group.items() if name not in NOT_REPEATED))
        for group in optimizer.param_groups
    ]


def set_rates(optimizer: Optimizer, rates: Sequence[Tensor]) -> None:
    """Copy the learning rates of the groups into tensors."""
    with torch.no_grad():
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            if isinstance(lr := group["lr"], Tensor):
                rate.copy_(lr)
            else:
                rate.fill_(lr)
