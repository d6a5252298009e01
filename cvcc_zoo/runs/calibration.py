"""Calibration: the temperature that makes a model's probabilities as large as its accuracies, and what it improves.

Guo et al. 2017, https://arxiv.org/abs/1706.04599, section 4.2. The temperature changes no predicted class.
"""

import math
from typing import Any

import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

BOUND = 100.0  # a temperature is between 1 / BOUND and BOUND
FOLDS = 5
FEWEST = 10  # images to fit a temperature to


def fit_temperature(logits: Tensor | npt.NDArray[Any], labels: Tensor | npt.NDArray[Any]) -> float:
    """Return the temperature T at which softmax(logits / T) has the smallest cross-entropy with the labels.

    Above 1 it makes the model less confident. Fit it to images that are used neither for training nor for the test.
    Raises ValueError if no temperature is best, because every image or none tells the classes apart.
    """
    if len(labels) < FEWEST:
        raise ValueError(
            f"{len(labels)} images are too few to fit a temperature; train with at least {FEWEST} held out for "
            "validation, by a larger share of the images (--data.validation=0.3), or by more images in a folder's val"
        )
    return _fit(torch.as_tensor(logits), torch.as_tensor(labels).long())


def _fit(logits: Tensor, labels: Tensor) -> float:
    from scipy.optimize import minimize_scalar  # imported here because it takes a fifth of a second

    logits = logits.double()

    def loss(log_temperature: float) -> float:
        return float(F.cross_entropy(logits / math.exp(log_temperature), labels))

    bound = math.log(BOUND)
    found = float(minimize_scalar(loss, bounds=(-bound, bound), method="bounded").x)
    if min(loss(-bound), loss(bound)) <= loss(found):
        images, advice = f"all {len(labels):,} images", "train it for longer"
        if bool((logits.argmax(1) == labels).all()):
            why, advice = f"the model is right on {images}", "hold out more images for validation"
        elif loss(-bound) < loss(bound):
            why = f"the scores of the classes hardly differ on {images}"
        else:
            why = f"the model knows no more than chance about {images}"
        raise ValueError(f"no temperature fits best: {why}; {advice}, and calibrate it then")
    return math.exp(found)


def cross_fitted(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the logits of each fifth of the images, divided by the temperature that fits the other four fifths best.

    So they show what a temperature does for images that it was not fitted to. Raises ValueError if no temperature is
    best for four of the fifths.
    """
    fold = torch.arange(len(labels)) % FOLDS  # images may be sorted by class
    calibrated = torch.empty_like(logits)
    for number in range(FOLDS):
        here = fold == number
        calibrated[here] = logits[here] / _fit(logits[~here], labels[~here])
    return calibrated
