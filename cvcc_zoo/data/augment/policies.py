"""TrivialAugment and RandAugment: apply random operations, drawn for each image."""

import torch
from torch import Tensor

from cvcc_zoo.data.augment import operations as op
from cvcc_zoo.data.augment.augmentation import Augmentation
from cvcc_zoo.data.draws import Draws

Table = dict[op.Operation, tuple[float, float, bool]]
"""Operation -> its smallest and largest magnitude, and whether its sign is random."""
BINS = 31  # magnitudes 0 .. 30, as in torchvision

FARTHEST = 32  # pixels, the largest translation in the wide space
REACH = 150 / 331  # the largest translation as a share of the image, from AutoAugment, https://arxiv.org/abs/1805.09501

WIDE: Table = {
    op.identity: (0, 0, False),
    op.shear_x: (0, 0.99, True),
    op.shear_y: (0, 0.99, True),
    op.translate_x: (0, FARTHEST, True),
    op.translate_y: (0, FARTHEST, True),
    op.rotate: (0, 135, True),
    op.brightness: (0, 0.99, True),
    op.color: (0, 0.99, True),
    op.contrast: (0, 0.99, True),
    op.sharpness: (0, 0.99, True),
    op.posterize: (8, 2, False),
    op.solarize: (1, 0, False),
    op.autocontrast: (0, 0, False),
    op.equalize: (0, 0, False),
}


def within(table: Table, height: int, width: int) -> Table:
    """Limit the translations of a table, so that more than half of an image of that size stays visible."""
    sides: Table = {}
    for operation, side in ((op.translate_x, width), (op.translate_y, height)):
        low, high, signed = table[operation]
        sides[operation] = (low, min(high, REACH * side), signed)
    return table | sides


def apply_one(table: Table, images: Tensor, draws: Draws, step: Tensor) -> Tensor:
    """Apply to each image one operation of the table, all equally likely, at `step` (N,) in 0 .. 30."""
    chosen = draws.integers(len(table))
    low, high, signed = torch.tensor(list(table.values()), device=images.device).T[:, chosen]
    magnitude = low + (high - low) * step / (BINS - 1)
    flipped = (draws.uniform() < 0.5) & (signed > 0)
    return op.apply_each(images, list(table), chosen, torch.where(flipped, -magnitude, magnitude))


class TrivialAugment(Augmentation):
    """Apply one of 14 operations with a random magnitude, all equally likely. Müller & Hutter 2021, arXiv 2103.10158.

    It uses the wide space of the paper, and has nothing to tune. Translations of up to 32 pixels are limited to
    150 / 331 of the image, because 32 pixels would leave nothing of an image of 28 or 32.
    """

    def change(self, images: Tensor, draws: Draws) -> Tensor:
        height, width = images.shape[2:]
        return apply_one(within(WIDE, height, width), images, draws, draws.integers(BINS))


class RandAugment(Augmentation):
    """Apply `operations` random operations, all with the same `magnitude`. Cubuk et al. 2019, arXiv 1909.13719.

    `magnitude` is a step in 0 .. 30, as in torchvision; in the paper and in timm 10 is as strong as 30, and 9 as 27.
    Translations are up to 150 / 331 of the image, as in torchvision.
    """

    def __init__(self, operations: int = 2, magnitude: int = 9) -> None:
        super().__init__()
        if operations < 1:
            raise ValueError(f"RandAugment: operations must be at least 1, got {operations}")
        if not 0 <= magnitude < BINS:
            raise ValueError(f"RandAugment: magnitude must be a step in 0 .. {BINS - 1}, got {magnitude}")
        self.operations, self.magnitude = operations, magnitude

    def change(self, images: Tensor, draws: Draws) -> Tensor:
        height, width = images.shape[2:]
        colours = dict.fromkeys((op.brightness, op.color, op.contrast, op.sharpness), (0.0, 0.9, True))
        table: Table = {
            **WIDE,
            **colours,
            op.shear_x: (0, 0.3, True),
            op.shear_y: (0, 0.3, True),
            op.translate_x: (0, REACH * width, True),
            op.translate_y: (0, REACH * height, True),
            op.rotate: (0, 30, True),
            op.posterize: (8, 4, False),
        }
        step = torch.full((len(images),), self.magnitude, device=images.device)
        for _ in range(self.operations):
            images = apply_one(table, images, draws, step)
        return images
