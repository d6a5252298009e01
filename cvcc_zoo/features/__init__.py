"""Features before networks: images to vectors, as modules."""

from cvcc_zoo.features.hog import HOG

__all__ = ["HOG"]
