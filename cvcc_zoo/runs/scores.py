"""Scores: what a model gives the classes of every image, by how much the right one wins, and how sure it may be."""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from cvcc_zoo.classifier import ImageClassifier
from cvcc_zoo.classifier.compatibility import check_classes, check_data
from cvcc_zoo.data import ImageDataModule
from cvcc_zoo.printing.progress import tracked

HOTTEST = 100.0  # the bounds of a temperature are 1 / HOTTEST and HOTTEST


def scores(
    model: ImageClassifier, data: ImageDataModule, *, split: Literal["val", "test"] = "test", mirrored: bool = False
) -> tuple[Tensor, Tensor]:
    """Scores, which are the logits (N, num_classes), and labels (N,) of all images of a split; on a GPU if there is.

    With `mirrored` they are those of the mirror images; the mean of both is test-time augmentation by a flip.
    Raises ValueError if model and data do not fit, and where no images are kept for validation.
    """
    check_classes(model, data)
    check_data(model.hparams, data)
    data.prepare_data()
    data.setup("validate" if split == "val" else "test")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = model.eval().to(device).folded()

    def score(images: Tensor) -> Tensor:
        logits: Tensor = model(images.flip(-1) if mirrored else images)
        return logits if logits.dtype == torch.float64 else logits.float()

    loader = data.val_dataloader() if split == "val" else data.test_dataloader()
    title = "scores of mirror images" if mirrored else "scores of images"
    batches = tracked(loader, title, data.count(split), lambda batch: len(batch[1]))
    with torch.inference_mode():
        found = [(score(images.to(device)).cpu(), labels.cpu()) for images, labels in batches]
    logits, labels = (torch.cat(parts) for parts in zip(*found, strict=True))
    return logits, labels


def margins(logits: Tensor, labels: Tensor) -> Tensor:
    """By how much the right class wins: s_y - max over the others of s_j, (N,). Above 0 the image is right."""
    right = logits.gather(1, labels[:, None])
    others = logits.scatter(1, labels[:, None], -torch.inf)
    return right[:, 0] - others.amax(1)


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """The number T for which softmax(logits / T) has the smallest cross-entropy with the labels.

    It changes no decision, only how sure the model says it is: above 1 less sure. Fit it on images that were neither
    trained on nor are tested: Guo et al. 2017, https://arxiv.org/abs/1706.04599, section 4.2.
    """
    from scipy.optimize import minimize_scalar  # a fifth of a second, and few need it

    logits = logits.double()

    def loss(log_temperature: float) -> float:
        return float(F.cross_entropy(logits / math.exp(log_temperature), labels))

    bound = math.log(HOTTEST)
    return math.exp(minimize_scalar(loss, bounds=(-bound, bound), method="bounded").x)
