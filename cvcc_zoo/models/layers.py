"""Pieces that several families share: which of them a network is made of is said by names."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cvcc_zoo.models.initialisation import check_init
from cvcc_zoo.registry import unknown

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {"relu": nn.ReLU, "gelu": nn.GELU, "silu": nn.SiLU, "tanh": nn.Tanh}
NORMS = ("batch", "layer", "group", "none")
GROUPS = 8
"""Groups of the norm `group`. https://arxiv.org/abs/1803.08494 has 32, more than our narrowest stage has channels; 8
divides the channels of every model here, and leaves a group two of them at least."""
SCALES = {"skipinit": 0.0, "fixup": 1.0}
"""Where the number starts that multiplies a residual branch."""


def flatten(x: Tensor, features: int) -> Tensor:
    """(N, C, H, W) to (N, features). Raises ValueError where the images have another size than the model."""
    x = x.flatten(1)
    if x.shape[1] != features:
        raise ValueError(
            f"the model was built for images that give {features} features, these give {x.shape[1]}; "
            "build it with the image_size of the images, or resize them (--data.image_size=...)"
        )
    return x


def make_norm(name: str, channels: int) -> nn.Module:
    """A norm of maps (N, channels, H, W) by its name.

    `layer` takes mean and variance over the channels and pixels of an image, but a weight and a bias for each channel:
    GroupNorm with one group. ConvNeXt's LayerNorm is another one: over the channels of each pixel. `group` does it for
    8 groups of channels, and raises ValueError if these do not divide them.
    """
    if name == "batch":
        return nn.BatchNorm2d(channels)
    if name == "none":
        return nn.Identity()
    groups = GROUPS if name == "group" else 1
    if channels % groups:
        raise ValueError(
            f"norm='group' has {groups} groups, which do not divide {channels} channels; give channels that are a "
            f"multiple of {groups}, or choose norm='layer', 'batch' or 'none'"
        )
    return nn.GroupNorm(groups, channels)


@dataclass(frozen=True)
class Layers:
    """What the layers of a convolutional network are, by names; ValueError for a name that does not exist.

    With norm "none" convolutions have biases. With the initialisation `fixup` they have none either: then a number is
    added before each convolution, linear layer and activation, as in https://arxiv.org/abs/1901.09321 (section 3).
    """

    norm: str = "batch"
    activation: str = "relu"
    init: str = "kaiming"
    residual: bool = False
    """Whether the network has residual blocks, which some initialisations are for."""

    def __post_init__(self) -> None:
        for kind, name, known in (("norm", self.norm, NORMS), ("activation", self.activation, tuple(ACTIVATIONS))):
            if name not in known:
                raise unknown(kind, name, known)
        check_init(self.init, self.norm, residual=self.residual)

    def conv3x3(self, in_channels: int, out_channels: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
        """3x3 convolution with padding 1."""
        kind, bias = self._convolution
        return kind(in_channels, out_channels, 3, stride=stride, padding=1, groups=groups, bias=bias)

    def conv1x1(self, in_channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
        """1x1 convolution."""
        kind, bias = self._convolution
        return kind(in_channels, out_channels, 1, stride=stride, bias=bias)

    def conv2x2(self, in_channels: int, out_channels: int) -> nn.Conv2d:
        """2x2 convolution without padding, with a bias: no norm comes after it."""
        return nn.Conv2d(in_channels, out_channels, 2)

    @property
    def _convolution(self) -> tuple[type[nn.Conv2d], bool]:
        """The class of convolutions, and whether they have biases."""
        return (ShiftedConv2d, False) if self.init == "fixup" else (nn.Conv2d, self.norm == "none")

    def normalisation(self, channels: int) -> nn.Module:
        """The norm of a stem or a branch; with `fixup` the number that is added in its place."""
        return Shift() if self.init == "fixup" else make_norm(self.norm, channels)

    def nonlinearity(self) -> nn.Module:
        """The activation."""
        return ACTIVATIONS[self.activation]()

    def scale(self) -> nn.Module:
        """What comes after the last convolution of a residual branch: a learnable factor, or nothing."""
        return Scale(SCALES[self.init]) if self.init in SCALES else nn.Identity()

    def pooling(self, name: str) -> nn.Module:
        """Global pooling before the classifier: (N, C, H, W) to (N, C). Raises ValueError for an unknown name."""
        if name not in tuple(GLOBAL_POOLS):
            raise unknown("pool", name, GLOBAL_POOLS)
        pool = GLOBAL_POOLS[name]()
        return nn.Sequential(pool, Shift()) if self.init == "fixup" else pool

    def classifier(self, features: int, num_classes: int, *, bias: bool = True) -> nn.Linear:
        """The last layer: torch's weights and zero biases, with the initialisation `torch` those of torch."""
        fc = nn.Linear(features, num_classes, bias)
        if bias and self.init != "torch":
            nn.init.zeros_(fc.bias)
        return fc


class GlobalAveragePool(nn.Module):
    """(N, C, H, W) to (N, C): the mean over all pixels."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))


class GlobalMaxPool(nn.Module):
    """(N, C, H, W) to (N, C): the largest value of all pixels.

    Of equal ones the first has the gradient. `amax` shares it out among all that equal the largest, and none does where
    torch.compile computes them again in another precision: NaN (https://github.com/pytorch/pytorch/issues/186799).
    """

    def forward(self, x: Tensor) -> Tensor:
        return F.adaptive_max_pool2d(x, 1).flatten(1)


GLOBAL_POOLS: dict[str, Callable[[], nn.Module]] = {"mean": GlobalAveragePool, "max": GlobalMaxPool}


class Scale(nn.Module):
    """Times one learnable number: SkipInit's alpha (https://arxiv.org/abs/2002.10444), Fixup's multiplier."""

    def __init__(self, start: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((1,), start))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight


class Shift(nn.Module):
    """Plus one learnable number, which starts at 0: Fixup's bias."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.bias


class ShiftedConv2d(nn.Conv2d):
    """A convolution of x plus one learnable number: Fixup's bias before a convolution."""

    def __init__(self, *shape: Any, **options: Any) -> None:
        super().__init__(*shape, **options)
        self.shift = nn.Parameter(torch.zeros(1))

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input + self.shift)
