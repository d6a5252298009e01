"""Published models in a browser: what they see in an image, side by side."""

from cvcc_zoo.demo.app import build, own_files

__all__ = ["build", "own_files"]
