"""Norms, activations, pooling and dropout: what each does to the numbers."""

import math
from typing import Any

import pytest
import torch
from torch import nn

from cvcc_zoo import CNN, FCNN, ResNet, ResNeXt, WideResNet, create
from cvcc_zoo.models.layers import ACTIVATIONS, GROUPS, NORMS, Layers, make_norm
from cvcc_zoo.registry import ENTRIES

FAMILIES: dict[str, dict[str, Any]] = {
    "CNN": {"channels": [8, 16], "convolutions": 1},
    "ResNet": {"depth": 8},
    "ResNeXt": {"depth": 11, "cardinality": 4, "base_width": 4},
    "WideResNet": {"depth": 10, "width": 1},
}


def build(family: str, **options: Any) -> Any:
    torch.manual_seed(0)
    classes = {"CNN": CNN, "ResNet": ResNet, "ResNeXt": ResNeXt, "WideResNet": WideResNet}
    return classes[family](**FAMILIES[family], **{"image_size": 8, "whitening": "none", **options})


def test_layer_is_torchs_layer_norm_over_channels_and_pixels() -> None:
    x = 3 * torch.randn(4, 16, 5, 5) + 1
    assert torch.allclose(make_norm("layer", 16)(x), nn.LayerNorm([16, 5, 5])(x), atol=1e-5)
    over_channels = nn.LayerNorm(16)(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)  # ConvNeXt's
    assert not torch.allclose(make_norm("layer", 16)(x), over_channels, atol=0.1)


def test_group_normalises_eight_groups_and_with_eight_channels_each_by_itself() -> None:
    x = 3 * torch.randn(4, 16, 5, 5) + 1
    groups = make_norm("group", 16)(x).unflatten(1, (GROUPS, -1))
    assert torch.allclose(groups.mean((2, 3, 4)), torch.zeros(4, GROUPS), atol=1e-5)
    assert torch.allclose(groups.var((2, 3, 4), correction=0), torch.ones(4, GROUPS), atol=1e-3)
    assert torch.allclose(make_norm("group", 8)(x[:, :8]), nn.InstanceNorm2d(8)(x[:, :8]), atol=1e-5)


def test_eight_groups_divide_the_channels_of_every_named_model() -> None:
    for name in ENTRIES:
        with torch.device("meta"):
            options: dict[str, Any] = {"norm": "group"} if name not in ("linear", "ridge", "fcnn") else {}
            network = create(name, **options).network
        channels = [m.num_channels for m in network.modules() if isinstance(m, nn.GroupNorm)]
        assert (channels and min(channels) >= 2 * GROUPS) or name in ("linear", "ridge", "fcnn")
    with pytest.raises(ValueError, match="8 groups, which do not divide 12 channels; use channels that are a mult"):
        CNN(channels=[12], norm="group")


def test_batch_norm_divides_by_the_biased_variance_and_stores_the_unbiased_one() -> None:
    norm, x = make_norm("batch", 2), torch.randn(3, 2, 2, 2)
    assert isinstance(norm, nn.BatchNorm2d) and norm.running_var is not None
    biased, unbiased = (x.var((0, 2, 3), correction=c) for c in (0, 1))
    expected = (x - x.mean((0, 2, 3), keepdim=True)) / (biased[:, None, None] + norm.eps).sqrt()
    assert torch.allclose(norm(x), expected, atol=1e-5)
    assert torch.allclose(norm.running_var, 0.9 + 0.1 * unbiased)


def test_batch_norm_needs_more_than_one_value_for_a_channel() -> None:
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        make_norm("batch", 4)(torch.randn(1, 4, 1, 1))


@pytest.mark.parametrize("eps", [1e-30, 0.1])
def test_before_batch_norm_the_scale_and_bias_of_a_convolution_change_nothing(eps: float) -> None:
    """So the gradient is orthogonal to the weights, but for eps: there each channel gives eps / (v + eps) y dL/dy."""
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 5, 3, dtype=torch.float64)
    norm, x = nn.BatchNorm2d(5, eps=eps, dtype=torch.float64), torch.randn(4, 3, 6, 6, dtype=torch.float64)
    before, y = conv(x), norm(conv(x))
    towards = torch.randn_like(y)
    y.mul(towards).sum().backward()
    assert conv.weight.grad is not None and conv.bias is not None and conv.bias.grad is not None
    share = eps / (before.var((0, 2, 3), correction=0) + eps)
    expected = (share * (y * towards).sum((0, 2, 3))).sum()
    assert (conv.weight * conv.weight.grad).sum().item() == pytest.approx(expected.item(), abs=1e-9)
    assert torch.allclose(conv.bias.grad, torch.zeros(5, dtype=torch.float64), atol=1e-9)
    with torch.no_grad():
        conv.weight.mul_(7)
        conv.bias.add_(3)
    assert torch.allclose(norm(conv(x)), y, atol=1e-9) == (eps < 1e-9)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("norm", NORMS)
