"""Layers that several families share, chosen by name: norms, activations, convolutions and global pooling."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cvcc_zoo.models.initialisation import check_init
from cvcc_zoo.registry import check_known

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {"relu": nn.ReLU, "gelu": nn.GELU, "silu": nn.SiLU, "tanh": nn.Tanh}
NORMS = ("batch", "layer", "group", "none")
GROUPS = 8
"""Groups of the norm `group`. https://arxiv.org/abs/1803.08494 has 32, more than our narrowest stage has channels; 8
divides the channels of every model here, and gives each group at least two."""
SCALES = {"skipinit": 0.0, "fixup": 1.0}
"""Initial value of the learnable factor of a residual branch."""


def check_dropout(dropout: float) -> None:
    """Raise ValueError unless this is a share of activations in [0, 1)."""
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout must be in [0, 1), got {dropout}")


def flatten(x: Tensor, features: int) -> Tensor:
    """Flatten (N, C, H, W) to (N, features). Raises ValueError if the images do not have the size of the model."""
    x = x.flatten(1)
    if x.shape[1] != features:
        raise ValueError(
            f"the model was built for images that give {features} features, but these give {x.shape[1]}; "
            "build it with the image_size of the images, or resize them (--data.image_size=...)"
        )
    return x


def make_norm(name: str, channels: int) -> nn.Module:
    """Return a norm of feature maps (N, channels, H, W) by its name.

    `layer` is GroupNorm with one group: mean and variance are those of all channels and pixels of an image, and each
    channel has a weight and a bias. ConvNeXt's LayerNorm is different: it normalises the channels of each pixel.
    `group` normalises 8 groups of channels separately. Raises ValueError if 8 does not divide `channels`.
    """
    if name == "batch":
        return nn.BatchNorm2d(channels)
    if name == "none":
        return nn.Identity()
    groups = GROUPS if name == "group" else 1
    if channels % groups:
        raise ValueError(
            f"norm='group' has {groups} groups, which do not divide {channels} channels; use channels that are a "
            f"multiple of {groups}, or choose norm='layer', 'batch' or 'none'"
        )
    return nn.GroupNorm(groups, channels)


@dataclass(frozen=True)
class Layers:
    """The kinds of layers in a convolutional network, by name. Raises ValueError for an unknown name.

    With norm "none" convolutions have biases, except with the initialisation `fixup`: it instead adds a learnable
    number before each convolution, linear layer and activation, as in https://arxiv.org/abs/1901.09321 (section 3).
    """

    norm: str = "batch"
    activation: str = "relu"
    init: str = "kaiming"
    pool: str = "mean"
    """Global pooling before the classifier."""
    residual: bool = False
    """Whether the network has residual blocks, which some initialisations need."""

    def __post_init__(self) -> None:
        check_known("norm", NORMS, self.norm)
        check_known("activation", ACTIVATIONS, self.activation)
        check_known("pool", GLOBAL_POOLS, self.pool)
        check_init(self.init, self.norm, residual=self.residual)

    def conv3x3(self, in_channels: int, out_channels: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
        """Return a 3x3 convolution with padding 1."""
        kind, bias = self._convolution
        return kind(in_channels, out_channels, 3, stride=stride, padding=1, groups=groups, bias=bias)

    def conv1x1(self, in_channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
        """Return a 1x1 convolution."""
        kind, bias = self._convolution
        return kind(in_channels, out_channels, 1, stride=stride, bias=bias)

    def conv2x2(self, in_channels: int, out_channels: int) -> nn.Conv2d:
        """Return a 2x2 convolution without padding, and with a bias because no norm follows it."""
        return nn.Conv2d(in_channels, out_channels, 2)

    @property
    def _convolution(self) -> tuple[type[nn.Conv2d], bool]:
        """The class of convolutions, and whether they have biases."""
        return (ShiftedConv2d, False) if self.init == "fixup" else (nn.Conv2d, self.norm == "none")

    def normalisation(self, channels: int) -> nn.Module:
        """Return the norm of a stem or a branch, or the learnable number that `fixup` adds instead."""
        return Shift() if self.init == "fixup" else make_norm(self.norm, channels)

    def nonlinearity(self) -> nn.Module:
        """Return the activation."""
        return ACTIVATIONS[self.activation]()

    def scale(self) -> nn.Module:
        """Return the module after the last convolution of a residual branch: a learnable factor, or the identity."""
        return Scale(SCALES[self.init]) if self.init in SCALES else nn.Identity()

    def pooling(self) -> nn.Module:
        """Return global pooling before the classifier: (N, C, H, W) to (N, C)."""
        pool = GLOBAL_POOLS[self.pool]()
        return nn.Sequential(pool, Shift()) if self.init == "fixup" else pool

    def classifier(self, features: int, num_classes: int, *, bias: bool = True) -> nn.Linear:
        """Return the last layer, with torch's weights; biases are zero, or torch's with the initialisation `torch`."""
        fc = nn.Linear(features, num_classes, bias)
        if bias and self.init != "torch":
            nn.init.zeros_(fc.bias)
        return fc


class GlobalAveragePool(nn.Module):
    """The mean over all pixels: (N, C, H, W) to (N, C)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))


class GlobalMaxPool(nn.Module):
    """The largest value of all pixels: (N, C, H, W) to (N, C).

    The first of equal values gets the gradient. `amax` would divide it among all values that equal the largest; none
    does if torch.compile recomputes them in another precision, and the gradient is NaN
    (https://github.com/pytorch/pytorch/issues/186799). `adaptive_max_pool2d` has no deterministic gradient on a GPU.
    """

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(2).max(2).values


GLOBAL_POOLS: dict[str, Callable[[], nn.Module]] = {"mean": GlobalAveragePool, "max": GlobalMaxPool}


class Scale(nn.Module):
    """Multiply by a learnable number: SkipInit's alpha (https://arxiv.org/abs/2002.10444), Fixup's multiplier."""

    def __init__(self, start: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((1,), start))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight


class Shift(nn.Module):
    """Add a learnable number, initially 0: Fixup's bias."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.bias


class ShiftedConv2d(nn.Conv2d):
    """Add a learnable number to the input of a convolution: Fixup's bias before a convolution."""

    def __init__(self, *shape: Any, **options: Any) -> None:
        super().__init__(*shape, **options)
        self.shift = nn.Parameter(torch.zeros(1))

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input + self.shift)
