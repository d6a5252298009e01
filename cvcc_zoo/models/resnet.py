"""Residual networks for small images: https://arxiv.org/abs/1512.03385.

Depth 6n + 2 (section 4.2): a 3x3 stem, three stages of n basic blocks with 16, 32 and 64 channels, global pooling.
Depth 18 (Table 1): four stages of two basic blocks with 64 to 512 channels, here with a 3x3 stem of stride 1 and
without max-pooling, as everybody uses it on 32x32 images.
"""

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from cvcc_zoo.classifier import ImageClassifier
from cvcc_zoo.models.layers import GlobalAveragePool, conv1x1, conv3x3, initialise
from cvcc_zoo.registry import register, unknown
from cvcc_zoo.stages import Network


class ShortcutA(nn.Module):
    """Option A: every second pixel, and zeros for the channels that are missing; no parameters.

    (N, C_in, H, W) to (N, C_out, H / stride, W / stride).
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.missing, self.stride = out_channels - in_channels, stride

    def forward(self, x: Tensor) -> Tensor:
        before = self.missing // 2
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, before, self.missing - before))


class ShortcutB(nn.Sequential):
    """Option B: a 1x1 convolution with stride, and batch norm."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__(conv1x1(in_channels, out_channels, stride), nn.BatchNorm2d(out_channels))


SHORTCUTS = {"A": ShortcutA, "B": ShortcutB}


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut: y = relu(shortcut(x) + f(x)).

    The shortcut is the identity unless the channels change or the stride is 2.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, shortcut: str) -> None:
        super().__init__()
        self.conv1 = conv3x3(in_channels, out_channels, stride)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = conv3x3(out_channels, out_channels)
        self.bn2 = nn.BatchNorm2d(out_channels)
        changes = stride != 1 or in_channels != out_channels
        self.downsample = SHORTCUTS[shortcut](in_channels, out_channels, stride) if changes else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        f = F.relu(self.bn1(self.conv1(x)))
        f = self.bn2(self.conv2(f))
        return F.relu(self.downsample(x) + f)


class ResNetNetwork(Network):
    """Images (N, in_channels, H, W) to logits (N, num_classes); stage i works on H / 2^i x W / 2^i pixels."""

    def __init__(
        self, blocks: Sequence[int], channels: Sequence[int], shortcut: str, in_channels: int, num_classes: int
    ) -> None:
        super().__init__()
        width = channels[0]
        self.conv1 = conv3x3(in_channels, width)
        self.bn1 = nn.BatchNorm2d(width)
        self.parts = [["conv1", "bn1"]]
        for number, (count, out) in enumerate(zip(blocks, channels, strict=True)):
            stage = nn.Sequential()
            for index in range(count):
                stage.append(BasicBlock(width, out, 2 if number and index == 0 else 1, shortcut))
                width = out
            self.parts.append([f"layer{number + 1}"])
            self.add_module(f"layer{number + 1}", stage)
        self.pool = GlobalAveragePool()
        self.fc = nn.Linear(width, num_classes)
        initialise(self)

    def features(self, x: Tensor) -> list[Tensor]:
        found = [F.relu(self.bn1(self.conv1(x)))]
        for (stage,) in self.parts[1:]:
            found.append(getattr(self, stage)(found[-1]))
        return found

    def classify(self, x: Tensor) -> Tensor:
        return super().classify(self.pool(x))


class ResNet(ImageClassifier):
    """ResNet of depth 6n + 2 for small images, or of depth 18; `shortcut` is the paper's option "A" or "B"."""

    channels_last = True

    def __init__(self, depth: int = 20, shortcut: str = "B", **options: Any) -> None:
        """The shape; `options` are those of ImageClassifier.

        Args:
            depth: Layers with weights: 6n + 2 (20, 26, 32, ...), or 18.
            shortcut: Where the channels change: "A" pads with zeros (as in the paper), "B" projects by a 1x1
                convolution (as most other zoos do).

        """
        super().__init__(**options)
        if shortcut not in SHORTCUTS:
            raise unknown("shortcut", shortcut, SHORTCUTS)
        if depth == 18:
            blocks, channels = [2] * 4, [64, 128, 256, 512]
        elif depth >= 8 and (depth - 2) % 6 == 0:
            blocks, channels = [(depth - 2) // 6] * 3, [16, 32, 64]
        else:
            raise ValueError(f"a ResNet has depth 6n + 2 (8, 14, 20, ...) or 18, not {depth}")
        self.network = ResNetNetwork(blocks, channels, shortcut, self.in_channels, self.num_classes)


@register(parameters=272_474)
def resnet20(**options: Any) -> ResNet:
    """3 blocks in each of 3 stages."""
    return ResNet(depth=20, **options)


@register(parameters=466_906)
def resnet32(**options: Any) -> ResNet:
    """5 blocks in each of 3 stages."""
    return ResNet(depth=32, **options)


@register(parameters=661_338)
def resnet44(**options: Any) -> ResNet:
    """7 blocks in each of 3 stages."""
    return ResNet(depth=44, **options)


@register(parameters=855_770)
def resnet56(**options: Any) -> ResNet:
    """9 blocks in each of 3 stages."""
    return ResNet(depth=56, **options)


@register(parameters=1_730_714)
def resnet110(**options: Any) -> ResNet:
    """18 blocks in each of 3 stages."""
    return ResNet(depth=110, **options)


@register(parameters=11_173_962)
def resnet18(**options: Any) -> ResNet:
    """3x3 stem, 64 to 512 channels."""
    return ResNet(depth=18, **options)
