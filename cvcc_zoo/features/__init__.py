"""Features before networks: images to vectors, as modules."""

from cvcc_zoo.features.build import Features
from cvcc_zoo.features.hog import HOG
from cvcc_zoo.features.patches import Patches
from cvcc_zoo.features.pca import PCA
from cvcc_zoo.features.pretrained import Pretrained
from cvcc_zoo.features.standardize import Standardize

__all__ = ["HOG", "PCA", "Features", "Patches", "Pretrained", "Standardize"]