def test_the_norm_is_everywhere_the_one_that_was_asked_for(family: str, norm: str) -> None:
    network = build(family, norm=norm).network
    kinds = {"batch": nn.BatchNorm2d, "layer": nn.GroupNorm, "group": nn.GroupNorm}
    found = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d | nn.GroupNorm)]
    assert all(type(m) is kinds[norm] for m in found) and bool(found) == (norm != "none")
    assert all(m.num_groups == (1 if norm == "layer" else GROUPS) for m in found if isinstance(m, nn.GroupNorm))
    biases = {m.bias is not None for m in network.modules() if isinstance(m, nn.Conv2d)}
    assert biases == {norm == "none"}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_activation_is_everywhere_the_one_that_was_asked_for(family: str) -> None:
    images = torch.rand(4, 3, 8, 8)
    for name, kind in ACTIVATIONS.items():
        network = build(family, activation=name).network
        kinds = {type(module) for module in network.modules()}
        assert kind in kinds and len(kinds & set(ACTIVATIONS.values())) == 1
    logits = {name: build(family, activation=name)(images) for name in ACTIVATIONS}
    assert not any(torch.equal(logits["relu"], logits[name]) for name in logits if name != "relu")


@pytest.mark.parametrize("family", FAMILIES)
def test_every_layer_is_called_once_in_a_pass(family: str) -> None:
    """DeepLift, as in captum, needs it."""
    network, called = build(family).network, list[str]()
    for name, module in network.named_modules():
        if not [*module.children()]:
            module.register_forward_hook(lambda *_, name=name: called.append(name))
    network(torch.rand(2, 3, 8, 8))
    assert len({*called}) == len(called)


@pytest.mark.parametrize("family", ["ResNet", "ResNeXt", "WideResNet"])
def test_global_pooling_takes_the_mean_or_the_largest_of_all_pixels(family: str) -> None:
    images = torch.rand(4, 3, 8, 8)
    for pool in ("mean", "max"):
        model = build(family, pool=pool).eval()
        maps = model.features(images)[-1]
        assert maps.shape[2:] == (2, 2)
        pooled = maps.mean((2, 3)) if pool == "mean" else maps.amax((2, 3))
        assert torch.allclose(model(images), model.network.fc(pooled), atol=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_models_without_batch_norm_learn_and_are_saved_like_the_others(family: str) -> None:
    images, labels = torch.rand(8, 3, 8, 8), torch.arange(8) % 10
    for options in ({"norm": "layer"}, {"norm": "group", "activation": "gelu"}, {"norm": "none"}):
        model = build(family, **options)
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
        losses = []
        for _ in range(25):
            losses.append(model.loss(model(images), labels))
            optimizer.zero_grad()
            losses[-1].backward()
            assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
            optimizer.step()
        assert losses[-1] < 0.9 * losses[0]
        again = build(family, **options)
        again.load_state_dict(model.state_dict())
        assert torch.equal(again.eval()(images), model.eval()(images))


@pytest.mark.parametrize("dropout", [0.2, 0.5])
def test_dropout_keeps_the_mean_and_adds_variance(dropout: float) -> None:
    """Kept values are exactly 1 / (1 - p), so that the mean of a 1 is 1 and its variance p / (1 - p)."""
    torch.manual_seed(0)
    networks = [
        FCNN(hidden=[8], dropout=dropout).network,
        CNN(channels=[8], dropout=dropout).network,
        WideResNet(depth=10, width=1, dropout=dropout).network,
    ]
    for network in networks:
        module = next(m for m in network.modules() if isinstance(m, nn.Dropout))
        dropped = module(torch.ones(1_000_000, dtype=torch.float64))
        assert set(dropped.unique().tolist()) == {0.0, 1 / (1 - dropout)}
        assert dropped.mean().item() == pytest.approx(1, abs=4 * math.sqrt(dropout / (1 - dropout) / 1e6))
        assert dropped.var().item() == pytest.approx(dropout / (1 - dropout), rel=0.01)


def test_layers_are_plain_names_that_are_checked() -> None:
    assert Layers() == Layers("batch", "relu", "kaiming")
    with pytest.raises(ValueError, match="no norm named 'instance'"):
        Layers(norm="instance")
