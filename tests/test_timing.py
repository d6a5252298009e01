"""The precision that trains fastest is timed, not looked up."""

import re
import time
from collections.abc import Callable, Iterator

import pytest
import torch

from cvcc_zoo import timing
from cvcc_zoo.timing import against_float32, alternate, fast_precision, slow_precision
from tests.conftest import Fit


@pytest.fixture(autouse=True)
def anew() -> Iterator[None]:
    for function in (fast_precision, against_float32):
        function.cache_clear()
    yield
    for function in (fast_precision, against_float32):
        function.cache_clear()


def machine(
    monkeypatch: pytest.MonkeyPatch, *, gpu: bool, bfloat16: float, float16: float = 8, instructions: bool = True
) -> list[str]:
    """A machine whose float32 takes 4 ms, and the other types so many; what was timed on it."""
    times = {torch.bfloat16: bfloat16, torch.float16: float16}
    timed = []

    def convolution(dtype: torch.dtype) -> Callable[[], None]:
        timed.append(str(dtype))
        return lambda: time.sleep(times.get(dtype, 4) / 1000)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: instructions)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: instructions)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    monkeypatch.setattr(timing, "_convolution", convolution)
    return timed


@pytest.mark.parametrize(("bfloat16", "chosen"), [(2, "bf16-mixed"), (7, "32-true"), (4, "32-true")])
def test_a_cpu_with_the_instructions_is_timed(monkeypatch: pytest.MonkeyPatch, bfloat16: float, chosen: str) -> None:
    timed = machine(monkeypatch, gpu=False, bfloat16=bfloat16)
    assert fast_precision() == chosen and sorted(timed) == ["torch.bfloat16", "torch.float32"]
    assert fast_precision() == chosen and len(timed) == 2  # once for a process


@pytest.mark.parametrize(
    ("gpu", "instructions", "chosen"), [(True, True, "bf16-mixed"), (True, False, "32-true"), (False, False, "32-true")]
)
def test_elsewhere_it_is_clear(monkeypatch: pytest.MonkeyPatch, gpu: bool, instructions: bool, chosen: str) -> None:
    timed = machine(monkeypatch, gpu=gpu, bfloat16=2, instructions=instructions)
    assert fast_precision() == chosen and not timed


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true", "bf16"])
def test_emulated_bfloat16_is_called_slow(monkeypatch: pytest.MonkeyPatch, precision: str) -> None:
    timed = machine(monkeypatch, gpu=True, bfloat16=100, instructions=False)
    line = slow_precision(precision)
    found = re.fullmatch(r"precision=(\S+) is slow on this processor: convolutions take ([\d.]+) times .*", line)
    assert found is not None and found[1] == precision and 1.5 <= float(found[2]) < 27
    assert line.endswith("Choose --trainer.precision=32-true")
    assert slow_precision(precision) == line and len(timed) == 2  # timed once for a process


def test_float16_is_called_slow_where_bfloat16_is_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, gpu=False, bfloat16=2, float16=100)
    line = slow_precision("16-mixed")
    assert re.search(r"take [\d.]+ times as long", line) and line.endswith("Choose --trainer.precision=bf16-mixed")
    assert slow_precision("bf16-mixed") == ""


@pytest.mark.parametrize("precision", ["32-true", "64-true", "64", "transformer-engine"])
def test_whole_precisions_are_not_timed(monkeypatch: pytest.MonkeyPatch, precision: str) -> None:
    assert slow_precision(precision) == "" and not machine(monkeypatch, gpu=False, bfloat16=24)


@pytest.mark.parametrize(("bfloat16", "said"), [(100, True), (1, False)])
def test_training_says_that_a_precision_is_slow(
    monkeypatch: pytest.MonkeyPatch, fit: Fit, caplog: pytest.LogCaptureFixture, bfloat16: float, said: bool
) -> None:
    machine(monkeypatch, gpu=False, bfloat16=bfloat16)
    assert fit("--model=linear", "--trainer.precision=bf16-mixed") == 0
    assert caplog.text.count("precision=bf16-mixed is slow on this processor") == said


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
