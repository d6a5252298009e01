"""A demo in the browser that compares two published models on an image."""

from cvcc_zoo.demo.app import build
from cvcc_zoo.demo.uploads import Limits, own_files

__all__ = ["Limits", "build", "own_files"]
