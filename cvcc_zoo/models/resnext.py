"""Aggregated residual transformations (ResNeXt) for small images: https://arxiv.org/abs/1611.05431, section 5.3.

Depth 9n + 2: a 3x3 stem with 64 channels, three stages of n bottleneck blocks with 256, 512 and 1024 output channels.
A block holds `cardinality` paths, written as one grouped convolution (the paper's form C). With cardinality 1 it is
the bottleneck ResNet that the paper compares with.
"""

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from cvcc_zoo.classifier import ImageClassifier
from cvcc_zoo.models.layers import GlobalAveragePool, conv1x1, conv3x3, initialise
from cvcc_zoo.registry import register
from cvcc_zoo.stages import Network


class BottleneckBlock(nn.Module):
    """1x1 reduce, grouped 3x3 (it holds the stride), 1x1 expand: y = relu(shortcut(x) + f(x)).

    The first 1x1 convolution is dense: every path sees all input channels. Each path is
    floor(planes * base_width / 64) channels wide, and the output has 4 * planes channels whatever the cardinality.
    """

    def __init__(self, in_channels: int, planes: int, stride: int, cardinality: int, base_width: int) -> None:
        super().__init__()
        inner, out_channels = planes * base_width // 64 * cardinality, 4 * planes
        self.conv1 = conv1x1(in_channels, inner)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = conv3x3(inner, inner, stride, groups=cardinality)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = conv1x1(inner, out_channels)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.downsample = nn.Sequential()
        if stride != 1 or in_channels != out_channels:
            self.downsample.append(conv1x1(in_channels, out_channels, stride)).append(nn.BatchNorm2d(out_channels))

    def forward(self, x: Tensor) -> Tensor:
        f = F.relu(self.bn1(self.conv1(x)))
        f = F.relu(self.bn2(self.conv2(f)))
        f = self.bn3(self.conv3(f))
        return F.relu(self.downsample(x) + f)


class ResNeXtNetwork(Network):
    """Images (N, in_channels, H, W) to logits (N, num_classes)."""

    def __init__(self, blocks: int, cardinality: int, base_width: int, in_channels: int, num_classes: int) -> None:
        super().__init__()
        self.conv1 = conv3x3(in_channels, 64)
        self.bn1 = nn.BatchNorm2d(64)
        channels = 64
        stages = []
        for stride, planes in ((1, 64), (2, 128), (2, 256)):
            stage = nn.Sequential()
            for index in range(blocks):
                stage.append(BottleneckBlock(channels, planes, stride if index == 0 else 1, cardinality, base_width))
                channels = 4 * planes
            stages.append(stage)
        self.layer1, self.layer2, self.layer3 = stages
        self.parts = [["conv1", "bn1"], ["layer1"], ["layer2"], ["layer3"]]
        self.pool = GlobalAveragePool()
        self.fc = nn.Linear(channels, num_classes)
        initialise(self)

    def features(self, x: Tensor) -> list[Tensor]:
        found = [F.relu(self.bn1(self.conv1(x)))]
        for stage in (self.layer1, self.layer2, self.layer3):
            found.append(stage(found[-1]))
        return found

    def classify(self, x: Tensor) -> Tensor:
        return super().classify(self.pool(x))


class ResNeXt(ImageClassifier):
    """ResNeXt of depth 9n + 2 with `cardinality` paths, each `base_width` channels wide in the first stage."""

    channels_last = True

    def __init__(self, depth: int = 29, cardinality: int = 32, base_width: int = 4, **options: Any) -> None:
        """The shape; `options` are those of ImageClassifier.

        Args:
            depth: Layers with weights: 9n + 2 (11, 20, 29, 38, ...).
            cardinality: The paper's C: parallel paths in a block.
            base_width: The paper's d: channels of a path in the first stage; doubled in each further stage.

        """
        super().__init__(**options)
        if depth < 11 or (depth - 2) % 9:
            raise ValueError(f"a ResNeXt has depth 9n + 2 (11, 20, 29, 38, ...), not {depth}")
        if cardinality < 1 or base_width < 1:
            raise ValueError(f"cardinality and base_width must be at least 1, got {cardinality} and {base_width}")
        self.network = ResNeXtNetwork((depth - 2) // 9, cardinality, base_width, self.in_channels, self.num_classes)


@register(parameters=4_775_754, alias="resnext29")
def resnext29_32x4d(**options: Any) -> ResNeXt:
    """32 paths of width 4."""
    return ResNeXt(depth=29, cardinality=32, base_width=4, **options)


@register(parameters=9_130_314)
def resnext29_2x64d(**options: Any) -> ResNeXt:
    """2 paths of width 64."""
    return ResNeXt(depth=29, cardinality=2, base_width=64, **options)


@register(parameters=17_562_442)
def resnext29_4x64d(**options: Any) -> ResNeXt:
    """4 paths of width 64."""
    return ResNeXt(depth=29, cardinality=4, base_width=64, **options)


@register(parameters=34_426_698)
def resnext29_8x64d(**options: Any) -> ResNeXt:
    """8 paths of width 64."""
    return ResNeXt(depth=29, cardinality=8, base_width=64, **options)


@register(parameters=68_155_210)
def resnext29_16x64d(**options: Any) -> ResNeXt:
    """16 paths of width 64."""
    return ResNeXt(depth=29, cardinality=16, base_width=64, **options)


@register(parameters=1_995_082)
def resnext20_16x4d(**options: Any) -> ResNeXt:
    """16 paths of width 4, 20 layers."""
    return ResNeXt(depth=20, cardinality=16, base_width=4, **options)


@register(parameters=4_914_250)
def resnext29_1x64d(**options: Any) -> ResNeXt:
    """1 path: a bottleneck ResNet."""
    return ResNeXt(depth=29, cardinality=1, base_width=64, **options)


@register(parameters=4_879_626)
def resnext29_2x40d(**options: Any) -> ResNeXt:
    """2 paths, as complex as 32x4d."""
    return ResNeXt(depth=29, cardinality=2, base_width=40, **options)


@register(parameters=4_845_002)
def resnext29_4x24d(**options: Any) -> ResNeXt:
    """4 paths, as complex as 32x4d."""
    return ResNeXt(depth=29, cardinality=4, base_width=24, **options)


@register(parameters=4_901_098)
def resnext29_8x14d(**options: Any) -> ResNeXt:
    """8 paths, as complex as 32x4d."""
    return ResNeXt(depth=29, cardinality=8, base_width=14, **options)
