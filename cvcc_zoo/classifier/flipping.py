"""Test-time augmentation by a flip: the mean of the logits of an image and of its mirror image."""

from torch import Tensor, nn


class Flipped(nn.Module):
    """A classifier that also looks at the mirror image of each image (N, C, H, W)."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        """Return the mean of both logits, (N, num_classes)."""
        both: Tensor = (self.model(images) + self.model(images.flip(-1))) / 2
        return both
