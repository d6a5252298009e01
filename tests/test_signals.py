"""The signal through the blocks of a network at a training step."""

import math
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

from cvcc_zoo import FCNN, ImageDataModule
from cvcc_zoo.inspection.batches import images_for, whitened_batch
from cvcc_zoo.inspection.statistics import signals
from cvcc_zoo.inspection.subjects import find_subject
from tests.conftest import Fit
from tests.test_initialisation import SMALL, build, images, layers

NAMES = {
    "FCNN": ["layers.0", "layers.4", "fc"],
    "CNN": ["stages.0.0", "stages.0.4", "stages.1.0", "stages.1.4", "fc"],
    "plain": ["conv1", "layer1.0", "layer2.0", "layer3.0", "fc"],
    "ResNet": ["conv1", "layer1.0", "layer2.0", "layer3.0", "fc"],
    "ResNet A": ["conv1", *(f"layer{stage}.{block}" for stage in (1, 2, 3) for block in (0, 1)), "fc"],
    "ResNeXt": ["conv1", "layer1.0", "layer2.0", "layer3.0", "fc"],
    "WideResNet": ["conv1", "layer1.0", "layer2.0", "layer3.0", "bn", "fc"],
}


def loss(logits: Tensor) -> Tensor:
    return nn.functional.cross_entropy(logits, torch.arange(len(logits)) % 10)


@pytest.mark.parametrize("name", SMALL)
def test_every_parameter_belongs_to_one_block(name: str) -> None:
    network = build(name).network
    found = signals(network, images(), loss)
    assert [signal.block for signal in found] == NAMES[name]
    assert all(p.grad is None for p in network.parameters())
    torch.manual_seed(0)
    network.train()
    torch.autograd.backward(loss(network(images())))
    squares = sum(p.grad.square().sum().item() for p in network.parameters() if p.grad is not None)
    if name != "FCNN":  # it drops other units each time
        assert sum(signal.weight_gradient**2 for signal in found) == pytest.approx(squares, rel=1e-4)


@pytest.mark.parametrize("name", ["test_convnext", "test_efficientnet", "test_vit"])
def test_every_parameter_of_a_network_of_timm_belongs_to_one_block(name: str) -> None:
    options: dict[str, Any] = {"img_size": 32} if "vit" in name else {}
    network = timm.create_model(name, num_classes=10, **options).train()
    x = torch.randn(8, 3, 32, 32)
    found = signals(network, x, loss)
    torch.autograd.backward(loss(network(x)))
    squares = sum(p.grad.square().sum().item() for p in network.parameters() if p.grad is not None)
    assert sum(signal.weight_gradient**2 for signal in found) == pytest.approx(squares, rel=1e-4)
    assert len(found) > 4 and all(signal.block for signal in found)


class Own(nn.ReLU):
    """A class of the user's below one of torch's."""


@pytest.mark.parametrize("activation", [nn.LeakyReLU, nn.ELU, nn.Sigmoid, nn.PReLU, Own])
def test_every_activation_ends_a_block(activation: type[nn.Module]) -> None:
    layers = [nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), activation()) for _ in range(3)]
    network = nn.Sequential(*layers, nn.Flatten(), nn.Linear(3 * 64, 10), nn.LogSoftmax(1))
    found = signals(network, torch.randn(4, 3, 8, 8), loss)
    assert [signal.block for signal in found] == ["0.0", "1.0", "2.0", "fc"]


def test_the_numbers_are_those_of_what_each_hidden_layer_gives() -> None:
    torch.manual_seed(0)
    model = FCNN(hidden=[32, 16], dropout=0.0, image_size=8, whitening="none")
    x = torch.randn(16, 3, 8, 8)
    network = model.parted
    given = network.train().features(x)
    gradients = torch.autograd.grad(loss(network.classify(given[-1])), given)
    for signal, output, gradient in zip(signals(network, x, loss), given, gradients, strict=False):
        assert signal.mean == pytest.approx(output.mean().item())
        assert signal.second_moment == pytest.approx(output.square().mean().item())
        assert signal.deviation == pytest.approx(output.std(correction=0).item())
        assert signal.zeros == (output == 0).float().mean().item()
        assert signal.gradient == pytest.approx(gradient.norm().item())


# Thirty hidden layers of equal width


def deep(norm: str, init: str) -> FCNN:
    """For inputs (N, 8, 8, 8)."""
    return FCNN(hidden=[512] * 30, norm=norm, init=init, in_channels=8, image_size=8, whitening="none", dropout=0.0)


