"""The layers of a network in the order in which they are called, with what they give, cost and see."""

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from cvcc_zoo.inspection.fields import Field, Fields, Seen

SILENT = (nn.Identity, nn.Sequential)  # they do nothing where they hold nothing
OUTSIDE = "(outside of layers)"


@dataclass(frozen=True)
class Layer:
    """A call of a module that holds no other one."""

    name: str
    kind: str
    """Its class; of convolutions and pooling with the window and what is unusual."""
    output: tuple[int, ...]
    """Shape of what it gives for one image: (C, H, W) or (features,)."""
    parameters: int
    """Those that no layer before it has counted."""
    macs: int
    """Multiply-accumulate operations of convolutions and matrix products for one image."""
    field: Field
    """The pixels that a value of it depends on."""


@dataclass(frozen=True)
class Inventory:
    """All layers; parameters and MACs of the network, which are the sums over them."""

    layers: list[Layer]
    parameters: int
    macs: int


def inventory(network: nn.Module, shape: tuple[int, int, int]) -> Inventory:
    """Follow one image (C, H, W) through a network in evaluation mode; nothing is computed, and it stays as it is.

    Parameters and products that belong to no layer become a row of their own, so that rows add up to the totals.
    Raises ValueError if the network does not take images of this shape.
    """
    network = copy.deepcopy(network).to("meta").eval()
    image = torch.empty(1, *shape, device="meta")
    layers: list[Layer] = []
    counted: set[nn.Parameter] = set()
    before: list[int] = []
    with torch.no_grad(), FlopCounterMode(display=False) as counter, Fields(image) as fields:

        def enter(module: nn.Module, _: Any) -> None:
            before.append(counter.get_total_flops())

        def leave(module: nn.Module, _: Any, output: Any) -> None:
            flops = counter.get_total_flops() - before.pop()
            if isinstance(output, Tensor) and not isinstance(module, SILENT):
                new = [p for p in module.parameters() if p not in counted]
                counted.update(new)
                size = sum(p.numel() for p in new)
                seen = fields.of(output)
                layers.append(Layer(names[module], kind(module), tuple(output.shape[1:]), size, flops // 2, seen))

        names = {module: name for name, module in network.named_modules() if not list(module.children())}
        for module in names:
            module.register_forward_pre_hook(enter)
            module.register_forward_hook(leave)
        try:
            output = network(image)
        except (RuntimeError, AssertionError) as error:  # what torch and timm raise for shapes
            size = "x".join(map(str, shape))
            raise ValueError(
                f"{type(network).__name__} does not take images of {size} ({str(error).splitlines()[0]}); "
                "choose another image_size or in_channels"
            ) from error
        macs, field = counter.get_total_flops() // 2, fields.of(output)
    parameters = sum(p.numel() for p in network.parameters())
    rest = parameters - sum(layer.parameters for layer in layers), macs - sum(layer.macs for layer in layers)
    if any(rest):
        layers.append(Layer(OUTSIDE, "", tuple(output.shape[1:]), *rest, field))
    return Inventory(layers, parameters, macs)


def kind(module: nn.Module) -> str:
    """The class of a layer, with the window of a convolution or pooling: "Conv2d 3x3 /2, 32 groups"."""
    text = type(module).__name__
    if isinstance(module, nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d):
        size, stride = _square(module.kernel_size), _square(module.stride)
        text += f" {size}" + (f" /{stride.partition('x')[0]}" if stride != "1x1" else "")
    if isinstance(module, nn.Conv2d) and module.groups > 1:
        text += f", {module.groups} groups"
    return text


def _square(value: int | tuple[int, ...]) -> str:
    return "x".join(map(str, [value, value] if isinstance(value, int) else value))


def pixels(field: Field) -> int | str | None:
    """The size of a field: pixels of a square, "7x1" (rows x columns), "all", or None where it is not known."""
    if isinstance(field, Seen):
        return "all" if field is Seen.EVERYTHING else None
    rows, columns = (span.size for span in field)
    return rows if rows == columns else f"{rows}x{columns}"


def stride(field: Field) -> int | str | None:
    """How many pixels the fields of neighbouring values are apart, in the same form; None where it has no meaning."""
    if isinstance(field, Seen):
        return None
    rows, columns = (span.jump for span in field)
    return rows if rows == columns else f"{rows}x{columns}"
