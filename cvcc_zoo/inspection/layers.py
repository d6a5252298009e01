"""The layers of a network in the order of their calls, with output shape, cost and receptive field."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from cvcc_zoo.classifier.network import counted
from cvcc_zoo.inspection.fields import Field, Fields, Seen
from cvcc_zoo.printing import first_line

SILENT = (nn.Identity, nn.Sequential)  # an empty Sequential does nothing either
OUTSIDE = "(outside of layers)"


@dataclass(frozen=True)
class Layer:
    """A call of a module without children."""

    name: str
    kind: str
    """Its class; for convolutions and pooling also the window, stride and groups."""
    output: tuple[int, ...]
    """Shape of its output for one image: (C, H, W) or (features,)."""
    parameters: int
    """The number of parameters, without those already counted in an earlier layer."""
    macs: int
    """Multiply-accumulate operations of convolutions and matrix products for one image."""
    field: Field
    """The pixels that a value of the output depends on."""


@dataclass(frozen=True)
class Inventory:
    """All layers, and the parameters and MACs of the network, which are the sums over them."""

    layers: list[Layer]
    parameters: int
    macs: int


def inventory(network: nn.Module, shape: tuple[int, int, int]) -> Inventory:
    """Trace one image (C, H, W) through a copy of a network in evaluation mode, if possible without computing values.

    Parameters and products that belong to no layer get a row of their own, so that the rows add up to the totals.
    Raises ValueError if the network does not take images of this shape.
    """
    return counted(network, (1, *shape), _traced)


def _traced(network: nn.Module, image: Tensor) -> Inventory:
    network.eval()
    layers: list[Layer] = []
    known: set[nn.Parameter] = set()
    before: list[int] = []
    with torch.no_grad(), FlopCounterMode(display=False) as counter, Fields(image) as fields:

        def enter(module: nn.Module, _: Any) -> None:
            before.append(counter.get_total_flops())

        def leave(module: nn.Module, _: Any, output: Any) -> None:
            flops = counter.get_total_flops() - before.pop()
            if isinstance(output, Tensor) and not isinstance(module, SILENT):
                new = [p for p in module.parameters() if p not in known]
                known.update(new)
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
            size = "x".join(map(str, image.shape[1:]))
            raise ValueError(
                f"{type(network).__name__} does not take images of {size} ({first_line(error)}); "
                "choose another image_size or in_channels"
            ) from error
        macs, field = counter.get_total_flops() // 2, fields.of(output)
    parameters = sum(p.numel() for p in network.parameters())
    rest = parameters - sum(layer.parameters for layer in layers), macs - sum(layer.macs for layer in layers)
    if any(rest):
        layers.append(Layer(OUTSIDE, "", tuple(output.shape[1:]), *rest, field))
    return Inventory(layers, parameters, macs)


def kind(module: nn.Module) -> str:
    """Return the class of a layer, with the window of a convolution or pooling: "Conv2d 3x3 /2, 32 groups"."""
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
    """Return the size of a field: the side of a square in pixels, "7x1" (rows x columns), "all", or None if unknown."""
    if isinstance(field, Seen):
        return "all" if field is Seen.EVERYTHING else None
    rows, columns = (span.size for span in field)
    return rows if rows == columns else f"{rows}x{columns}"


def stride(field: Field) -> int | str | None:
    """Return the distance in pixels between the fields of neighbouring values, in the same form; None if undefined."""
    if isinstance(field, Seen):
        return None
    rows, columns = (span.jump for span in field)
    return rows if rows == columns else f"{rows}x{columns}"
