"""Scores (logits) of a model for all images of a split, and their margins."""

import copy
from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor

from cvcc_zoo.classifier import ImageClassifier
from cvcc_zoo.classifier.compatibility import check_classes, check_data
from cvcc_zoo.data import ImageDataModule
from cvcc_zoo.printing.progress import tracked
from cvcc_zoo.timing import default_device


def opened(
    model: ImageClassifier, data: ImageDataModule, split: Literal["val", "test"], title: str
) -> tuple[ImageClassifier, Iterator[tuple[Tensor, Tensor]]]:
    """Return a folded copy of a model on a GPU, if there is one, and the batches of a split there, with a progress bar.

    Its scores are not divided by the model's temperature. Raises ValueError if the data do not fit the model, and for
    `val` if there are no validation images.
    """
    check_classes(model, data)
    check_data(model.hparams, data)
    data.prepare_data()
    data.setup("validate" if split == "val" else "test")
    device = default_device()
    folded = model.folded()
    folded.whitening = copy.deepcopy(folded.whitening)  # that of the model stays on its device
    folded.eval().to(device)
    folded.temperature = 1.0
    loader = data.val_dataloader() if split == "val" else data.test_dataloader()
    batches = tracked(loader, title, data.count(split), lambda batch: len(batch[1]))
    return folded, ((images.to(device), labels.to(device)) for images, labels in batches)


def scores(
    model: ImageClassifier, data: ImageDataModule, *, split: Literal["val", "test"] = "test", mirrored: bool = False
) -> tuple[Tensor, Tensor]:
    """Return the scores, which are the logits (N, num_classes), and the labels (N,) of all images of a split.

    They are not divided by the model's temperature. They are computed on a GPU if there is one. With `mirrored` the
    scores are those of the mirror images; the mean of both is test-time augmentation by a flip. Raises ValueError as
    `opened` does.
    """
    folded, batches = opened(model, data, split, "scores of mirror images" if mirrored else "scores of images")

    def score(images: Tensor) -> Tensor:
        logits: Tensor = folded(images.flip(-1) if mirrored else images)
        return logits if logits.dtype == torch.float64 else logits.float()

    with torch.inference_mode():
        found = [(score(images).cpu(), labels.cpu()) for images, labels in batches]
    logits, labels = (torch.cat(parts) for parts in zip(*found, strict=True))
    return logits, labels


def margins(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the margin of the true class, s_y - max over the others of s_j, (N,); above 0 the image is right."""
    right = logits.gather(1, labels[:, None])
    others = logits.scatter(1, labels[:, None], -torch.inf)
    return right[:, 0] - others.amax(1)
