"""Wide residual networks: https://arxiv.org/abs/1605.07146, the wide, pre-activation variant of ResNet.

Depth 6n + 4: a 3x3 stem with 16 channels, three stages of n blocks with 16k, 32k and 64k channels, norm, ReLU, pooling.
"""

from functools import partial
from typing import Any

from torch import Tensor, nn

from cvcc_zoo.classifier import ImageClassifier
from cvcc_zoo.models.initialisation import ResidualBlock
from cvcc_zoo.models.layers import Layers, check_dropout
from cvcc_zoo.models.stages import StagedNetwork
from cvcc_zoo.registry import register


class PreActivationBlock(ResidualBlock):
    """norm-ReLU-conv3x3-norm-ReLU-dropout-conv3x3 beside a shortcut.

    If the shape changes, the shortcut is a 1x1 convolution of the activated input; otherwise it is the identity.
    """

    branch = ("conv1", "conv2")
    last = "conv2"  # not the last norm: an activation follows it, and with ReLU a norm at zero would never learn

    def __init__(self, in_channels: int, out_channels: int, stride: int, dropout: float, layers: Layers) -> None:
        super().__init__()
        self.bn1 = layers.normalisation(in_channels)
        self.activation1 = layers.nonlinearity()
        self.conv1 = layers.conv3x3(in_channels, out_channels, stride)
        self.bn2 = layers.normalisation(out_channels)
        self.activation2 = layers.nonlinearity()
        self.dropout = nn.Dropout(dropout)
        self.conv2 = layers.conv3x3(out_channels, out_channels)
        self.scale = layers.scale()
        changes = stride != 1 or in_channels != out_channels
        self.downsample = layers.conv1x1(in_channels, out_channels, stride) if changes else None

    def forward(self, x: Tensor) -> Tensor:
        activated = self.activation1(self.bn1(x))
        shortcut: Tensor = x if self.downsample is None else self.downsample(activated)
        f = self.conv1(activated)
        f = self.conv2(self.dropout(self.activation2(self.bn2(f))))
        y: Tensor = shortcut + self.scale(f)
        return y


class WideResNetNetwork(StagedNetwork):
    """A 3x3 convolution with 16 channels, three stages of blocks, a last norm and activation, and a classifier."""

    def __init__(
        self, blocks: int, width: int, dropout: float, layers: Layers, in_channels: int, num_classes: int
    ) -> None:
        super().__init__()
        self.conv1 = layers.conv3x3(in_channels, 16)
        self.parts = [["conv1"]]
        block = partial(PreActivationBlock, dropout=dropout, layers=layers)
        channels = self.add_stages(block, blocks, 16, (16 * width, 32 * width, 64 * width))
        self.parts[-1].append("bn")
        self.bn = layers.normalisation(channels)
        self.activation = layers.nonlinearity()
        self.add_classifier(channels, num_classes, layers)

    def stem(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv1(x)
        return y

    def features(self, x: Tensor) -> list[Tensor]:
        *outputs, last = super().features(x)
        return [*outputs, self.activation(self.bn(last))]


class WideResNet(ImageClassifier):
    """Wide ResNet of depth 6n + 4 and widening factor `width`."""

    channels_last = True

    def __init__(
        self,
        depth: int = 16,
        width: int = 4,
        dropout: float = 0.0,
        norm: str = "batch",
        activation: str = "relu",
        pool: str = "mean",
        init: str = "kaiming",
        **options: Any,
    ) -> None:
        """Build the model; `options` are those of ImageClassifier. Raises ValueError for impossible values.

        Args:
            depth: Layers with weights: 6n + 4 (10, 16, 22, 28, 40, ...).
            width: The paper's k: the factor of the 16, 32 and 64 channels.
            dropout: Share of the activations between the two convolutions of a block that is set to zero in
                training, in [0, 1); the paper uses 0.3 on CIFAR.
            norm: batch, layer, group or none.
            activation: relu, gelu, silu or tanh.
            pool: mean or max, over all pixels of the last stage.
            init: The first weights: kaiming, xavier, orthogonal, torch, dirac, lsuv or zero_residual; with norm none,
                fixup or skipinit instead of zero_residual.

        """
        super().__init__(**options)
        if depth < 10 or (depth - 4) % 6:
            raise ValueError(f"a WideResNet has depth 6n + 4 (10, 16, 22, 28, 34, 40, ...), not {depth}")
        if width < 1:
            raise ValueError(f"width must be at least 1, got {width}")
        check_dropout(dropout)
        layers = Layers(norm, activation, init, pool, residual=True)
        self.network = WideResNetNetwork((depth - 4) // 6, width, dropout, layers, self.in_channels, self.num_classes)


register("wrn16_4", WideResNet, "16 layers, 4 times the channels", parameters=2_748_890, depth=16, width=4)
register("wrn28_10", WideResNet, "28 layers, 10 times the channels", parameters=36_479_194, depth=28, width=10)
