"""First weights by name. Biases start at zero and norms as the identity, and a classifier keeps torch's weights.

There are three exceptions: `torch` leaves everything as torch initialised it, `fixup` starts the classifier at zero,
and `lsuv` also scales the classifier. The classifier's biases start at zero, too, except in FCNN; CNN has an option for
its weights (`classifier_std`), and `Linear` starts at zero.
"""

import math
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from cvcc_zoo.classifier.network import Network, evaluating
from cvcc_zoo.registry import check_known

Layer = nn.Conv2d | nn.Linear
GAIN = math.sqrt(2)  # ReLU sets half of the second moment to zero: https://arxiv.org/abs/1502.01852, section 2.2


def kaiming(layer: Layer) -> None:
    """He et al. 2015 (https://arxiv.org/abs/1502.01852): N(0, 2 / fan), for ReLU.

    The fan of a linear layer is its number of inputs, which preserves the size of activations; that of a convolution
    is k^2 C_out, which preserves the size of gradients. As in fb.resnet.torch and ResNeXt, it is not divided by the
    groups of a convolution.
    """
    if isinstance(layer, nn.Linear):
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    else:
        fan_out = layer.kernel_size[0] * layer.kernel_size[1] * layer.out_channels
        nn.init.normal_(layer.weight, std=math.sqrt(2 / fan_out))


def xavier(layer: Layer) -> None:
    """Glorot & Bengio 2010 (https://proceedings.mlr.press/v9/glorot10a.html): uniform, variance 2 / (fan_in + fan_out).

    For activations that are linear around zero, such as tanh; each ReLU halves the second moment.
    """
    nn.init.xavier_uniform_(layer.weight)


def orthogonal(layer: Layer) -> None:
    """Saxe et al. 2013 (https://arxiv.org/abs/1312.6120): orthogonal rows or columns, here with the gain of ReLU.

    A weight (out, in, kh, kw) is treated as a matrix (out, in kh kw).
    """
    nn.init.orthogonal_(layer.weight, gain=GAIN)


def dirac(layer: Layer) -> None:
    """Start as the identity: output i is input i; outputs beyond the number of inputs start as in `kaiming`.

    `nn.init.dirac_` sets those outputs to zero, where ReLU has no gradient, so they would never learn; airbench
    (https://arxiv.org/abs/2404.00498) does not set them to zero either.
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
"""Those that start residual branches at zero, so that each block is its shortcut; `Layers` adds SkipInit's factors."""


class ResidualBlock(nn.Module):
    """A block shortcut(x) + f(x), with the names of the layers of f that initialisations treat differently."""

    branch: ClassVar[tuple[str, ...]]
    """Names of the convolutions of f, in order."""
    last: ClassVar[str]
    """The layer that `zero_residual` starts at zero: the last norm of f, or its last convolution if no norm follows."""


def check_init(init: Any, norm: str, *, residual: bool) -> None:
    """Raise ValueError, which lists the possible ones, if an initialisation does not suit the norm or the blocks."""
    check_known("init", INITS, init)
    possible = [name for name in INITS if name not in SILENT or (residual and (norm == "none") != (name == SILENT[0]))]
    if init in possible:
        return
    names = f"choose init {', '.join(possible)}"
    if not residual:
        raise ValueError(f"init={init!r} starts residual branches at zero, and this network has none; {names}")
    if init == "zero_residual":
        raise ValueError(f"init={init!r} starts norms at zero, and with norm='none' there are none; {names}")
    raise ValueError(f"init={init!r} is for networks without norms; give norm='none', or with norm={norm!r} {names}")


def initialise(network: Network, init: str = "kaiming") -> None:
    """Initialise all layers except the classifier, by the name of the initialisation.

    Weights on the meta device have no values to set. `lsuv` also needs images: it is completed when training starts,
    unless weights are loaded before; or call `lsuv`.
    """
    if init == "torch":
        return
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear) and module is not network.fc and not module.weight.is_meta:
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
        network.register_load_state_dict_post_hook(_forget_images)  # type: ignore[no-untyped-call]


@torch.no_grad()
def _fixup(network: Network, blocks: list[ResidualBlock]) -> None:
    """Apply rules 1 and 2 of Zhang et al. 2019 (https://arxiv.org/abs/1901.09321, section 3); `Layers` applies rule 3.

    With L branches of m convolutions, the first m - 1 of each are scaled by L^(-1 / (2m - 2)), and the last is zero.
    """
    for block in blocks:
        *inner, last = (block.get_parameter(f"{name}.weight") for name in block.branch)
        for weight in inner:
            weight.mul_(len(blocks) ** (-1 / (2 * len(inner))))
        last.zero_()
    network.fc.weight.zero_()


def _forget_images(network: nn.Module, _: Any = None) -> None:
    """Mark a network as initialised: no weights remain to be set from images."""
    vars(network)["from_images"] = None


@torch.no_grad()
def lsuv(network: nn.Module, x: Tensor) -> None:
    """Divide each layer by the standard deviation of its output, from the first to the last: Mishkin & Matas 2015.

    https://arxiv.org/abs/1511.06422, on whitened images (N, C, H, W), in evaluation mode. Because biases are zero and
    nothing is random, one division makes the variance 1, and one pass is enough for all layers; the paper repeats
    both because it sees a new batch each time. Frozen weights do not change. Raises ValueError if an output is
    constant.
    """

    def divide(layer: Layer, _: Any, output: Tensor) -> Tensor:
        deviation = output.std(correction=0)
        if not (deviation > 0 and deviation.isfinite()):
            raise ValueError(
                f"lsuv divides by the standard deviation of a layer's output, and that of {names[layer]} is "
                f"{deviation.item():g}; use images that differ, or choose another init"
            )
        for parameter in (layer.weight, layer.bias):
            if isinstance(parameter, Tensor):
                parameter.div_(deviation)
        return output / deviation

    names = {module: name for name, module in network.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)}
    hooks = [layer.register_forward_hook(divide) for layer in names if layer.weight.requires_grad]
    try:
        with evaluating(network):
            network(x)
    finally:
        for hook in hooks:
            hook.remove()
    _forget_images(network)
