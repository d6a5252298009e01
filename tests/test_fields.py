"""Receptive fields: what is followed through the operations is where gradients arrive."""

from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

from cvcc_zoo import CNN, FCNN, Linear, ResNet, ResNeXt, WideResNet
from cvcc_zoo.inspection.fields import Field, Seen, Span, union
from cvcc_zoo.inspection.layers import SILENT, inventory, pixels, stride

SIZE = 64


class Odd(nn.Sequential):
    """What no family has: windows that are not square, holes, padding, means of windows that overlap."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(3, 4, (7, 1), padding=(3, 0)),
            nn.AvgPool2d(3, stride=2, padding=1),
            nn.Conv2d(4, 4, 3, dilation=(1, 2), padding=1, stride=(1, 2)),
            nn.ZeroPad2d((2, 0, 1, 0)),
            nn.Conv2d(4, 2, (2, 3), groups=2),
        )


class Split(nn.Module):
    """Two paths of different length, one after the other in the channels."""

    def __init__(self) -> None:
        super().__init__()
        self.near, self.far = nn.Conv2d(3, 2, 1, stride=2), nn.Conv2d(3, 2, 5, stride=2, padding=2)
        self.last = nn.Conv2d(4, 2, 3)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.last(torch.cat([self.near(x), self.far(x)], 1))
        return y


def of_a_family(family: Any, **options: Any) -> Callable[[], nn.Module]:
    return lambda: family(image_size=SIZE, num_classes=2, **options).network


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "CNN": of_a_family(CNN, channels=[4, 8], convolutions=2, pool="mean"),
    "plain": of_a_family(ResNet, depth=8, shortcut="none"),
    "ResNet A": of_a_family(ResNet, depth=14, shortcut="A"),
    "ResNet B": of_a_family(ResNet, depth=8, shortcut="B"),
    "skipinit": of_a_family(ResNet, depth=8, norm="none", init="skipinit"),
    "fixup": of_a_family(WideResNet, depth=10, width=1, norm="none", init="fixup"),
    "ResNeXt": of_a_family(ResNeXt, depth=11, cardinality=2, base_width=4),
    "WideResNet": of_a_family(WideResNet, depth=10, width=1),
    "layer norm": of_a_family(ResNet, depth=8, norm="layer", activation="gelu"),
    "FCNN": of_a_family(FCNN, hidden=[4, 4]),
    "Linear": of_a_family(Linear),
    "odd": Odd,
    "split": Split,
}


def where_gradients_arrive(network: nn.Module) -> list[tuple[str, tuple[int, ...], Tensor]]:
    """Each layer, the position of a value in the middle of what it gives, and which pixels it depends on (H, W)."""
    network = network.double().eval()
    for p in network.parameters():
        p.data.abs_().add_(0.1)  # nothing cancels, no ReLU is off
    outputs: list[tuple[str, Tensor]] = []
    for name, module in network.named_modules():
        if not list(module.children()) and not isinstance(module, SILENT):
            module.register_forward_hook(lambda _m, _i, output, name=name: outputs.append((name, output)))
    x = torch.rand(1, 3, SIZE, SIZE, dtype=torch.float64, requires_grad=True)
    network(x)
    found = []
    for name, output in outputs:
        middle = tuple(size // 2 for size in output.shape[2:])
        value = output.movedim(1, -1)[(0, *middle)].sum()  # over the channels
        (gradient,) = torch.autograd.grad(value, x, retain_graph=True)
        found.append((name, middle, gradient[0].abs().sum(0) > 0))
    return found


@pytest.mark.parametrize("name", NETWORKS)
def test_a_field_is_where_gradients_arrive(name: str) -> None:
    torch.manual_seed(0)
    network = NETWORKS[name]()
    layers = inventory(network, (3, SIZE, SIZE)).layers
    measured = where_gradients_arrive(network)
    assert [layer.name for layer in layers] == [name for name, _, _ in measured]
    for layer, (_, middle, seen) in zip(layers, measured, strict=True):
        if isinstance(layer.field, Seen):
            assert layer.name == "dropout" or (layer.field is Seen.EVERYTHING and seen.all()), layer
            continue
        for span, position, others in zip(layer.field, middle, (1, 0), strict=True):
            (there,) = torch.where(seen.any(others))
            assert (int(there[0]), int(there[-1])) == (
                span.first + position * span.jump,
                span.last + position * span.jump,
            ), layer


def last(network: nn.Module, shape: tuple[int, int, int], name: str) -> Field:
    return next(layer.field for layer in reversed(inventory(network, shape).layers) if layer.name == name)


@pytest.mark.parametrize(
    ("model", "layer", "size", "step"),
    [
        ("vgg16", "features.30", 212, 32),  # https://distill.pub/2019/computing-receptive-fields/, table 1
        ("resnet18", "layer4.1.act2", 11 + 4 * 8 + (8 + 3 * 16) + (16 + 3 * 32) + (32 + 3 * 64), 32),
        ("resnet50", "layer4.2.act3", 11 + 3 * 8 + (8 + 3 * 16) + (16 + 5 * 32) + (32 + 2 * 64), 32),
    ],
)
def test_the_fields_of_known_networks(model: str, layer: str, size: int, step: int) -> None:
    with torch.device("meta"):
        network = timm.create_model(model)
    field = last(network, (3, 224, 224), layer)
    assert (pixels(field), stride(field)) == (size, step)


def test_resnets_of_depth_6n_plus_2_see_what_the_formula_says() -> None:
    for depth in (8, 20, 56):
        n = (depth - 2) // 6
        network = ResNet(depth=depth).network
        field = last(network, (3, 32, 32), f"layer3.{n - 1}.activation2")
        stages = 2 * 2 * n * 1 + (2 + 2 * 2 * (2 * n - 1)) + (4 + 4 * 2 * (2 * n - 1))
        assert (pixels(field), stride(field)) == (3 + stages, 4)


def test_max_and_mean_pooling_see_the_same() -> None:
    fields = [
        [layer.field for layer in inventory(CNN(pool=pool).network, (3, 32, 32)).layers] for pool in ("max", "mean")
    ]
    assert fields[0] == fields[1]


@pytest.mark.parametrize("pool", ["max", "mean"])
def test_global_pooling_sees_the_whole_image(pool: str) -> None:
    *_, pooled, classifier = inventory(ResNet(depth=8, pool=pool).network, (3, 32, 32)).layers
    assert pixels(pooled.field) == pixels(classifier.field) == "all"


def test_what_is_not_followed_is_not_known_and_everything_stays_everything() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ConvTranspose2d(4, 4, 2), nn.ReLU())
    fields = [layer.field for layer in inventory(network, (3, 8, 8)).layers]
    assert [pixels(field) for field in fields] == [3, None, None] and stride(fields[1]) is None
    one, two = (Span(-1, 1, 2), Span(-1, 1, 2)), (Span(0, 3, 2), Span(-2, 0, 2))
    assert union([one, two]) == (Span(-1, 3, 2), Span(-2, 1, 2))
    assert union([one, (Span(), Span())]) is Seen.UNKNOWN  # values of different distance cannot be joined
    assert union([one, Seen.UNKNOWN, Seen.EVERYTHING]) is Seen.EVERYTHING
    assert pixels((Span(0, 6), Span())) == "7x1"
