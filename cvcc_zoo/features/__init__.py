"""Features before networks: images to vectors, as modules."""

from cvcc_zoo.features.hog import HOG
from cvcc_zoo.features.pca import PCA

__all__ = ["HOG", "PCA"]
