"""The benchmark that says where a training step goes."""

import pytest
import torch
from torch import nn

from benchmarks import step_parts
from benchmarks.step_parts import parts


def test_parts_of_a_step_are_counted_by_the_kind_of_convolution() -> None:
    network = nn.Sequential(nn.Conv2d(8, 16, 3, stride=2, padding=1, groups=2), nn.Conv2d(16, 4, 1)).train()
    images = torch.randn(8, 8, 64, 64, requires_grad=True)
    found = parts(network, images, lambda: network(images).sum().backward())
    pixels = 8 * 32 * 32
    grouped, dense = 2 * pixels * 16 * (4 * 9), 2 * pixels * 4 * 16  # a multiplication and an addition each
    assert {part: operations for part, (_, operations) in found.items() if operations} == {
        "3x3, 2 groups of 4 channels, forward": grouped,
        "3x3, 2 groups of 4 channels, backward": 2 * grouped,
        "1x1, forward": dense,
        "1x1, backward": 2 * dense,
    }
    assert all(seconds >= 0 for seconds, _ in found.values())


def test_bfloat16_is_left_out_on_a_processor_without_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(step_parts, "has_bfloat16", lambda: True)
    assert [*step_parts.precisions()] == ["32-true", "bf16-mixed"] and not capsys.readouterr().out
    monkeypatch.setattr(step_parts, "has_bfloat16", lambda: False)
    assert [*step_parts.precisions()] == ["32-true"]
    assert "bf16-mixed is left out" in capsys.readouterr().out
