"""The precision that trains fastest is timed, not looked up."""

import time
from collections.abc import Callable, Iterator

import pytest
import torch

from cvcc_zoo import timing
from cvcc_zoo.timing import alternate, fast_precision


@pytest.fixture(autouse=True)
def anew() -> Iterator[None]:
    fast_precision.cache_clear()
    yield
    fast_precision.cache_clear()


def machine(monkeypatch: pytest.MonkeyPatch, *, gpu: bool, bfloat16: float, instructions: bool = True) -> list[str]:
    """A machine whose float32 takes 4 ms, and bfloat16 so many; what was timed on it."""
    timed = []

    def convolution(dtype: torch.dtype) -> Callable[[], None]:
        timed.append(str(dtype))
        return lambda: time.sleep((bfloat16 if dtype is torch.bfloat16 else 4) / 1000)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: instructions)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    monkeypatch.setattr(timing, "_convolution", convolution)
    return timed


@pytest.mark.parametrize(("bfloat16", "chosen"), [(2, "bf16-mixed"), (7, "32-true"), (4, "32-true")])
def test_a_cpu_with_the_instructions_is_timed(monkeypatch: pytest.MonkeyPatch, bfloat16: float, chosen: str) -> None:
    timed = machine(monkeypatch, gpu=False, bfloat16=bfloat16)
    assert fast_precision() == chosen and sorted(timed) == ["torch.bfloat16", "torch.float32"]
    assert fast_precision() == chosen and len(timed) == 2  # once for a process


@pytest.mark.parametrize(("gpu", "chosen"), [(True, "bf16-mixed"), (False, "32-true")])
def test_elsewhere_it_is_clear(monkeypatch: pytest.MonkeyPatch, gpu: bool, chosen: str) -> None:
    timed = machine(monkeypatch, gpu=gpu, bfloat16=2, instructions=gpu)
    assert fast_precision() == chosen and not timed


def test_what_is_timed_is_a_pass_forward_and_back_and_draws_nothing() -> None:
    before = torch.get_rng_state()
    for dtype in (torch.float32, torch.bfloat16):
        timing._convolution(dtype)()
    assert fast_precision() in ("32-true", "bf16-mixed")
    assert torch.equal(before, torch.get_rng_state())


def test_sides_take_turns_and_their_medians_count() -> None:
    order, times = [], iter([3.0, 30.0, 1.0, 10.0, 2.0, 20.0])

    def side(name: str) -> Callable[[], float]:
        def run() -> float:
            order.append(name)
            return next(times)

        return run

    assert alternate({"a": side("a"), "b": side("b")}, 3) == {"a": 2.0, "b": 20.0}
    assert order == ["a", "b"] * 3
