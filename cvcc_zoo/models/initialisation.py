"""First weights by name. Biases start at zero and norms as the identity, and a classifier keeps torch's weights.

What differs from that is said where it does: `torch` leaves everything as torch made it, `fixup` starts the classifier
at zero, and `lsuv` scales it too.
"""

import math
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from cvcc_zoo.classifier.network import Network
from cvcc_zoo.registry import unknown

Layer = nn.Conv2d | nn.Linear
GAIN = math.sqrt(2)  # ReLU sets half of the second moment to zero: https://arxiv.org/abs/1502.01852, section 2.2


def kaiming(layer: Layer) -> None:
    """He et al. 2015 (https://arxiv.org/abs/1502.01852): N(0, 2 / fan), for ReLU.

    The fan of a linear layer is its inputs, which keeps activations as large as they are; that of a convolution is
    k^2 C_out, which keeps gradients so. fb.resnet.torch and ResNeXt do not divide it by the groups of a convolution,
    and neither do we.
    """
    if isinstance(layer, nn.Linear):
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    else:
        fan_out = layer.kernel_size[0] * layer.kernel_size[1] * layer.out_channels
        nn.init.normal_(layer.weight, std=math.sqrt(2 / fan_out))


def xavier(layer: Layer) -> None:
    """Glorot & Bengio 2010 (https://proceedings.mlr.press/v9/glorot10a.html): uniform, variance 2 / (fan_in + fan_out).

    For units that are linear around zero, like tanh; each ReLU halves the second moment.
    """
    nn.init.xavier_uniform_(layer.weight)


def orthogonal(layer: Layer) -> None:
    """Saxe et al. 2013 (https://arxiv.org/abs/1312.6120): rows or columns are orthogonal, here with the gain of ReLU.

    A filter (out, in, kh, kw) is a matrix (out, in kh kw).
    """
    nn.init.orthogonal_(layer.weight, gain=GAIN)


def dirac(layer: Layer) -> None:
    """The identity: output i is input i, as far as there are inputs; the other outputs start as `kaiming` has them.

    `nn.init.dirac_` sets those others to zero, where ReLU has no gradient, so that they would never learn anything;
    airbench (https://arxiv.org/abs/2404.00498) leaves them as they were, too.
    """
    kaiming(layer)
    with torch.no_grad():
        before = layer.weight.clone()
        if isinstance(layer, nn.Linear):
            nn.init.eye_(layer.weight)
        else:
            nn.init.dirac_(layer.weight, layer.groups)
        empty = layer.weight.flatten(1).any(1).logical_not()
        layer.weight.copy_(torch.where(empty.view(-1, *[1] * (before.ndim - 1)), before, layer.weight))


RULES = {
    "kaiming": kaiming,
    "xavier": xavier,
    "orthogonal": orthogonal,
    "dirac": dirac,
    "lsuv": orthogonal,
    "zero_residual": kaiming,
    "fixup": kaiming,
    "skipinit": kaiming,
}
INITS = (*RULES, "torch")
SILENT = ("zero_residual", "fixup", "skipinit")
"""They start residual branches at zero, so that each block is its shortcut; `Layers` adds SkipInit's factors."""


class ResidualBlock(nn.Module):
    """shortcut(x) + f(x): what f is made of."""

    branch: ClassVar[tuple[str, ...]]
    """Names of the convolutions of f, in order."""
    last: ClassVar[str]
    """What `zero_residual` starts at zero: the last norm of f, or the last convolution where no norm follows it."""


def check_init(init: Any, norm: str, *, residual: bool) -> None:
    """Raise ValueError, and name those that can be had, if a network with or without residual blocks cannot have it."""
    if init not in INITS:
        raise unknown("init", init, INITS)
    able = [name for name in INITS if name not in SILENT or (residual and (norm == "none") != (name == SILENT[0]))]
    if init in able:
        return
    names = f"choose init {', '.join(able)}"
    if not residual:
        raise ValueError(f"init={init!r} starts residual branches at zero, and this network has none; {names}")
    if init == "zero_residual":
        raise ValueError(f"init={init!r} starts norms at zero, and with norm='none' there are none; {names}")
    raise ValueError(f"init={init!r} is for networks without norms; give norm='none', or with norm={norm!r} {names}")


def initialise(network: Network, init: str = "kaiming") -> None:
    """Give all layers but the classifier their first weights, by the name of the initialisation.

    With `lsuv` the rest follows when the training starts, unless weights were loaded meanwhile; or call `lsuv`.
    """
    if init == "torch":
        return
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear) and module is not network.fc:
            RULES[init](module)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    blocks = [module for module in network.modules() if isinstance(module, ResidualBlock)]
    if init == "zero_residual":  # https://arxiv.org/abs/1706.02677, section 5.1
        for block in blocks:
            nn.init.zeros_(block.get_parameter(f"{block.last}.weight"))
    if init == "fixup":
        _fixup(network, blocks)
    if init == "lsuv":
        network.from_images = lsuv
        network.register_load_state_dict_post_hook(_nothing_is_left)  # type: ignore[no-untyped-call]


@torch.no_grad()
def _fixup(network: Network, blocks: list[ResidualBlock]) -> None:
    """Zhang et al. 2019 (https://arxiv.org/abs/1901.09321, section 3), rules 1 and 2; `Layers` follows rule 3.

    With L branches of m convolutions, the first m - 1 of each are scaled by L^(-1 / (2m - 2)), and the last is zero.
    """
    for block in blocks:
        *inner, last = (block.get_parameter(f"{name}.weight") for name in block.branch)
        for weight in inner:
            weight.mul_(len(blocks) ** (-1 / (2 * len(inner))))
        last.zero_()
    network.fc.weight.zero_()


def _nothing_is_left(network: nn.Module, _: Any = None) -> None:
    vars(network)["from_images"] = None


@torch.no_grad()
def lsuv(network: nn.Module, x: Tensor) -> None:
    """Divide each layer by the standard deviation of its output, from the first to the last: Mishkin & Matas 2015.

    https://arxiv.org/abs/1511.06422, on whitened images (N, C, H, W), in evaluation mode. As biases are zero and
    nothing is drawn, one division makes the variance 1, and one pass does it for all layers; the paper repeats both,
    as it sees another batch each time. Weights that are not trained stay as they are. Raises ValueError where an
    output is the same everywhere.
    """

    def divide(layer: Layer, _: Any, output: Tensor) -> Tensor:
        deviation = output.std(correction=0)
        if not (deviation > 0 and deviation.isfinite()):
            raise ValueError(
                f"lsuv divides by the standard deviation of a layer's output, and that of {names[layer]} is "
                f"{deviation.item():g}; give images that differ, or choose another init"
            )
        for parameter in (layer.weight, layer.bias):
            if isinstance(parameter, Tensor):
                parameter.div_(deviation)
        return output / deviation

    names = {module: name for name, module in network.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)}
    hooks = [layer.register_forward_hook(divide) for layer in names if layer.weight.requires_grad]
    before = {module: module.training for module in network.modules()}
    network.eval()
    try:
        network(x)
    finally:
        for hook in hooks:
            hook.remove()
        for module, mode in before.items():
            module.training = mode
    _nothing_is_left(network)
