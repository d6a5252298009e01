"""What all residual networks of the zoo share: a stem, stages of blocks, global pooling and a classifier."""

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from cvcc_zoo.classifier.network import Network
from cvcc_zoo.models.initialisation import initialise
from cvcc_zoo.models.layers import Layers


class StagedNetwork(Network):
    """Images (N, in_channels, H, W) to logits (N, num_classes); stage i works on H / 2^(i - 1) x W / 2^(i - 1) pixels.

    A subclass builds its stem (`add_stem`, or modules of its own), its stages (`add_stages`) and its classifier
    (`add_classifier`), in this order. The parts are the stem, `layer1`, `layer2` and so on.
    """

    def add_stem(self, in_channels: int, channels: int, layers: Layers) -> None:
        """Add a 3x3 convolution with norm and activation, (N, in_channels, H, W) to (N, channels, H, W)."""
        self.conv1 = layers.conv3x3(in_channels, channels)
        self.bn1 = layers.normalisation(channels)
        self.activation = layers.nonlinearity()
        self.parts = [["conv1", "bn1"]]

    def stem(self, x: Tensor) -> Tensor:
        """Return the input of the first stage, (N, C, H, W)."""
        y: Tensor = self.activation(self.bn1(self.conv1(x)))
        return y

    def add_stages(
        self, block: Callable[[int, int, int], nn.Module], blocks: int, channels: int, stages: Sequence[int]
    ) -> int:
        """Add a stage of `blocks` blocks for each number of output channels in `stages`, and return the last one.

        `block(in_channels, out_channels, stride)` builds a block; the stem has `channels`. From the second stage on,
        the first block has stride 2.
        """
        for number, out in enumerate(stages, start=1):
            stage = nn.Sequential()
            for index in range(blocks):
                stage.append(block(channels, out, 2 if number > 1 and index == 0 else 1))
                channels = out
            self.add_module(f"layer{number}", stage)
            self.parts.append([f"layer{number}"])
        return channels

    def add_classifier(self, channels: int, num_classes: int, layers: Layers) -> None:
        """Add pooling and the classifier, then initialise all weights."""
        self.pool = layers.pooling()
        self.fc = layers.classifier(channels, num_classes)
        initialise(self, layers.init)

    def features(self, x: Tensor) -> list[Tensor]:
        outputs = [self.stem(x)]
        for stage, *_ in self.parts[1:]:
            outputs.append(getattr(self, stage)(outputs[-1]))
        return outputs

    def classify(self, x: Tensor) -> Tensor:
        return super().classify(self.pool(x))
