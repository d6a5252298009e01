"""The LightningModule that every model family is, and what it consists of."""

from cvcc_zoo.classifier.image_classifier import ImageClassifier
from cvcc_zoo.classifier.network import Network
from cvcc_zoo.classifier.wrapped import Wrapped

__all__ = ["ImageClassifier", "Network", "Wrapped"]
