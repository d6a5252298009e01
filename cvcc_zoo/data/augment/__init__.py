"""Augment a whole batch with independent random draws for every image.

torchvision's random transforms draw one set of parameters for a batch; these draw one for each image, as a function
of (seed, epoch, sample) alone: the same on any device, in any batch, on any number of processes. Only the partner of
an image in MixUp and CutMix depends on the batch.
"""

from cvcc_zoo.data.augment.augmentation import Augmentation, Compose, Mixing, Probability, augment
from cvcc_zoo.data.augment.build import AUGMENTATIONS, PRESETS, make_augmentations
from cvcc_zoo.data.augment.colour import ColorJitter
from cvcc_zoo.data.augment.erasing import Cutout, GaussianBlur, Pixelate, RandomErasing
from cvcc_zoo.data.augment.geometry import AlternatingFlip, HorizontalFlip, RandomCrop
from cvcc_zoo.data.augment.mixing import CutMix, MixUp
from cvcc_zoo.data.augment.policies import RandAugment, TrivialAugment

__all__ = [
    "AUGMENTATIONS",
    "PRESETS",
    "AlternatingFlip",
    "Augmentation",
    "ColorJitter",
    "Compose",
    "CutMix",
    "Cutout",
    "GaussianBlur",
    "HorizontalFlip",
    "MixUp",
    "Mixing",
    "Pixelate",
    "Probability",
    "RandAugment",
    "RandomCrop",
    "RandomErasing",
    "TrivialAugment",
    "augment",
    "make_augmentations",
]
