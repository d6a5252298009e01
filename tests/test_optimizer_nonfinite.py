"""An inf or a NaN in the gradient of one parameter poisons what it poisons in torch, and no other parameter."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cvcc_zoo.optim import LowRankAdam, Muon
from cvcc_zoo.optim.build import OWN
from tests.optimizer_checks import VARIANTS, Subject, gradients, parameters
from tests.test_optimizer_parity import matched

SHAPES = ((5, 7), (3,), (5, 7), (), (6, 4))
POISONED, POISONED_STEP = 2, 3  # LowRankAdam finds new directions there
VALUES = [math.inf, -math.inf, math.nan]
TORCHS: list[tuple[str, dict[str, Any]]] = [
    *((name, {"lr": 0.01, "weight_decay": 0.1}) for name in ("SGD", "Adagrad", "RMSprop", "Adam", "AdamW")),
    ("SGD", {"lr": 0.01, "momentum": 0.9, "nesterov": True}),
    ("RMSprop", {"lr": 0.01, "momentum": 0.5}),
    ("RMSprop", {"lr": 0.01, "centered": True}),
    ("Adam", {"lr": 0.01, "amsgrad": True}),
    ("Adafactor", {"lr": 0.05}),
]
PATHS: list[dict[str, Any]] = [{"foreach": False}, {"foreach": True}, {"fused": True}]


def stepped(optimizer: torch.optim.Optimizer, params: list[Tensor], value: float | None) -> list[Tensor]:
    """Return the parameters after five steps, with `value` in the fourth gradient of one of them."""
    for step in range(5):
        for i, (p, g) in enumerate(zip(params, gradients(step, params), strict=True)):
            if value is not None and step == POISONED_STEP and i == POISONED:
                g.view(-1)[4] = value
            p.grad = g
        optimizer.step()
    return [p.detach() for p in params]


def poisons_one_parameter(subject: Subject) -> None:
    """On every path: the others go where they go with finite gradients."""
    for path in subject.paths:
        for value in VALUES:
            params, clean = parameters(SHAPES), parameters(SHAPES)
            found = stepped(subject.build(params, **path), params, value)
            expected = stepped(subject.build(clean, **path), clean, None)
            for i, (p, q) in enumerate(zip(found, expected, strict=True)):
                assert bool(p.isfinite().all()) == (i != POISONED)
                assert i == POISONED or torch.equal(p, q)


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize(
    ("name", "options", "path"),
    [
        (name, options, path)
        for name, options in TORCHS
        for path in PATHS
        if "fused" not in path or Subject(OWN[name], options).takes("fused")
    ],
    ids=str,
)
def test_it_poisons_what_it_poisons_in_torch(
    name: str, options: dict[str, Any], path: dict[str, Any], value: float
) -> None:
    params, theirs = parameters(SHAPES), parameters(SHAPES)
    found = stepped(OWN[name](params, **options, **path), params, value)
    expected = stepped(getattr(torch.optim, name)(theirs, **options, **path), theirs, value)
    for p, q in zip(found, expected, strict=True):
        torch.testing.assert_close(p, q, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize(("name", "options"), [(name, each) for name in OWN for each in VARIANTS[name]], ids=str)
def test_it_poisons_one_parameter(name: str, options: dict[str, Any]) -> None:
    poisons_one_parameter(Subject(OWN[name], options))


@pytest.mark.parametrize("value", VALUES)
def test_it_poisons_what_it_poisons_in_torchs_muon(value: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cvcc_zoo.optim.muon.precision", lambda p: torch.bfloat16)
    shapes = ((5, 7), (7, 5), (5, 7), (16, 16))
    params, theirs = parameters(shapes), parameters(shapes)
    found = stepped(Muon(params, **matched({}), foreach=False), params, value)
    expected = stepped(torch.optim.Muon(theirs), theirs, value)
    for p, q in zip(found, expected, strict=True):
        torch.testing.assert_close(p, q, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("value", VALUES)
def test_directions_that_are_found_anew_do_not_spread_it(value: float) -> None:
    """The singular vectors of such a gradient do not exist: LAPACK raises an error half way through the step."""
    p = nn.Parameter(torch.zeros(6, 5))
    optimizer = LowRankAdam([p], rank=2, update_every=1)
    p.grad = torch.full((6, 5), value)
    optimizer.step()
    assert p.isnan().all()
