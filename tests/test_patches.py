"""Patch whitening: the first convolution is set from the images once, frozen, and kept."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Trainer
from torch import Tensor, nn

from cvcc_zoo import ImageDataModule, create, load
from cvcc_zoo.classifier import ImageClassifier
from cvcc_zoo.classifier.patch_whitening import first_convolution, patch_filters, whiten_patches


@pytest.fixture(scope="module")
def x() -> Tensor:
    data = ImageDataModule()
    images, _, samples = data.training_images()
    white: Tensor = data.fit_whitening()(images[samples[:300]])
    return white


def patch_moment(x: Tensor, filters: Tensor) -> Tensor:
    answers = nn.functional.conv2d(x.double(), filters).transpose(0, 1).flatten(1)
    moment: Tensor = answers @ answers.T / answers.shape[1]
    return moment


def test_the_answers_are_uncorrelated_with_the_share_l_over_l_plus_eps(x: Tensor) -> None:
    eps = 5e-4
    patches = nn.functional.unfold(x.double(), 2).transpose(0, 1).flatten(1)
    values = torch.linalg.eigvalsh(patches @ patches.T / patches.shape[1]).flip(0)
    filters = patch_filters(x, (2, 2), 8, eps)
    assert torch.equal(filters[::2], -filters[1::2])
    assert torch.allclose(patch_moment(x, filters[::2]), torch.diag(values / (values + eps)), atol=1e-10)


def test_more_filters_than_directions_are_unit_mixtures_of_them(x: Tensor) -> None:
    filters = patch_filters(x, (2, 2), 20, 0.0)
    assert torch.allclose(patch_moment(x, filters).diagonal(), torch.ones(20, dtype=torch.float64))
    assert torch.equal(filters[:8], patch_filters(x, (2, 2), 8, 0.0))


def test_directions_without_variance_get_filters_of_zeros_if_eps_is_0(x: Tensor) -> None:
    filters = patch_filters(x.expand(-1, 3, -1, -1), (2, 2), 24, 0.0)
    assert torch.equal(filters.flatten(1).any(1), torch.arange(24) < 8)
    assert torch.allclose(patch_moment(x.expand(-1, 3, -1, -1), filters[:8:2]), torch.eye(4, dtype=torch.float64))


def train(model: ImageClassifier, data: ImageDataModule, epochs: int = 1) -> Trainer:
    trainer = Trainer(
        max_epochs=epochs, limit_train_batches=3, limit_val_batches=1, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, log_every_n_steps=1, accelerator="cpu",
    )  # fmt: skip
    trainer.fit(model, data)
    return trainer


def small(name: str, **options: Any) -> ImageClassifier:
    return create(name, in_channels=1, image_size=8, patch_whitening=5e-4, **options)


@pytest.mark.parametrize("name", ["cnn_small", "resnet20", "wrn16_4", "resnext20_16x4d"])
def test_a_model_can_ask_for_it_and_its_first_convolution_is_not_trained(name: str, tmp_path: Path) -> None:
    model = small(name)
    data = ImageDataModule(image_size=8, batch_size=16)
    trainer = train(model, data)
    images, _, samples = data.training_images()
    expected = create(name, in_channels=1, image_size=8).network
    spread = [number * len(samples) // 5000 for number in range(5000)]  # of 5,400: not the first 5,000
    whiten_patches(expected, model.whitening(images[samples[spread]]), 5e-4)
    weight = first_convolution(model.network, 1).weight
    assert torch.equal(weight, first_convolution(expected, 1).weight) and not weight.requires_grad
    trainer.save_checkpoint(tmp_path / "a.ckpt", weights_only=False)
    loaded = load(tmp_path / "a.ckpt")
    train(loaded, ImageDataModule(dataset="fashion-mini", image_size=8, batch_size=16, validation=0.5))
    assert torch.equal(first_convolution(loaded.network, 1).weight, weight)  # other images, but it was set already


def test_a_network_without_a_convolution_says_so() -> None:
    with pytest.raises(ValueError, match="this network has no convolution that takes the images; leave it out"):
        train(small("linear"), ImageDataModule(image_size=8))


def test_a_negative_eps_is_refused() -> None:
    with pytest.raises(ValueError, match="patch_whitening is added to variances and must be at least 0"):
        create("cnn", patch_whitening=-1.0)


def test_without_an_image_data_module_it_says_where_the_images_come_from() -> None:
    model = small("cnn_small", whitening="none")
    batch = (torch.zeros(4, 1, 8, 8), torch.zeros(4, dtype=torch.int64))
    trainer = Trainer(
        max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    with pytest.raises(ValueError, match="train with an ImageDataModule"):
        trainer.fit(model, [batch], [batch])
