"""Scores: what a model gives the classes of every test image, and by how much the right one wins."""

import torch
from torch import Tensor

from cvcc_zoo.classifier import ImageClassifier
from cvcc_zoo.compatibility import check_data
from cvcc_zoo.data import ImageDataModule


def scores(model: ImageClassifier, data: ImageDataModule, *, mirrored: bool = False) -> tuple[Tensor, Tensor]:
    """Scores, which are the logits (N, num_classes), and labels (N,) of all test images; on a GPU if there is one.

    With `mirrored` they are the means of those of an image and of its mirror image: test-time augmentation by a flip.
    Raises ValueError if model and data do not fit.
    """
    check_data(model.hparams, data)
    data.prepare_data()
    data.setup("test")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = model.eval().to(device).folded()

    def score(images: Tensor) -> Tensor:
        logits: Tensor = model(images).float()
        return (logits + model(images.flip(-1)).float()) / 2 if mirrored else logits

    with torch.inference_mode():
        found = [(score(images.to(device)).cpu(), labels.cpu()) for images, labels, _ in data.test_dataloader()]
    logits, labels = (torch.cat(parts) for parts in zip(*found, strict=True))
    return logits, labels


def margins(logits: Tensor, labels: Tensor) -> Tensor:
    """By how much the right class wins: s_y - max over the others of s_j, (N,). Above 0 the image is right."""
    right = logits.gather(1, labels[:, None])
    others = logits.scatter(1, labels[:, None], -torch.inf)
    return right[:, 0] - others.amax(1)
