"""The options of the images, for the commands that do not train."""

from jsonargparse import ArgumentParser

from cvcc_zoo.data import ImageDataModule
from cvcc_zoo.data.sources import OBJECTS

STAGES = ("progressive_cropping", "progressive_resizing", "sampler")
AUGMENTATIONS = {*STAGES, "batch_size", "whitening"}
"""Options of an ImageDataModule that do not change how its augmentations are drawn."""
WHITENING = {*STAGES, "batch_size", "augmentations", "seed"}
"""Options that do not change how its whitening is drawn."""
MODEL = {*STAGES, "augmentations", "seed", "whitening"}
"""Options that do not change what a trained model says about its images."""


def add_images(parser: ArgumentParser, unused: set[str]) -> None:
    """Give a parser the options of an ImageDataModule as `--data.NAME`, without those that the command does not use."""
    parser.add_class_arguments(ImageDataModule, "data", skip={*OBJECTS, *unused})
