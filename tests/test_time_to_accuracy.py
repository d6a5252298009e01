"""Both sides of the time to accuracy are tested with the same views, and have the same clock and convolutions."""

import argparse
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks import accuracy_time, airbench
from benchmarks.airbench import accuracies, views
from benchmarks.sides import BARE, Settings
from cvcc_zoo import create
from cvcc_zoo.cli.lightning import build

POINT = torch.zeros(1, 1, 8, 8, dtype=torch.uint8)
POINT[..., 3, 2] = 255
"""A black image with one white pixel."""


def points(x: Tensor) -> Tensor:
    """Return where the white pixel is, (N, 2)."""
    return (x[:, 0] == 1).nonzero()[:, 1:]


def test_the_six_views_are_an_image_its_two_shifts_and_their_mirror_images() -> None:
    seen = [points(view)[0].tolist() for view in views(POINT.float() / 255)]
    assert seen == [[3, 2], [3, 5], [4, 3], [4, 4], [2, 1], [2, 6]]


def test_accuracies_say_what_each_way_of_testing_adds() -> None:
    def score(x: Tensor) -> Tensor:  # class 1 is right, and seen on all images but the first
        row, column = points(x)[0].tolist()
        return torch.tensor([[{(3, 2): 4.0, (3, 5): -3.0}.get((row, column), -2.0), 0.0]])

    found = accuracies(score, POINT, torch.tensor([1]))
    assert found == {"plain": 0.0, "mirrored": 0.0, "six_views": 1.0}


def test_our_side_is_tested_with_the_same_views() -> None:
    model = create("linear", image_size=28, in_channels=1, whitening="none")
    found = accuracy_time.tested(Settings("fashion-mini", None, 1, 1), model, seconds=2.5)
    assert found["seconds"] == 2.5
    assert set(found) == {"seconds", "plain", "mirrored", "six_views"}


def test_the_clock_of_the_other_method_starts_when_its_network_is_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    images = torch.randint(0, 256, (8, 3, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    network, seen = airbench.make_network(airbench.normalised(images)), list[str]()
    times = iter([3.0, 5.0])

    def make(pixels: Tensor) -> object:
        seen.append("network")
        return network

    def now() -> float:
        seen.append("clock")
        return next(times)

    def run(pixels: Tensor) -> Any:
        seen.append("batch")
        return network(pixels)

    monkeypatch.setattr(airbench, "EPOCHS", 1)
    monkeypatch.setattr(airbench, "make_network", make)
    monkeypatch.setattr(airbench, "now", now)
    options = argparse.Namespace(batches=1, precision="32-true")
    assert airbench.train(network, run, images, torch.arange(8), options, 0) == 2.0
    assert seen == ["network", "clock", "batch", "clock"]


def test_the_rate_of_the_bias_of_the_stem_falls_to_0_in_its_three_epochs(monkeypatch: pytest.MonkeyPatch) -> None:
    images = torch.randint(0, 256, (8, 3, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    network, rates = airbench.make_network(airbench.normalised(images)), list[dict[int, float]]()

    class Recorded(torch.optim.SGD):
        def step(self, closure: object = None) -> None:  # type: ignore[override]
            rates.append({id(p): group["lr"] for group in self.param_groups for p in group["params"]})

    def run(pixels: Tensor) -> Tensor:
        logits: Tensor = network.fc(pixels.new_zeros(len(pixels), network.fc.in_features))
        return logits

    monkeypatch.setattr(torch.optim, "SGD", Recorded)
    monkeypatch.setattr(airbench.Filters, "step", lambda filters, rate: None)
    airbench.train(network, run, images, torch.arange(8), argparse.Namespace(batches=1, precision="32-true"), 0)
    stem, norm, head = network.stem[0].bias, network.stages[0][2].bias, network.fc.weight
    for parameter, rate, epochs in ((stem, 0.053, 3), (norm, 0.053, 8), (head, 0.67, 8)):
        expected = [rate * max(0, 1 - step / epochs) for step in range(8)]
        assert [each[id(parameter)] for each in rates] == pytest.approx(expected)


def what_the_other_method_trains(root: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[torch.nn.Module, Tensor]:
    """The network and the images."""
    found: list[tuple[torch.nn.Module, Tensor]] = []

    def train(network: torch.nn.Module, run: object, images: Tensor, *args: object) -> float:
        found.append((network, images))
        return 1.0

    monkeypatch.setattr(airbench, "train", train)
    monkeypatch.setattr(airbench, "accuracies", lambda *args: {"plain": 0.5})
    monkeypatch.setattr(sys, "argv", ["airbench", "--dataset=folder", f"--root={root}"])
    airbench.main()
    return found[-1]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("instructions", ["AVX2", "AVX512"])
def test_the_other_method_has_the_convolutions_that_fit_chooses(
    instructions: str, colours: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: instructions)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    network, _ = what_the_other_method_trains(colours, monkeypatch)
    assert any("_conv_forward" in vars(module) for module in network.modules()) == (instructions == "AVX2")


def test_both_sides_train_on_images_of_one_shape(colours: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accuracy_time, "precision", lambda: "32-true")
    words = accuracy_time.options(Settings("folder", str(colours), 1, 1), accuracy_time.SHORT, 0)
    data = build([*words, *BARE, "--trainer.accelerator=cpu"]).datamodule
    _, images = what_the_other_method_trains(colours, monkeypatch)
    assert tuple(images.shape[1:]) == (data.in_channels, data.image_size, data.image_size) == (3, 32, 32)
