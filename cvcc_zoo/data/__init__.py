"""From data sets to batches: datasets -> uint8 tensors -> loader -> augmentation; whitening for the model."""

from cvcc_zoo.data.datamodule import ImageDataModule
from cvcc_zoo.data.loader import in_order
from cvcc_zoo.data.sources import check_test
from cvcc_zoo.data.whitening import Whitening

__all__ = ["ImageDataModule", "Whitening", "check_test", "in_order"]
