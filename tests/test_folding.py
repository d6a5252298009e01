"""Folded norms: a model that evaluates faster gives the same classes."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import cvcc_zoo
from cvcc_zoo.classifier.network import fold_norms
from cvcc_zoo.runs.measure import measure
from cvcc_zoo.runs.scores import scores

CONVOLUTIONAL = ["cnn_small", "resnet20", "resnet18", "plain20", "resnext20_16x4d", "wrn16_4"]
NORMS = (nn.BatchNorm2d,)


def trained(name: str, **options: Any) -> cvcc_zoo.ImageClassifier:
    """A model whose norms have statistics and weights as after a training."""
    model = cvcc_zoo.create(name, whitening="none", **options).eval()
    set_statistics(model)
    return model


def set_statistics(model: nn.Module) -> None:
    generator = torch.Generator().manual_seed(0)
    for norm in norms(model):
        assert norm.running_mean is not None and norm.running_var is not None
        norm.running_mean.normal_(generator=generator)
        norm.running_var.uniform_(0.5, 2, generator=generator)
        nn.init.uniform_(norm.weight, -1, 2, generator=generator)
        nn.init.normal_(norm.bias, generator=generator)


def norms(model: nn.Module) -> list[nn.BatchNorm1d | nn.BatchNorm2d]:
    return [module for module in model.modules() if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d)]


def images() -> Tensor:
    return torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", CONVOLUTIONAL)
def test_a_folded_model_gives_the_same_logits(name: str) -> None:
    model = trained(name)
    with torch.inference_mode():
        expected, found = model(images()), model.folded()(images())
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("name", ["resnet20", "resnet18", "plain20", "resnext20_16x4d"])
def test_every_norm_after_a_convolution_is_folded(name: str) -> None:
    assert norms(trained(name)) and not norms(trained(name).folded())


@pytest.mark.parametrize("options", [{"norm": "group"}, {"norm": "none"}, {"norm": "none", "init": "fixup"}])
def test_other_norms_stay(options: dict[str, Any]) -> None:
    model = trained("resnet20", **options)
    with torch.inference_mode():
        torch.testing.assert_close(model.folded()(images()), model(images()), rtol=1e-4, atol=1e-5)


def test_the_model_itself_stays_as_it_was() -> None:
    model = trained("resnet20")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    folded = model.folded()
    with torch.no_grad():
        for parameter in folded.network.parameters():
            parameter.zero_()
    assert not folded.training and folded.whitening is model.whitening
    assert len(norms(model)) == 21 and model.network is not folded.network
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


class LooksAtValues(nn.Module):
    """A network without a graph: its way depends on what comes in."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(self.conv(x))
        return y.relu() if x.mean() > 0 else y


def test_a_network_that_looks_at_values_keeps_its_norms() -> None:
    network = LooksAtValues().eval()
    folded = fold_norms(network)
    x = torch.randn(2, 3, 8, 8)
    assert norms(folded) and torch.equal(folded(x), network(x))


class Twice(nn.Module):
    """A network that uses its layers in several places, in the way that is chosen."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way = way
        self.conv, self.other = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)
        self.norm, self.second = nn.BatchNorm2d(3), nn.BatchNorm2d(3)
        self.blocks = nn.Sequential(*[nn.Sequential(self.conv, self.norm)] * 3)
        self.end, self.last = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor
        if self.way == "loop":
            for _ in range(3):
                x = self.norm(self.conv(x)).relu()
            y = x
        elif self.way == "blocks":
            y = self.blocks(x)
        elif self.way == "two norms":
            y = self.norm(self.conv(x)) + self.second(self.conv(x + 1))
        elif self.way == "two convolutions":
            y = self.norm(self.conv(x)) + self.norm(self.other(x))
        elif self.way == "without a norm":
            y = self.norm(self.conv(x)) + self.conv(x)
        else:
            y = self.norm(self.conv(x)) + nn.functional.conv2d(x, self.conv.weight, padding=1)
        z: Tensor = self.last(self.end(y))
        return z


@pytest.mark.parametrize(
    "way", ["loop", "blocks", "two norms", "two convolutions", "without a norm", "the weight alone"]
)
def test_layers_that_are_used_in_several_places_keep_their_norms(way: str) -> None:
    network = Twice(way).eval()
    set_statistics(network)
    folded = fold_norms(network)
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(folded(x), network(x), rtol=1e-4, atol=1e-5)
    assert not any(norm.num_features == 4 for norm in norms(folded))  # the last one is used once


@pytest.mark.parametrize("channels", [6, 5])
def test_a_norm_after_a_linear_layer_stays(channels: int) -> None:
    """Tokens (N, T, D) are normed over T, the outputs of the linear layer are along D."""
    network = nn.Sequential(nn.Linear(5, 5), nn.BatchNorm1d(channels)).eval()
    set_statistics(network)
    x = torch.randn(2, channels, 5, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(fold_norms(network)(x), network(x))


def test_a_convolution_with_spectral_norm_keeps_its_batch_norm() -> None:
    convolution = nn.Conv2d(3, 4, 3)
    torch.nn.utils.spectral_norm(convolution)
    network = nn.Sequential(convolution, nn.BatchNorm2d(4)).eval()
    set_statistics(network)
    x = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        expected = network(x)  # makes the weight a tensor that can be copied
        torch.testing.assert_close(fold_norms(network)(x), expected)


def doubled(module: nn.Module, _: Any, output: Tensor) -> Tensor:
    return 2 * output


OWN: dict[str, Callable[[Any], Any]] = {
    "a hook": lambda network: network.register_forward_hook(doubled),
    "a hook before": lambda network: network.register_forward_pre_hook(lambda _, inputs: (2 * inputs[0],)),
    "another forward": lambda network: vars(network).update(forward=lambda x: 2 * network[2](network[0](x))),
    "another forward of the convolution": lambda network: vars(network[0]).update(forward=lambda x: 2 * x),
    "another forward of the norm": lambda network: vars(network[2]).update(forward=lambda x: 2 * x),
    "a hook between the two": lambda network: network[1].register_forward_hook(doubled),
}


@pytest.mark.parametrize("own", OWN)
def test_what_a_call_does_beside_the_forward_of_the_class_is_done_by_the_copy_too(own: str) -> None:
    network = nn.Sequential(nn.Conv2d(3, 3, 3), nn.Identity(), nn.BatchNorm2d(3)).eval()
    set_statistics(network)
    OWN[own](network)
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(fold_norms(network)(x), network(x))


def test_mirrored_scores_are_those_of_the_mirror_images() -> None:
    model, data = create_mirrored()
    model.eval()
    once, labels = scores(model, data)
    mirrored, again = scores(model, data, mirrored=True)
    found = data.test_dataloader().images
    with torch.inference_mode():
        expected = model(found.flip(-1))
    assert torch.equal(labels, again) and not torch.allclose(once, mirrored, atol=1e-3)
    torch.testing.assert_close(mirrored, expected, rtol=1e-4, atol=1e-4)
    both = measure(model, data, mirrored=True)["mirrored_accuracy"]
    assert both == pytest.approx(float(((once + mirrored).argmax(1) == labels).float().mean()))


def create_mirrored() -> tuple[cvcc_zoo.ImageClassifier, cvcc_zoo.ImageDataModule]:
    data = cvcc_zoo.ImageDataModule(batch_size=500)
    model = cvcc_zoo.create("cnn_small", in_channels=1, image_size=28)
    model.whitening = data.fit_whitening()
    return model, data
