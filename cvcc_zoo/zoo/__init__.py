"""From any name to a model: registered names, families, published weights, run folders and checkpoints."""

from cvcc_zoo.zoo.catalogue import list_models
from cvcc_zoo.zoo.creation import create, load

__all__ = ["create", "list_models", "load"]
