"""The plain convolutional network: stages that halve height and width, usually with twice the channels."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cvcc_zoo.classifier import ImageClassifier
from cvcc_zoo.classifier.network import Network
from cvcc_zoo.models.initialisation import initialise
from cvcc_zoo.models.layers import GLOBAL_POOLS, Layers, check_dropout, flatten
from cvcc_zoo.registry import check_known, register

POOLS = {"max": nn.MaxPool2d, "mean": nn.AvgPool2d}
FLATTEN = "none"


torch.fx.wrap("flatten")  # torch.fx cannot trace its check of the size


@dataclass(frozen=True)
class Shape:
    """The options of `CNN` that shape its network. Raises ValueError for impossible values."""

    channels: Sequence[int]
    convolutions: int
    pool: str
    dropout: float
    stem: int
    global_pool: str
    classifier_std: float | None
    classifier_bias: bool

    def __post_init__(self) -> None:
        if not self.channels or min(self.channels) < 1 or self.convolutions < 1:
            raise ValueError(
                f"give at least one stage and one convolution, not {list(self.channels)} and {self.convolutions}"
            )
        check_known("pool", POOLS, self.pool)
        check_dropout(self.dropout)
        check_known("global_pool", (FLATTEN, *GLOBAL_POOLS), self.global_pool)
        if self.stem < 0:
            raise ValueError(f"stem is a number of channels, or 0 for no stem; got {self.stem}")
        if self.classifier_std is not None and not 0 <= self.classifier_std < math.inf:
            raise ValueError(f"classifier_std must be at least 0, got {self.classifier_std}")

    def check_image_size(self, pixels: int) -> None:
        """Raise ValueError if the stages halve images of this height and width to nothing."""
        least = 2 ** len(self.channels) + (self.stem > 0)
        if pixels < least:
            raise ValueError(
                f"{len(self.channels)} stages are too many for images of {pixels} pixels, which each stage halves; "
                f"give fewer channels, or images of at least {least} pixels"
            )


class Stage(nn.Sequential):
    """3x3 convolutions, each with norm and activation; 2x2 pooling after the first convolution.

    (N, C_in, H, W) to (N, C_out, H // 2, W // 2). With pooling right after the first convolution, as in airbench
    (https://arxiv.org/abs/2404.00498), the others work on a quarter of the pixels.
    """

    def __init__(self, in_channels: int, out_channels: int, shape: Shape, layers: Layers) -> None:
        super().__init__()
        for number in range(shape.convolutions):
            self.append(layers.conv3x3(in_channels, out_channels))
            if number == 0:
                self.append(POOLS[shape.pool](2))
            self.append(layers.normalisation(out_channels))
            self.append(layers.nonlinearity())
            in_channels = out_channels


class CNNNetwork(Network):
    """Images (N, in_channels, H, W) to logits (N, num_classes)."""

    def __init__(self, shape: Shape, layers: Layers, in_channels: int, image_size: int, num_classes: int) -> None:
        super().__init__()
        self.parts = []
        if shape.stem:
            self.stem = nn.Sequential(layers.conv2x2(in_channels, shape.stem), layers.nonlinearity())
            self.parts.append(["stem"])
            in_channels, image_size = shape.stem, image_size - 1
        self.stages = nn.Sequential()
        for number, width in enumerate(shape.channels):
            self.stages.append(Stage(in_channels, width, shape, layers))
            self.parts.append([f"stages.{number}"])
            in_channels, image_size = width, image_size // 2
        self.channels = in_channels
        flat = shape.global_pool == FLATTEN
        self.global_pool = nn.Identity() if flat else GLOBAL_POOLS[shape.global_pool]()
        self.dropout = nn.Dropout(shape.dropout)
        inputs = in_channels * image_size**2 if flat else in_channels
        self.fc = layers.classifier(inputs, num_classes, bias=shape.classifier_bias)
        initialise(self, layers.init)
        if shape.classifier_std is not None:
            nn.init.normal_(self.fc.weight, std=shape.classifier_std)
            if shape.classifier_bias:
                nn.init.zeros_(self.fc.bias)

    @property
    def num_features(self) -> int:
        """Channels of the last stage; the classifier may have more inputs: all of its pixels."""
        return self.channels

    def features(self, x: Tensor) -> list[Tensor]:
        outputs = []
        for (part,) in self.parts:
            x = self.get_submodule(part)(x)
            outputs.append(x)
        return outputs

    def classify(self, x: Tensor) -> Tensor:
        return super().classify(self.dropout(flatten(self.global_pool(x), self.head_hidden_size)))


class CNN(ImageClassifier):
    """Stages of convolutions and pooling, flattened or pooled into a linear classifier."""

    channels_last = True

    def __init__(
        self,
        channels: Sequence[int] = (64, 128, 256),
        convolutions: int = 3,
        norm: str = "batch",
        activation: str = "relu",
        pool: str = "max",
        dropout: float = 0.0,
        init: str = "kaiming",
        stem: int = 0,
        global_pool: str = FLATTEN,
        classifier_std: float | None = None,
        classifier_bias: bool = True,
        **options: Any,
    ) -> None:
        """Build the model; `options` are those of ImageClassifier. Raises ValueError for impossible values.

        Args:
            channels: Channels of each stage; each stage halves height and width.
            convolutions: 3x3 convolutions in each stage.
            norm: batch, layer, group or none.
            activation: relu, gelu, silu or tanh.
            pool: max or mean, over 2x2 pixels.
            dropout: Share of the inputs of the linear classifier that is set to zero in training, in [0, 1).
            init: The first weights: kaiming, xavier, orthogonal, torch, dirac or lsuv.
            stem: Channels of a 2x2 convolution before the stages, which patch_whitening can set; 0 for no stem.
            global_pool: none flattens the output of the last stage; max or mean over its pixels allows images of any
                size.
            classifier_std: Standard deviation of the classifier's first weights; None for torch's, 1 / sqrt(3 inputs).
            classifier_bias: Whether the classifier has biases.

        """
        super().__init__(**options)
        shape = Shape(channels, convolutions, pool, dropout, stem, global_pool, classifier_std, classifier_bias)
        shape.check_image_size(self.image_size)
        layers = Layers(norm, activation, init)
        self.network = CNNNetwork(shape, layers, self.in_channels, self.image_size, self.num_classes)


register("cnn", CNN, "64-128-256 channels, 3 convolutions a stage", parameters=1_962_314)
register(
    "cnn_small",
    CNN,
    "32-64-128 channels, 2 convolutions a stage",
    parameters=307_946,
    channels=(32, 64, 128),
    convolutions=2,
)
# The network of airbench94 (https://arxiv.org/abs/2404.00498), which however has activation="gelu", slower on a CPU,
# classifier_bias=False, norms without learnable weights, and logits divided by 9; classifier_std is about that of
# torch's weights, 1 / sqrt(3 * 256), divided by 9.
register(
    "cnn_fast",
    CNN,
    "64-256-256 channels after a 2x2 stem, with SiLU: nearly the network of airbench94",
    parameters=1_972_802,
    defaults={"activation": "silu", "init": "dirac", "classifier_std": 1 / 256},
    channels=(64, 256, 256),
    convolutions=2,
    stem=24,
    global_pool="max",
)
