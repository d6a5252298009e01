"""Linear classifiers: ridge regression in closed form, features such as HOG, PCA and patches, and templates."""

from cvcc_zoo.linear.features import Features
from cvcc_zoo.linear.hog import HOG
from cvcc_zoo.linear.patches import Patches
from cvcc_zoo.linear.pca import PCA, Standardize
from cvcc_zoo.linear.pretrained import Pretrained
from cvcc_zoo.linear.ridge import NormalEquations, Ridge, RidgePath, make_ridge, solve
from cvcc_zoo.linear.sums import Frame, Sums

__all__ = [
    "HOG",
    "PCA",
    "Features",
    "Frame",
    "NormalEquations",
    "Patches",
    "Pretrained",
    "Ridge",
    "RidgePath",
    "Standardize",
    "Sums",
    "make_ridge",
    "solve",
]
