"""Augmentations made of augmentations: one after the other, or only for a share of the images."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from cvcc_zoo.data.augment.augmentation import Augmentation, Mixing, as_float, check_probability, choose
from cvcc_zoo.data.draws import Draws


def _of_images_only(kind: str, augmentation: nn.Module) -> Augmentation:
    if isinstance(augmentation, Mixing):
        raise ValueError(
            f"{type(augmentation).__name__} also changes labels and cannot be inside {kind}; put it into the list of "
            "augmentations itself (it has a probability of its own)"
        )
    if not isinstance(augmentation, Augmentation):
        raise ValueError(f"{kind} takes augmentations, got {augmentation!r}")
    return augmentation


class Compose(Augmentation):
    """Apply augmentations one after the other."""

    def __init__(self, augmentations: Sequence[nn.Module]) -> None:
        super().__init__()
        self.augmentations = [_of_images_only("Compose", a) for a in augmentations]
        self.in_float = any(a.in_float for a in self.augmentations)  # to round once, not after each

    def change(self, images: Tensor, draws: Draws) -> Tensor:
        for augmentation in self.augmentations:
            images = augmentation(images, draws)
        return images


class Probability(Augmentation):
    """Apply an augmentation to each image with a `probability` in [0, 1]."""

    def __init__(self, augmentation: nn.Module, probability: float = 0.5) -> None:
        super().__init__()
        check_probability("Probability", probability)
        self.augmentation = _of_images_only("Probability", augmentation)
        self.probability = probability
        self.in_float = self.augmentation.in_float

    def change(self, images: Tensor, draws: Draws) -> Tensor:
        chosen = draws.uniform() < self.probability
        return choose(chosen, self.augmentation(images, draws), images)


def augment(
    augmentations: Sequence[nn.Module], images: Tensor, labels: Tensor, draws: Draws, num_classes: int
) -> tuple[Tensor, Tensor]:
    """Apply a list of augmentations and mixings to images (N, C, H, W) and labels (N,).

    From the first augmentation that computes in floats, the images are floats in [0, 1]. Labels become soft labels
    (N, num_classes) if the list has a mixing.
    """
    if any(isinstance(a, Mixing) for a in augmentations):
        labels = nn.functional.one_hot(labels, num_classes).to(torch.float32)
    for augmentation in augmentations:
        if isinstance(augmentation, Mixing):
            images, labels = augmentation(images, labels, draws)
            continue
        if augmentation.in_float and not images.is_floating_point():
            images = as_float(images)
        images = augmentation(images, draws)
    return images, labels
