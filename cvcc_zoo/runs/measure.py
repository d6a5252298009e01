"""What a model makes of the test images of a data set: the numbers of a card, which can be measured again."""

import hashlib
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics.functional.classification import multiclass_calibration_error

from cvcc_zoo.classifier import ImageClassifier
from cvcc_zoo.data import ImageDataModule
from cvcc_zoo.scores import scores


def measure(model: ImageClassifier, data: ImageDataModule) -> dict[str, Any]:
    """Test a model on every test image once, on a GPU if there is one.

    Returns plain data: `test_images`, how many of them are `correct`, `test_accuracy` in [0, 1], `test_loss` (cross
    entropy, nats), `calibration_error` (15 bins, in [0, 1]), `confusion` (true class, predicted class), and
    `test_sha256` of images and labels. Raises ValueError if model and data do not fit.
    """
    logits, labels = scores(model, data)
    digest = hashlib.sha256()
    for images, _, _ in data.test_dataloader():
        digest.update(images.contiguous().numpy().tobytes())
    digest.update(labels.numpy().tobytes())  # after all images, so that the size of the batches does not matter
    return {**_numbers(logits, labels), "test_sha256": digest.hexdigest()}


def _numbers(logits: Tensor, labels: Tensor) -> dict[str, Any]:
    classes = logits.shape[1]
    confusion = torch.bincount(labels * classes + logits.argmax(1), minlength=classes**2).view(classes, classes)
    correct = int(confusion.trace())
    error = multiclass_calibration_error(logits.softmax(1), labels, classes)
    return {
        "test_images": len(labels),
        "correct": correct,
        "test_accuracy": correct / len(labels),
        "test_loss": round(float(F.cross_entropy(logits.double(), labels)), 6),
        "calibration_error": round(float(error), 6),
        "confusion": confusion.tolist(),
    }
