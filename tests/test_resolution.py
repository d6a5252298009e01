"""A training may start on smaller images, or on their middle."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Callback, Trainer

from cvcc_zoo.cli.lightning import build
from cvcc_zoo.data.augment import augment, make_augmentations
from cvcc_zoo.data.draws import Draws
from cvcc_zoo.data.resolution import Resolutions
from tests.conftest import QUICK


def test_sizes_grow_with_the_epochs() -> None:
    assert Resolutions({"24": 0.3, "16": 0.5}, 32).shares == {16: 0.5, 24: 0.3}  # type: ignore[dict-item]
    resolutions = Resolutions({24: 0.3, 16: 0.5}, 32)
    assert [resolutions.size(epoch, 10) for epoch in range(10)] == [16] * 5 + [24] * 3 + [32] * 2
    images = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
    assert resolutions.reduce(images, 0, 10).shape == (2, 3, 16, 16)
    assert resolutions.reduce(images, 9, 10).shape == (2, 3, 32, 32)


def test_the_middle_of_images_comes_first() -> None:
    resolutions = Resolutions({16: 0.2}, 32, {24: 0.4, 29: 0.2})
    assert [resolutions.size(epoch, 10) for epoch in range(10)] == [16] * 2 + [24] * 4 + [29] * 2 + [32] * 2
    images = torch.arange(2 * 3 * 32 * 32).view(2, 3, 32, 32)
    assert torch.equal(resolutions.reduce(images, 2, 10), images[:, :, 4:28, 4:28])
    assert torch.equal(resolutions.reduce(images, 6, 10), images[:, :, 1:30, 1:30])
    assert torch.equal(resolutions.reduce(images, 9, 10), images)


@pytest.mark.parametrize(("padding", "sides"), [(2, {0}), (3, {0, 1})])
def test_the_middle_of_a_random_crop_has_no_padding(padding: int, sides: set[int]) -> None:
    """A crop by at most 2 pixels leaves only pixels of the image in the middle 28 of 32."""
    crop = make_augmentations([{"name": "RandomCrop", "padding": padding}])
    images, labels = torch.full((500, 3, 32, 32), 255, dtype=torch.uint8), torch.zeros(500, dtype=torch.int64)
    cropped, _ = augment(crop, images, labels, Draws(0, 0, torch.arange(500)), 10)
    middle = Resolutions({}, 32, {28: 0.5}).reduce(cropped, 0, 10)
    assert {int((image == 0).any()) for image in middle} == sides


@pytest.mark.parametrize(
    ("shares", "words"),
    [
        ({32: 0.5}, "sizes must be 8 to 31"),
        ({4: 0.5}, "sizes must be 8 to 31"),
        ({16: 0.5, 24: 0.5}, "leave epochs for the full size"),
        ({16: 0.0}, "shares of the epochs must be in"),
    ],
)
def test_wrong_resolutions_are_told(shares: dict[int, float], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Resolutions(shares, 32)


@pytest.mark.parametrize(
    ("resizing", "cropping", "words"),
    [
        ({16: 0.5}, {16: 0.2}, "16 pixels are in both progressive_resizing and progressive_cropping"),
        ({16: 0.5}, {24: 0.5}, "progressive_resizing and progressive_cropping add up to 1"),
        ({}, {32: 0.5}, "progressive_cropping: sizes must be 8 to 31"),
        ({}, [24], "progressive_cropping must map sizes to shares"),
    ],
)
def test_wrong_crops_are_told(resizing: dict[int, float], cropping: dict[int, float], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Resolutions(resizing, 32, cropping)


class Sizes(Callback):
    """Height and width of the images of each epoch."""

    def __init__(self) -> None:
        self.seen: dict[int, tuple[int, ...]] = {}

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self.seen[trainer.current_epoch] = tuple(batch[0].shape[2:])


def test_a_training_on_growing_images_runs(colours: Path) -> None:
    more = ["--data.progressive_resizing={8: 0.3}", "--data.progressive_cropping={12: 0.3}", "--trainer.max_epochs=3"]
    words = ["--model=resnet20", "--data.dataset=folder", f"--data.root={colours}", "--data.image_size=16", *more]
    built, sizes = build([*words, *QUICK[1:]]), Sizes()
    built.trainer.callbacks.append(sizes)  # type: ignore[attr-defined]
    built.trainer.fit(built.model, built.datamodule)
    assert sizes.seen == {0: (8, 8), 1: (12, 12), 2: (16, 16)}


def test_growing_images_need_a_training_with_an_end(fit: Any, capsys: pytest.CaptureFixture[str]) -> None:
    data = ["--data.image_size=16", "--data.progressive_cropping={8: 0.5}"]
    length = ["--trainer.max_epochs=-1", "--trainer.max_time=00:00:05:00", "--lr_scheduler=null"]
    assert fit("--model=resnet20", *data, *length) == 2
    printed = capsys.readouterr().err
    assert "progressive_resizing and progressive_cropping need the length of the training run: set --trainer" in printed
    assert "whichever comes first), or leave them out" in printed
    assert not list(Path("runs").iterdir())


@pytest.mark.parametrize(("model", "size", "smaller"), [("linear", 16, 8), ("timm.test_vit", 32, 24)])
def test_a_network_of_one_size_refuses_growing_images_before_the_training(
    model: str, size: int, smaller: int, fit: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    growing = f"--data.progressive_resizing={{{smaller}: 0.5}}"
    assert fit(f"--model={model}", f"--data.image_size={size}", growing) == 2
    printed = capsys.readouterr().err
    assert "progressive_resizing and progressive_cropping need a network that takes images of any size" in printed
    assert not list(Path("runs").iterdir())
