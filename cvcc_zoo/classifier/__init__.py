"""The LightningModule that every model family is, and what it consists of."""

from cvcc_zoo.classifier.image_classifier import ImageClassifier
from cvcc_zoo.classifier.network import Network

__all__ = ["ImageClassifier", "Network"]
