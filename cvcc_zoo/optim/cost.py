"""The cost of an optimizer: memory of its state and time of a step, compared with torch's for the same rule."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from cvcc_zoo.optim.build import make_optimizer
from cvcc_zoo.optim.param_groups import param_groups
from cvcc_zoo.timing import seconds_each

EXAMPLES: dict[str, dict[str, Any]] = {
    "SGD": {"momentum": 0.9, "nesterov": True, "weight_decay": 5e-4},
    "Adagrad": {},
    "RMSprop": {},
    "Adam": {},
    "AdamW": {},
    "Muon": {},
    "Adafactor": {},
    "LowRankAdam": {},
}
"""Options with which each optimizer is measured."""

LEAST = 0.1
"""Minimum time in seconds over which steps are timed."""


def with_gradients(model: nn.Module) -> nn.Module:
    """Return a copy of a model whose parameters have small random gradients."""
    model = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(0)
    for p in model.parameters():
        p.grad = 1e-3 * torch.randn(p.shape, generator=generator).to(p)
    return model


def sides(name: str, options: dict[str, Any], model: nn.Module) -> dict[str, Callable[[], Optimizer]]:
    """Return functions that build our optimizer, and torch's with the same options on each of its paths.

    Each has a copy of the model. Raises ValueError for Muon if the model has no hidden weights.
    """
    found: dict[str, Callable[[], Optimizer]] = {"cvcc_zoo": lambda: make_optimizer({"name": name, **options}, fresh())}

    def fresh() -> nn.Module:
        return with_gradients(model)

    def torchs(**how: Any) -> Callable[[], Optimizer]:
        return lambda: make_optimizer({"name": f"torch.optim.{name}", **options, **how}, fresh())

    if name == "Muon":
        muon = param_groups(fresh(), 0.0, muon=True)[0]
        found["torch loop"] = lambda: torch_muon(muon["params"])
    elif hasattr(torch.optim, name):
        found |= {"torch loop": torchs(foreach=False), "torch foreach": torchs(foreach=True)}
        if name in ("SGD", "Adagrad", "Adam", "AdamW"):
            found["torch fused"] = torchs(fused=True)
    return found


def torch_muon(weights: list[nn.Parameter]) -> Optimizer:
    """Return torch's Muon for the weights that ours steps, flattened because it only takes matrices."""
    matrices = [nn.Parameter(p.detach().flatten(1)) for p in weights]
    for matrix, p in zip(matrices, weights, strict=True):
        assert p.grad is not None
        matrix.grad = p.grad.flatten(1)
    return torch.optim.Muon(matrices, weight_decay=0.0)


def seconds_a_step(optimizer: Optimizer) -> float:
    """Return the mean time of a step, measured over at least a tenth of a second."""
    return seconds_each(optimizer.step, LEAST)


def state_share(optimizer: Optimizer) -> float:
    """Return the memory of the state after a step, as a multiple of that of the parameters."""
    state = [value.untyped_storage() for kept in optimizer.state.values() for value in kept.values()]
    memory: dict[int, int] = {storage.data_ptr(): storage.nbytes() for storage in state}
    params: list[int] = [p.untyped_storage().nbytes() for group in optimizer.param_groups for p in group["params"]]
    return sum(memory.values()) / sum(params)
