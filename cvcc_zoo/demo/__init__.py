"""Published models in a browser: what they see in an image, side by side."""

from cvcc_zoo.demo.app import build
from cvcc_zoo.demo.uploads import Limits, own_files

__all__ = ["Limits", "build", "own_files"]