@pytest.mark.parametrize(("init", "factor"), [("kaiming", 1), ("xavier", 1 / 2), ("torch", 1 / 6)])
def test_the_second_moment_changes_by_the_known_factor_in_each_relu_layer(init: str, factor: float) -> None:
    logs = []
    for seed in (0, 1, 2):
        torch.manual_seed(seed)
        network, x = deep("none", init).network, torch.randn(64, 8, 8, 8)
        for layer in layers(network):
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]  # those of torch are not, and add a little
        *_, last, _ = signals(network, x, loss)
        logs.append(math.log(last.second_moment / x.square().mean()) / 30)
    assert math.exp(sum(logs) / 3) == pytest.approx(factor, rel=0.02)


def test_the_gradient_grows_backwards_through_batch_norm_and_relu() -> None:
    """sqrt(pi / (pi - 1)) in each layer: https://arxiv.org/abs/1902.08129."""
    torch.manual_seed(0)
    network = deep("batch", "kaiming").network
    first, *_, last, _ = signals(network, torch.randn(256, 8, 8, 8), lambda logits: (logits * noise(logits)).sum())
    growth = (first.gradient / last.gradient) ** (1 / 29)
    assert growth == pytest.approx(math.sqrt(math.pi / (math.pi - 1)), rel=0.01)


def noise(like: Tensor) -> Tensor:
    return torch.randn(like.shape)


def test_shortcuts_keep_the_gradient_that_explodes_in_a_plain_network() -> None:
    growth = {}
    for name in ("plain56", "resnet56"):
        torch.manual_seed(0)
        network = find_subject(name, {"image_size": 8}).network
        first, *_, last, _ = signals(network, torch.randn(16, 3, 8, 8), loss)
        growth[name] = first.gradient / last.gradient
    assert growth["plain56"] > 20 * growth["resnet56"]


# Images


def test_a_fresh_model_is_measured_as_a_training_would_start_it() -> None:
    subject = find_subject("CNN{channels: [8, 16], init: lsuv, image_size: 8, in_channels: 1}", {})
    assert subject.model is not None
    x, labels = whitened_batch(subject, "fashion-mini", None, 100)
    assert x.shape == (100, 1, 8, 8) and set(labels.tolist()) == set(range(10))
    data = ImageDataModule(image_size=8, in_channels=1)
    raw, _, samples = data.training_images()
    assert torch.allclose(x, data.fit_whitening()(raw[samples[torch.arange(100) * len(samples) // 100]]))
    assert vars(subject.network)["from_images"] is None  # LSUV has set its scales
    again, _ = whitened_batch(subject, "fashion-mini", None, 100)
    assert torch.equal(x, again)


def test_trained_weights_keep_the_statistics_that_they_were_trained_with() -> None:
    subject = find_subject("linear.fashion_mnist", {})
    assert subject.model is not None
    before = subject.model.whitening.mean.clone()
    x, labels = whitened_batch(subject, "fashion-mini", None, 500)
    assert torch.equal(subject.model.whitening.mean, before) and abs(x.mean()) < 0.1
    assert (subject.network(x).argmax(1) == labels).float().mean() > 0.8


def test_a_run_is_measured_on_its_own_images_with_labels_in_the_order_of_its_classes(fit: Fit) -> None:
    assert fit("--model=linear", "--trainer.max_epochs=5") == 0
    subject = find_subject("runs/linear-colours", {})
    x, labels = whitened_batch(subject, None, None, 36)
    assert labels.tolist() == 18 * [0] + 18 * [1] and torch.equal(subject.network(x).argmax(1), labels)
    subject.model.classes = ("red", "blue")  # as of weights that it was fine-tuned from
    assert torch.equal(whitened_batch(subject, None, None, 36)[1], 1 - labels)


def test_given_images_are_prepared_as_in_the_training_and_their_links_are_followed(colours: Path) -> None:
    subject = find_subject("linear.fashion_mnist", {})
    assert subject.trained is not None
    subject.model.shaping = {"resize": "crop", "background": "black"}
    Path("linked").mkdir()
    Path("linked/train").symlink_to(colours / "train")
    for dataset in (None, "folder"):
        data = images_for(subject, dataset, "linked")
        assert [data.options[name] for name in ("resize", "background", "image_size")] == ["crop", "black", 28]


@pytest.mark.parametrize(
    ("name", "dataset", "count", "message"),
    [
        ("timm/resnet18", "fashion-mini", 4, "num_classes=1000, but the images of"),
        ("linear", "fashion-mini", 1, "--images=2 or more, got 1"),
        ("linear", "fashion-mini", 10**6, "choose 1 to 5,400 of the training images"),
        ("linear{num_classes: 7}", "fashion-mini", 4, "num_classes=7, but the images of"),
        ("linear{in_channels: 2}", "fashion-mini", 4, "1 \\(grey\\) or 3"),
        ("linear.cifar10", None, 4, "the model's classes are not those of fashion-mini"),
    ],
)
def test_images_that_do_not_fit_are_refused(name: str, dataset: str | None, count: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        whitened_batch(find_subject(name, {}), dataset, None, count)
