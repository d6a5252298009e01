"""Pieces that several families share."""

import math
from collections.abc import Callable

from torch import Tensor, nn

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {"relu": nn.ReLU, "gelu": nn.GELU, "silu": nn.SiLU, "tanh": nn.Tanh}


def flatten(x: Tensor, features: int) -> Tensor:
    """(N, C, H, W) to (N, features). Raises ValueError where the images have another size than the model."""
    x = x.flatten(1)
    if x.shape[1] != features:
        raise ValueError(
            f"the model was built for images that give {features} features, these give {x.shape[1]}; "
            "build it with the image_size of the images, or resize them (--data.image_size=...)"
        )
    return x


def conv3x3(in_channels: int, out_channels: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    """3x3 convolution with padding 1 and without bias (a norm follows)."""
    return nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, groups=groups, bias=False)


def conv1x1(in_channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
    """1x1 convolution without bias."""
    return nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False)


def initialise(network: nn.Module) -> None:
    """He et al. 2015 (https://arxiv.org/abs/1502.01852): N(0, 2 / fan_out) for convolutions, with fan_out = k^2 C_out.

    fb.resnet.torch and ResNeXt do not divide fan_out by the groups of a convolution, and neither do we. Norms start
    as the identity; the classifier keeps torch's weights and gets zero biases.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels
            nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)


class GlobalAveragePool(nn.Module):
    """(N, C, H, W) to (N, C): the mean over all pixels."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))
