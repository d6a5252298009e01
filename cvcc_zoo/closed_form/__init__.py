"""Least squares without a gradient: sums over all images, read once, and one solution of the normal equations."""

from cvcc_zoo.closed_form.ridge import Ridge, make_ridge
from cvcc_zoo.closed_form.solve import NormalEquations, RidgePath, solve
from cvcc_zoo.closed_form.sums import Frame, Sums

__all__ = ["Frame", "NormalEquations", "Ridge", "RidgePath", "Sums", "make_ridge", "solve"]
