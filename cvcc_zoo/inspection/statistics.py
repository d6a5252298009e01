"""The signal through a network in a training step: the outputs of its blocks, and the gradients that come back.

Blocks are residual and plain blocks; outside them, the layers up to each activation or up to the first block are a
block, and so is the classifier. Everything is measured in training mode: norms use batch statistics, dropout is on.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cvcc_zoo.models.initialisation import ResidualBlock
from cvcc_zoo.models.resnet import PlainBlock

BLOCKS = (ResidualBlock, PlainBlock)
SHARES = (nn.Softmax, nn.Softmax2d, nn.LogSoftmax, nn.Softmin)
"""Modules among torch's activations that end a network rather than a layer."""
OUTSIDE = "(outside of layers)"


@dataclass(frozen=True)
class Signal:
    """Statistics of a block in a training step; lengths are 2-norms."""

    block: str
    """The name of the block, or of the first layer with weights in it; OUTSIDE if only the network itself has some."""
    mean: float
    deviation: float
    """Mean and standard deviation of all values of the output."""
    zeros: float
    """Share of these values that are exactly 0, in [0, 1]."""
    gradient: float
    """Length of the gradient of the loss with respect to the output, for the whole batch."""
    weight_gradient: float
    """Length of the gradient of the loss with respect to the block's parameters; 0 if it has none."""

    @property
    def second_moment(self) -> float:
        """The mean square of the output."""
        return self.mean**2 + self.deviation**2


def signals(network: nn.Module, x: Tensor, loss: Callable[[Tensor], Tensor]) -> list[Signal]:
    """Return the signal after each block for whitened images (N, C, H, W); `loss` turns logits into a scalar.

    The network is not changed; frozen parameters are measured like the others.
    """
    network = copy.deepcopy(network).requires_grad_(True).train()
    outputs: list[tuple[str, Tensor, list[nn.Parameter]]] = []
    pending: list[str] = []  # modules with weights of their own that are in no block yet
    names = {module: name for name, module in network.named_modules()}
    blocks = [module for module in names if isinstance(module, BLOCKS)]
    inner = {module for block in blocks for module in block.modules()} - set(blocks)

    def record(name: str, output: Tensor, parameters: list[nn.Parameter]) -> None:
        output.retain_grad()
        outputs.append((name, output, parameters))
        pending.clear()

    def record_pending(output: Tensor, name: str | None = None) -> None:
        own = [p for part in dict.fromkeys(pending) for p in network.get_submodule(part).parameters(recurse=False)]
        record(name or next(filter(None, pending), OUTSIDE), output, own)

    def before_block(module: nn.Module, inputs: tuple[Tensor]) -> None:
        if pending:
            record_pending(inputs[0])

    def before_layer(module: nn.Module, _: Any) -> None:
        pending.append(names[module])

    def after_activation(module: nn.Module, _: Any, output: Tensor) -> None:
        if pending:
            record_pending(output)

    for module in names:
        if module in inner:
            continue
        if isinstance(module, BLOCKS):
            module.register_forward_pre_hook(before_block)
            module.register_forward_hook(
                lambda module, _, output: record(names[module], output, [*module.parameters()])
            )
            continue
        if [*module.parameters(recurse=False)]:
            module.register_forward_pre_hook(before_layer)
        if is_activation(module):
            module.register_forward_hook(after_activation)
    logits = network(x)
    record_pending(logits, "fc")
    torch.autograd.backward(loss(logits))
    return [_signal(*each) for each in outputs]


def is_activation(module: nn.Module) -> bool:
    """Return whether a module is an activation of torch or timm, or of a class below one of them."""
    homes = [kind.__module__ for kind in type(module).__mro__]
    known = any(home == nn.ReLU.__module__ or home.startswith("timm.layers.activations") for home in homes)
    return known and not isinstance(module, (*SHARES, nn.MultiheadAttention))


def _signal(name: str, output: Tensor, parameters: list[nn.Parameter]) -> Signal:
    values = output.detach().double()  # the square of a vanishing signal underflows in float32
    zeros = (values == 0).double().mean()
    weights = [p.grad.double().square().sum() for p in parameters if p.grad is not None]
    weight_gradient = torch.stack(weights).sum().sqrt() if weights else values.new_zeros(())
    assert output.grad is not None
    numbers = (values.mean(), values.std(correction=0), zeros, output.grad.double().norm(), weight_gradient)
    return Signal(name, *(number.item() for number in numbers))
