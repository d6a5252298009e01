"""From data sets to batches: datasets -> uint8 tensors -> loader -> augmentation; whitening for the model."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cvcc_zoo.data.datamodule import ImageDataModule
    from cvcc_zoo.data.loader import in_order
    from cvcc_zoo.data.sources import check_test
    from cvcc_zoo.data.whitening import Whitening

__all__ = ["ImageDataModule", "Whitening", "check_test", "in_order"]

_HOMES = {"ImageDataModule": "datamodule", "Whitening": "whitening", "check_test": "sources", "in_order": "loader"}


def __getattr__(name: str) -> Any:
    """Import a name when it is first used: a process that decodes images does not need torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'cvcc_zoo.data' has no attribute {name!r}")
    return getattr(import_module(f"cvcc_zoo.data.{_HOMES[name]}"), name)
