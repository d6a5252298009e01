"""Residual networks for small images: https://arxiv.org/abs/1512.03385.

Depth 6n + 2 (section 4.2): a 3x3 stem, three stages of n basic blocks with 16, 32 and 64 channels, global pooling.
Without its shortcuts it is the plain network that the paper compares it with.
Depth 18 (Table 1): four stages of two basic blocks with 64 to 512 channels, here with a 3x3 stem of stride 1 and
without max-pooling, the usual variant for 32x32 images.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from cvcc_zoo.classifier import ImageClassifier
from cvcc_zoo.models.initialisation import ResidualBlock
from cvcc_zoo.models.layers import Layers, make_norm
from cvcc_zoo.models.stages import StagedNetwork
from cvcc_zoo.registry import check_known, register


class ShortcutA(nn.Module):
    """Option A: take every `stride`-th pixel, and pad the missing channels with zeros; no parameters.

    (N, C_in, H, W) to (N, C_out, H / stride, W / stride).
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, layers: Layers) -> None:
        super().__init__()
        self.missing, self.stride = out_channels - in_channels, stride

    def forward(self, x: Tensor) -> Tensor:
        before = self.missing // 2
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, before, self.missing - before))


class ShortcutB(nn.Sequential):
    """Option B: a 1x1 convolution with stride, and a norm."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, layers: Layers) -> None:
        super().__init__(layers.conv1x1(in_channels, out_channels, stride), make_norm(layers.norm, out_channels))


SHORTCUTS = {"A": ShortcutA, "B": ShortcutB}
PLAIN = "none"


class PlainBlock(nn.Sequential):
    """Two 3x3 convolutions, each with norm and activation; the first has the stride. They run in the order below."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, layers: Layers) -> None:
        super().__init__()
        self.conv1 = layers.conv3x3(in_channels, out_channels, stride)
        self.bn1 = layers.normalisation(out_channels)
        self.activation1 = layers.nonlinearity()
        self.conv2 = layers.conv3x3(out_channels, out_channels)
        self.bn2 = layers.normalisation(out_channels)
        self.activation2 = layers.nonlinearity()


class BasicBlock(ResidualBlock):
    """Two 3x3 convolutions and a shortcut: y = relu(shortcut(x) + f(x)).

    The shortcut is the identity unless the channels change or the stride is 2.
    """

    branch = ("conv1", "conv2")
    last = "bn2"

    def __init__(self, in_channels: int, out_channels: int, stride: int, layers: Layers, shortcut: str) -> None:
        super().__init__()
        self.conv1 = layers.conv3x3(in_channels, out_channels, stride)
        self.bn1 = layers.normalisation(out_channels)
        self.activation1 = layers.nonlinearity()
        self.conv2 = layers.conv3x3(out_channels, out_channels)
        self.scale = layers.scale()
        self.bn2 = layers.normalisation(out_channels)
        self.activation2 = layers.nonlinearity()
        changes = stride != 1 or in_channels != out_channels
        self.downsample = SHORTCUTS[shortcut](in_channels, out_channels, stride, layers) if changes else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        f = self.activation1(self.bn1(self.conv1(x)))
        f = self.bn2(self.scale(self.conv2(f)))
        y: Tensor = self.activation2(self.downsample(x) + f)
        return y


class ResNetNetwork(StagedNetwork):
    """A 3x3 stem, stages of basic blocks or plain ones, and a classifier."""

    def __init__(
        self, blocks: int, channels: Sequence[int], shortcut: str, layers: Layers, in_channels: int, num_classes: int
    ) -> None:
        super().__init__()
        block: Callable[..., nn.Module] = PlainBlock if shortcut == PLAIN else partial(BasicBlock, shortcut=shortcut)
        self.add_stem(in_channels, channels[0], layers)
        width = self.add_stages(partial(block, layers=layers), blocks, channels[0], channels)
        self.add_classifier(width, num_classes, layers)


class ResNet(ImageClassifier):
    """ResNet of depth 6n + 2 for small images, or of depth 18, with its shortcuts or without."""

    channels_last = True

    def __init__(
        self,
        depth: int = 20,
        shortcut: str = "B",
        norm: str = "batch",
        activation: str = "relu",
        pool: str = "mean",
        init: str = "kaiming",
        **options: Any,
    ) -> None:
        """Build the model; `options` are those of ImageClassifier. Raises ValueError for impossible values.

        Args:
            depth: Layers with weights: 6n + 2 (20, 26, 32, ...), or 18.
            shortcut: Where the channels change: "A" pads with zeros (as in the paper), "B" projects by a 1x1
                convolution (as in most other zoos). "none" leaves out all shortcuts: a plain network.
            norm: batch, layer, group or none.
            activation: relu, gelu, silu or tanh.
            pool: mean or max, over all pixels of the last stage.
            init: The first weights: kaiming, xavier, orthogonal, torch, dirac or lsuv; with shortcuts also
                zero_residual, or with norm none fixup and skipinit.

        """
        super().__init__(**options)
        check_known("shortcut", (*SHORTCUTS, PLAIN), shortcut)
        if depth != 18 and (depth < 8 or (depth - 2) % 6):
            raise ValueError(f"a ResNet has depth 6n + 2 (8, 14, 20, ...) or 18, not {depth}")
        blocks, channels = (2, (64, 128, 256, 512)) if depth == 18 else ((depth - 2) // 6, (16, 32, 64))
        layers = Layers(norm, activation, init, pool, residual=shortcut != PLAIN)
        self.network = ResNetNetwork(blocks, channels, shortcut, layers, self.in_channels, self.num_classes)


register("resnet20", ResNet, "3 blocks in each of 3 stages", parameters=272_474, depth=20)
register("resnet32", ResNet, "5 blocks in each of 3 stages", parameters=466_906, depth=32)
register("resnet44", ResNet, "7 blocks in each of 3 stages", parameters=661_338, depth=44)
register("resnet56", ResNet, "9 blocks in each of 3 stages", parameters=855_770, depth=56)
register("resnet110", ResNet, "18 blocks in each of 3 stages", parameters=1_730_714, depth=110)
register("resnet18", ResNet, "3x3 stem, 64 to 512 channels", parameters=11_173_962, depth=18)
register("plain20", ResNet, "resnet20 without shortcuts", parameters=269_722, depth=20, shortcut="none")
register("plain32", ResNet, "resnet32 without shortcuts", parameters=464_154, depth=32, shortcut="none")
register("plain56", ResNet, "resnet56 without shortcuts", parameters=853_018, depth=56, shortcut="none")
