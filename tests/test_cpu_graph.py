"""The double of a CUDA graph on the CPU goes wrong, or refuses, where a CUDA graph does."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
import torch
from torch import Tensor

from cvcc_zoo.optim.build import OWN
from cvcc_zoo.optim.capture import reason_against_recording, set_rates, without_python_numbers
from tests.cpu_graph import CpuGraph, CpuGraphs, RefusedError


def recorded(step: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
    return CpuGraphs(torch.device("cpu")).record(step)


def test_a_recording_changes_nothing_and_a_replay_everything() -> None:
    total, ones = torch.zeros(3), torch.ones(3)
    state = torch.get_rng_state()
    replay, result = recorded(lambda: total.add_(ones) * torch.rand(3).ceil())
    assert total.tolist() == [0, 0, 0] and torch.equal(state, torch.get_rng_state())
    ones.fill_(2)
    replay()
    replay()
    assert total.tolist() == result.tolist() == [4, 4, 4]


def test_numbers_of_python_stay_those_of_the_recording() -> None:
    rate, w = 1.0, torch.zeros(())
    replay, _ = recorded(lambda: w.add_(torch.ones(()), alpha=rate))
    rate = 100.0
    replay()
    assert w.item() == 1 and rate == 100


def test_a_tensor_that_took_the_place_of_a_recorded_one_is_not_seen() -> None:
    counts = {"total": torch.zeros(())}
    replay, _ = recorded(lambda: counts["total"].add_(1))
    counts["total"] = torch.zeros(())
    replay()
    assert counts["total"].item() == 0


def test_gradients_are_computed_anew() -> None:
    w, x = torch.ones(2, requires_grad=True), torch.ones(2)

    def step() -> Tensor:
        torch.autograd.backward((w * x).square().sum())
        assert w.grad is not None
        gradient, w.grad = w.grad, None
        return gradient

    replay, gradient = recorded(step)
    x.fill_(3)
    replay()
    assert gradient.tolist() == [18, 18] and w.grad is None


@pytest.mark.parametrize(
    ("step", "operation"),
    [
        (lambda x: x * x.sum().item(), "aten._local_scalar_dense"),
        (lambda x: x if x.sum() > 0 else -x, "aten._local_scalar_dense"),
        (lambda x: x.nonzero(), "aten.nonzero"),
        (lambda x: x[x > 0], "aten.index"),
        (lambda x: x * torch.tensor(2.0), "aten.lift_fresh"),
        (lambda x: x.to("meta"), "aten._to_copy"),
    ],
)
def test_what_a_cuda_graph_refuses_is_refused(step: Callable[[Tensor], Tensor], operation: str) -> None:
    x = torch.ones(3)
    with pytest.raises(RefusedError, match=operation), CpuGraph():
        step(x)


def test_a_refusal_is_not_forgotten_if_it_is_caught() -> None:
    def step() -> Tensor:
        x = torch.ones(3)
        with suppress(RuntimeError):
            x.sum().item()
        return x

    with pytest.raises(RefusedError, match="_local_scalar_dense"):
        recorded(step)


KINDS: list[dict[str, Any]] = [{}, {"foreach": True, "weight_decay": 0.1}, {"foreach": False}]
MORE: dict[str, list[dict[str, Any]]] = {
    "SGD": [{"momentum": 0.9, "nesterov": True, "foreach": True}],
    "RMSprop": [{"momentum": 0.9, "centered": True}],
    "Adagrad": [{"lr_decay": 0.1, "foreach": True}],
    "Adam": [{"amsgrad": True, "foreach": True}],
    "Muon": [{"unit_norm": True}, {"sgd_lr": 0.1}],
}
CASES = [(name, options) for name in OWN if name != "LowRankAdam" for options in [*KINDS, *MORE.get(name, [])]]


@pytest.mark.parametrize(("name", "options"), CASES, ids=str)
def test_steps_of_optimizers_can_be_replayed_with_other_rates(name: str, options: dict[str, Any]) -> None:
    """To the bit those that take their numbers from tensors, and ordinary ones up to rounding."""

    def trained(kind: str) -> list[Tensor]:
        torch.manual_seed(0)
        params = [torch.randn(shape).requires_grad_() for shape in [(4, 6), (4, 6), (8, 3), (5,)]]
        optimizer = OWN[name]([{"params": params[:3]}, {"params": params[3:]}], **options)
        assert reason_against_recording(optimizer) is None
        rates, grads = [torch.zeros((), dtype=torch.float64) for _ in range(2)], [torch.zeros_like(p) for p in params]

        def step() -> Tensor:
            for p, g in zip(params, grads, strict=True):
                p.grad = g.clone()
            with without_python_numbers(optimizer, rates):
                optimizer.step()
            return params[0].detach()

        replay: Callable[[], object] = step
        for number in range(6):
            for group in optimizer.param_groups:
                group["lr"] *= 0.9
            for g in grads:
                g.copy_(torch.randn_like(g))
            set_rates(optimizer, rates)
            if kind == "ordinary":
                for p, g in zip(params, grads, strict=True):
                    p.grad = g.clone()
                optimizer.step()
                continue
            if kind == "replayed" and number == 2:
                replay, _ = recorded(step)
            replay()
        assert all(isinstance(group["lr"], float) and not group["capturable"] for group in optimizer.param_groups)
        return params

    ordinary, tensors, replayed = (trained(kind) for kind in ("ordinary", "tensors", "replayed"))
    for a, b, c in zip(ordinary, tensors, replayed, strict=True):
        assert torch.equal(b, c)
        torch.testing.assert_close(a, c, rtol=1e-5, atol=1e-6)
