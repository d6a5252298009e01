"""The plain convolutional network: stages that halve height and width and double the channels."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from cvcc_zoo.classifier import ImageClassifier
from cvcc_zoo.classifier.network import Network
from cvcc_zoo.models.initialisation import initialise
from cvcc_zoo.models.layers import GLOBAL_POOLS, Layers, flatten
from cvcc_zoo.registry import register, unknown

POOLS = {"max": nn.MaxPool2d, "mean": nn.AvgPool2d}
FLATTEN = "none"


torch.fx.wrap("flatten")  # its check of a size has no place in a graph


class Stage(nn.Sequential):
    """`convolutions` times 3x3 convolution, norm and activation; 2x2 pooling after the first convolution.

    (N, C_in, H, W) to (N, C_out, H // 2, W // 2). Pooling right after the first convolution, as in airbench
    (https://arxiv.org/abs/2404.00498), lets all others work on a quarter of the pixels.
    """

    def __init__(self, in_channels: int, out_channels: int, convolutions: int, layers: Layers, pool: str) -> None:
        super().__init__()
        for number in range(convolutions):
            self.append(layers.conv3x3(in_channels, out_channels))
            if number == 0:
                self.append(POOLS[pool](2))
            self.append(layers.normalisation(out_channels))
            self.append(layers.nonlinearity())
            in_channels = out_channels


class CNNNetwork(Network):
    """Images (N, in_channels, H, W) to logits (N, num_classes)."""

    def __init__(
        self,
        in_channels: int,
        image_size: int,
        num_classes: int,
        channels: Sequence[int],
        convolutions: int,
        layers: Layers,
        pool: str,
        dropout: float,
        stem: int,
        global_pool: str,
        classifier_std: float | None,
        classifier_bias: bool,
    ) -> None:
        super().__init__()
        self.parts = []
        if stem:
            self.stem = nn.Sequential(layers.conv2x2(in_channels, stem), layers.nonlinearity())
            self.parts.append(["stem"])
            in_channels, image_size = stem, image_size - 1
        stages = []
        for width in channels:
            stages.append(Stage(in_channels, width, convolutions, layers, pool))
            in_channels, image_size = width, image_size // 2
        self.stages = nn.Sequential(*stages)
        self.parts += [[f"stages.{number}"] for number in range(len(stages))]
        self.global_pool = nn.Identity() if global_pool == FLATTEN else layers.pooling(global_pool)
        self.dropout = nn.Dropout(dropout)
        features = in_channels * (image_size**2 if global_pool == FLATTEN else 1)
        self.fc = layers.classifier(features, num_classes, bias=classifier_bias)
        initialise(self, layers.init)
        if classifier_std is not None:
            nn.init.normal_(self.fc.weight, std=classifier_std)
            if classifier_bias:
                nn.init.zeros_(self.fc.bias)

    def features(self, x: Tensor) -> list[Tensor]:
        found = []
        for (part,) in self.parts:
            x = self.get_submodule(part)(x)
            found.append(x)
        return found

    def classify(self, x: Tensor) -> Tensor:
        return super().classify(self.dropout(flatten(self.global_pool(x), self.fc.in_features)))


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
        """The shape; `options` are those of ImageClassifier.

        Args:
            channels: Channels of each stage; each stage halves height and width.
            convolutions: 3x3 convolutions in each stage.
            norm: batch, layer, group or none.
            activation: relu, gelu, silu or tanh.
            pool: max or mean, over 2x2 pixels.
            dropout: Share of the inputs of the linear classifier that is set to zero while training, in [0, 1).
            init: The first weights: kaiming, xavier, orthogonal, torch, dirac or lsuv.
            stem: Channels of a 2x2 convolution before the stages, which patch_whitening can set; 0 has none.
            global_pool: none flattens what the last stage gives; max or mean over its pixels takes images of any size.
            classifier_std: Standard deviation of the classifier's first weights; None is torch's, 1 / sqrt(3 inputs).
            classifier_bias: Whether the classifier has biases.

        """
        super().__init__(**options)
        if not channels or min(channels) < 1 or convolutions < 1:
            raise ValueError(f"give at least one stage and one convolution, not {list(channels)} and {convolutions}")
        least = 2 ** len(channels) + (stem > 0)
        if self.image_size < least:
            raise ValueError(
                f"{len(channels)} stages halve {self.image_size} pixels to nothing; "
                f"give fewer channels, or images of at least {least} pixels"
            )
        if pool not in tuple(POOLS):
            raise unknown("pool", pool, POOLS)
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), got {dropout}")
        if global_pool not in (FLATTEN, *GLOBAL_POOLS):
            raise unknown("global_pool", global_pool, (FLATTEN, *GLOBAL_POOLS))
        if stem < 0:
            raise ValueError(f"stem is a number of channels, or 0 for none; got {stem}")
        if classifier_std is not None and not 0 <= classifier_std < math.inf:
            raise ValueError(f"classifier_std must be at least 0, got {classifier_std}")
        layers = Layers(norm, activation, init)
        self.network = CNNNetwork(
            self.in_channels,
            self.image_size,
            self.num_classes,
            channels,
            convolutions,
            layers,
            pool,
            dropout,
            stem,
            global_pool,
            classifier_std,
            classifier_bias,
        )


register("cnn", CNN, "64-128-256 channels, 3 convolutions a stage", parameters=1_962_314)
register(
    "cnn_small",
    CNN,
    "32-64-128 channels, 2 convolutions a stage",
    parameters=307_946,
    channels=(32, 64, 128),
    convolutions=2,
)
# The network of airbench94 (https://arxiv.org/abs/2404.00498), which has GELU, slower on a CPU, and a classifier
# without biases: activation="gelu", classifier_bias=False.
register(
    "cnn_fast",
    CNN,
    "64-256-256 channels after a 2x2 stem, with SiLU: the network of airbench94",
    parameters=1_972_802,
    defaults={"activation": "silu", "init": "dirac", "classifier_std": 1 / 256},
    channels=(64, 256, 256),
    convolutions=2,
    stem=24,
    global_pool="max",
)
