"""A PyTorch Lightning model zoo for small images."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cvcc_zoo.classifier import ImageClassifier
    from cvcc_zoo.data import ImageDataModule
    from cvcc_zoo.models import CNN, FCNN, Linear, ResNet, ResNeXt, Timm, WideResNet
    from cvcc_zoo.zoo import create, list_models, load

__version__ = "0.1.0"

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
    if name not in __all__:
        raise AttributeError(f"module 'cvcc_zoo' has no attribute {name!r}")
    homes = map(import_module, ("cvcc_zoo.data", "cvcc_zoo.classifier", "cvcc_zoo.models", "cvcc_zoo.zoo"))
    return next(getattr(home, name) for home in homes if name in home.__all__)  # each home imports those before it


def __dir__() -> list[str]:
    return __all__
