"""Fully connected networks: linear layers with norm, activation and dropout between them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from cvcc_zoo.classifier import ImageClassifier
from cvcc_zoo.classifier.network import Network
from cvcc_zoo.models.initialisation import check_init, initialise
from cvcc_zoo.models.layers import ACTIVATIONS, check_dropout, flatten
from cvcc_zoo.registry import check_known, register

NORMS = {"batch": nn.BatchNorm1d, "layer": nn.LayerNorm, "none": None}


@dataclass(frozen=True)
class HiddenLayers:
    """The kind of hidden layers: options of `FCNN`. Raises ValueError for impossible values."""

    norm: str
    activation: str
    dropout: float
    init: str

    def __post_init__(self) -> None:
        check_known("norm", NORMS, self.norm)
        check_known("activation", ACTIVATIONS, self.activation)
        check_init(self.init, self.norm, residual=False)
        check_dropout(self.dropout)

    def make(self, inputs: int, width: int) -> list[nn.Module]:
        """Return the modules of one hidden layer: (N, inputs) to (N, width)."""
        layer: list[nn.Module] = [nn.Linear(inputs, width, bias=self.norm == "none")]
        if (norm := NORMS[self.norm]) is not None:
            layer.append(norm(width))
        layer.append(ACTIVATIONS[self.activation]())
        return [*layer, nn.Dropout(self.dropout)] if self.dropout else layer


class FCNNNetwork(Network):
    """Images (N, in_channels, H, W) to logits (N, num_classes)."""

    def __init__(self, inputs: int, hidden: Sequence[int], layers: HiddenLayers, num_classes: int) -> None:
        super().__init__()
        self.inputs = inputs
        self.layers = nn.Sequential()
        self.parts = []
        for width in hidden:
            first = len(self.layers)
            self.layers.extend(layers.make(inputs, width))
            self.parts.append([f"layers.{number}" for number in range(first, len(self.layers))])
            inputs = width
        self.fc = nn.Linear(inputs, num_classes)
        initialise(self, layers.init)

    def features(self, x: Tensor) -> list[Tensor]:
        x, outputs = flatten(x, self.inputs), []
        for names in self.parts:
            for name in names:
                x = self.get_submodule(name)(x)
            outputs.append(x)
        return outputs


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
        """Build the model; `options` are those of ImageClassifier. Raises ValueError for impossible values.

        Args:
            hidden: Width of each hidden layer.
            norm: batch, layer or none. Groups have no meaning because units have no order.
            activation: relu, gelu, silu or tanh.
            dropout: Share of the hidden units that is set to zero in training, in [0, 1); the others are scaled by
                1 / (1 - dropout), so that nothing has to be scaled at test time.
            init: The first weights: kaiming, xavier, orthogonal, torch, dirac or lsuv.

        """
        super().__init__(**options)
        if not hidden or min(hidden) < 1:
            raise ValueError(f"give at least one hidden layer, each with at least one unit, not {hidden}")
        layers = HiddenLayers(norm, activation, dropout, init)
        self.network = FCNNNetwork(self.in_channels * self.image_size**2, hidden, layers, self.num_classes)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Also take weights of another dropout: with none, the names of the layers have other numbers."""
        super().on_load_checkpoint(checkpoint)
        names = dict(zip(checkpoint["state_dict"], self.state_dict(), strict=False))
        if checkpoint["hyper_parameters"].get("dropout") != self.hparams["dropout"]:
            for key, part in checkpoint.items():
                if isinstance(part, dict) and part.keys() <= names.keys():  # averages of weights, too
                    checkpoint[key] = {names[name]: tensor for name, tensor in part.items()}


register("fcnn", FCNN, "1024-512-256 units, batch norm, dropout", parameters=3_807_242)
