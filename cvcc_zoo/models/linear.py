"""The linear classifier: one weight image and one bias for each class, s = W x + b."""

from typing import Any

from torch import Tensor, nn

from cvcc_zoo.classifier import ImageClassifier
from cvcc_zoo.models.layers import flatten
from cvcc_zoo.registry import register
from cvcc_zoo.stages import Network


class LinearNetwork(Network):
    """Images (N, in_channels, H, W) to logits (N, num_classes)."""

    def __init__(self, in_channels: int, image_size: int, num_classes: int) -> None:
        super().__init__()
        self.parts = []
        self.fc = nn.Linear(in_channels * image_size**2, num_classes)
        nn.init.zeros_(self.fc.weight)  # the loss is convex, so no symmetry has to be broken
        nn.init.zeros_(self.fc.bias)

    def features(self, x: Tensor) -> list[Tensor]:
        return [flatten(x, self.fc.in_features)]


class Linear(ImageClassifier):
    """A linear classifier; which one depends on the loss: softmax regression, a linear SVM or least squares."""

    def __init__(self, **options: Any) -> None:
        """`options` are those of ImageClassifier."""
        super().__init__(**options)
        self.network = LinearNetwork(self.in_channels, self.image_size, self.num_classes)


@register(parameters=30_730)
def linear(**options: Any) -> Linear:
    """W x + b."""
    return Linear(**options)
