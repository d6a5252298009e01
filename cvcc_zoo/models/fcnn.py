"""Fully connected networks: linear layers with norm, activation and dropout between them."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from cvcc_zoo.classifier import ImageClassifier
from cvcc_zoo.classifier.network import Network
from cvcc_zoo.models.initialisation import check_init, initialise
from cvcc_zoo.models.layers import ACTIVATIONS, flatten
from cvcc_zoo.registry import register, unknown

NORMS = {"batch": nn.BatchNorm1d, "layer": nn.LayerNorm, "none": None}


class FCNNNetwork(Network):
    """Images (N, in_channels, H, W) to logits (N, num_classes)."""

    def __init__(
        self,
        features: int,
        hidden: Sequence[int],
        num_classes: int,
        norm: str,
        activation: str,
        dropout: float,
        init: str,
    ) -> None:
        super().__init__()
        self.inputs = features
        layers: list[nn.Module] = []
        self.parts = []
        for width in hidden:
            first = len(layers)
            layers.append(nn.Linear(features, width, bias=norm == "none"))
            if (norm_class := NORMS[norm]) is not None:
                layers.append(norm_class(width))
            layers.append(ACTIVATIONS[activation]())
            if dropout:
                layers.append(nn.Dropout(dropout))
            self.parts.append([f"layers.{number}" for number in range(first, len(layers))])
            features = width
        self.layers = nn.Sequential(*layers)
        self.fc = nn.Linear(features, num_classes)
        initialise(self, init)

    def features(self, x: Tensor) -> list[Tensor]:
        x, found = flatten(x, self.inputs), []
        for names in self.parts:
            for name in names:
                x = self.get_submodule(name)(x)
            found.append(x)
        return found


class FCNN(ImageClassifier):
    """A fully connected network with one hidden layer for each entry of `hidden`."""

    def __init__(
        self,
        hidden: Sequence[int] = (1024, 512, 256),
        norm: str = "batch",
        activation: str = "relu",
        dropout: float = 0.2,
        init: str = "kaiming",
        **options: Any,
    ) -> None:
        """The shape; `options` are those of ImageClassifier.

        Args:
            hidden: Width of each hidden layer.
            norm: batch, layer or none. Groups have no meaning where units have no order.
            activation: relu, gelu, silu or tanh.
            dropout: Share of the hidden units that is set to zero while training, in [0, 1); the others are scaled
                by 1 / (1 - dropout), so that nothing has to be scaled at test time.
            init: The first weights: kaiming, xavier, orthogonal, torch, dirac or lsuv.

        """
        super().__init__(**options)
        check_layers(hidden, norm, activation)
        check_init(init, norm, residual=False)
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), got {dropout}")
        features = self.in_channels * self.image_size**2
        self.network = FCNNNetwork(features, hidden, self.num_classes, norm, activation, dropout, init)


def check_layers(widths: Sequence[int], norm: str, activation: str) -> None:
    """Raise ValueError for empty or non-positive widths and for unknown names."""
    if not isinstance(widths, Sequence) or not widths or min(widths) < 1:
        raise ValueError(f"give at least one layer, each with at least one unit, not {widths}")
    if norm not in NORMS:
        raise unknown("norm", norm, NORMS)
    if activation not in ACTIVATIONS:
        raise unknown("activation", activation, ACTIVATIONS)


register("fcnn", FCNN, "1024-512-256 units, batch norm, dropout", parameters=3_807_242)
