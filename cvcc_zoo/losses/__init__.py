"""Losses: those of the course by name, and your own by an import path."""

from cvcc_zoo.losses.build import (
    Loss,
    UnknownLoss,
    check_class_weights,
    check_loss,
    loss_spec,
    make_loss,
    takes_soft_labels,
)
from cvcc_zoo.losses.functions import (
    LOSSES,
    SOFT,
    check_labels,
    crammer_singer,
    cross_entropy,
    focal,
    hinge,
    squared_error,
)

__all__ = [
    "LOSSES",
    "SOFT",
    "Loss",
    "UnknownLoss",
    "check_class_weights",
    "check_labels",
    "check_loss",
    "crammer_singer",
    "cross_entropy",
    "focal",
    "hinge",
    "loss_spec",
    "make_loss",
    "squared_error",
    "takes_soft_labels",
]
