"""Aggregated residual transformations (ResNeXt) for small images: https://arxiv.org/abs/1611.05431, section 5.3.

Depth 9n + 2: a 3x3 stem with 64 channels, three stages of n bottleneck blocks with 256, 512 and 1024 output channels.
A block has `cardinality` paths, written as one grouped convolution (the paper's form C). With cardinality 1 it is the
bottleneck ResNet that the paper compares with.
"""

from typing import Any

from torch import Tensor, nn

from cvcc_zoo.classifier import ImageClassifier
from cvcc_zoo.models.initialisation import ResidualBlock
from cvcc_zoo.models.layers import Layers
from cvcc_zoo.models.resnet import ShortcutB
from cvcc_zoo.models.stages import StagedNetwork
from cvcc_zoo.registry import register


class BottleneckBlock(ResidualBlock):
    """1x1 reduce, grouped 3x3 with the stride, 1x1 expand: y = relu(shortcut(x) + f(x)).

    The first 1x1 convolution is dense: every path sees all input channels. Each path is
    floor(planes * base_width / 64) channels wide, and the output has 4 * planes channels whatever the cardinality.
    """

    branch = ("conv1", "conv2", "conv3")
    last = "bn3"

    def __init__(
        self, in_channels: int, planes: int, stride: int, cardinality: int, base_width: int, layers: Layers
    ) -> None:
        super().__init__()
        inner, out_channels = planes * base_width // 64 * cardinality, 4 * planes
        self.conv1 = layers.conv1x1(in_channels, inner)
        self.bn1 = layers.normalisation(inner)
        self.activation1 = layers.nonlinearity()
        self.conv2 = layers.conv3x3(inner, inner, stride, groups=cardinality)
        self.bn2 = layers.normalisation(inner)
        self.activation2 = layers.nonlinearity()
        self.conv3 = layers.conv1x1(inner, out_channels)
        self.scale = layers.scale()
        self.bn3 = layers.normalisation(out_channels)
        self.activation3 = layers.nonlinearity()
        changes = stride != 1 or in_channels != out_channels
        self.downsample = ShortcutB(in_channels, out_channels, stride, layers) if changes else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        f = self.activation1(self.bn1(self.conv1(x)))
        f = self.activation2(self.bn2(self.conv2(f)))
        f = self.bn3(self.scale(self.conv3(f)))
        y: Tensor = self.activation3(self.downsample(x) + f)
        return y


class ResNeXtNetwork(StagedNetwork):
    """A 3x3 stem with 64 channels, three stages of bottleneck blocks, and a classifier."""

    def __init__(
        self, blocks: int, cardinality: int, base_width: int, layers: Layers, in_channels: int, num_classes: int
    ) -> None:
        super().__init__()

        def block(channels: int, out_channels: int, stride: int) -> BottleneckBlock:
            return BottleneckBlock(channels, out_channels // 4, stride, cardinality, base_width, layers)

        self.add_stem(in_channels, 64, layers)
        channels = self.add_stages(block, blocks, 64, (256, 512, 1024))
        self.add_classifier(channels, num_classes, layers)


class ResNeXt(ImageClassifier):
    """ResNeXt of depth 9n + 2 with `cardinality` paths, each `base_width` channels wide in the first stage."""

    channels_last = True

    def __init__(
        self,
        depth: int = 29,
        cardinality: int = 32,
        base_width: int = 4,
        norm: str = "batch",
        activation: str = "relu",
        pool: str = "mean",
        init: str = "kaiming",
        **options: Any,
    ) -> None:
        """Build the model; `options` are those of ImageClassifier. Raises ValueError for impossible values.

        Args:
            depth: Layers with weights: 9n + 2 (11, 20, 29, 38, ...).
            cardinality: The paper's C: parallel paths in a block.
            base_width: The paper's d: channels of a path in the first stage; doubled in each further stage.
            norm: batch, layer, group or none.
            activation: relu, gelu, silu or tanh.
            pool: mean or max, over all pixels of the last stage.
            init: The first weights: kaiming, xavier, orthogonal, torch, dirac, lsuv or zero_residual; with norm none,
                fixup or skipinit instead of zero_residual.

        """
        super().__init__(**options)
        if depth < 11 or (depth - 2) % 9:
            raise ValueError(f"a ResNeXt has depth 9n + 2 (11, 20, 29, 38, ...), not {depth}")
        if cardinality < 1 or base_width < 1:
            raise ValueError(f"cardinality and base_width must be at least 1, got {cardinality} and {base_width}")
        layers = Layers(norm, activation, init, pool, residual=True)
        self.network = ResNeXtNetwork(
            (depth - 2) // 9, cardinality, base_width, layers, self.in_channels, self.num_classes
        )


for depth, cardinality, base_width, parameters, summary in (
    (29, 32, 4, 4_775_754, "32 paths of width 4"),
    (29, 2, 64, 9_130_314, "2 paths of width 64"),
    (29, 4, 64, 17_562_442, "4 paths of width 64"),
    (29, 8, 64, 34_426_698, "8 paths of width 64"),
    (29, 16, 64, 68_155_210, "16 paths of width 64"),
    (20, 16, 4, 1_995_082, "16 paths of width 4, 20 layers"),
    (29, 1, 64, 4_914_250, "1 path: a bottleneck ResNet"),
    (29, 2, 40, 4_879_626, "2 paths, as complex as 32x4d"),
    (29, 4, 24, 4_845_002, "4 paths, as complex as 32x4d"),
    (29, 8, 14, 4_901_098, "8 paths, as complex as 32x4d"),
):
    register(
        f"resnext{depth}_{cardinality}x{base_width}d",
        ResNeXt,
        summary,
        parameters=parameters,
        alias="resnext29" if (cardinality, base_width) == (32, 4) else None,
        depth=depth,
        cardinality=cardinality,
        base_width=base_width,
    )
