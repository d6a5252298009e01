"""A PyTorch Lightning model zoo for small images."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cvcc_zoo.classifier import ImageClassifier
    from cvcc_zoo.data import ImageDataModule
    from cvcc_zoo.models import CNN, FCNN, Linear, ResNet, ResNeXt, Timm, WideResNet
    from cvcc_zoo.zoo import create, list_models, load

__version__ = "0.1.0"

_HOMES = {
    "CNN": "models",
    "FCNN": "models",
    "ImageClassifier": "classifier",
    "ImageDataModule": "data",
    "Linear": "models",
    "ResNeXt": "models",
    "ResNet": "models",
    "Timm": "models",
    "WideResNet": "models",
    "create": "zoo",
    "list_models": "zoo",
    "load": "zoo",
}

__all__ = [
    "CNN",
    "FCNN",
    "ImageClassifier",
    "ImageDataModule",
    "Linear",
    "ResNeXt",
    "ResNet",
    "Timm",
    "WideResNet",
    "create",
    "list_models",
    "load",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that `import cvcc_zoo` costs nothing."""
    if name not in _HOMES:
        raise AttributeError(f"module 'cvcc_zoo' has no attribute {name!r}")
    return getattr(import_module(f"cvcc_zoo.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
