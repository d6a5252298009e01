"""Published models in a browser: what they see in an image, side by side."""

from cvcc_zoo.demo.app import build

__all__ = ["build"]
