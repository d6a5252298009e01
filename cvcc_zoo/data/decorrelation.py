"""Whitening matrices: from a covariance S to W with W S W^T = I. Kessy, Lewin & Strimmer 2018, arXiv 1512.00809.

`zca`       S^-1/2, symmetric: its whitened vectors are the closest to the original ones
`pca`       L^-1/2 U^T with S = U L U^T: the whitened values are sorted by the variance that they explain
`cholesky`  upper triangular: each whitened value is made of the original value and those after it
`zca_cor`   P^-1/2 V^-1/2 with the correlation P and the variances V: the most correlated with the original values
`pca_cor`   the same with the principal directions of P

`eps` is added to the eigenvalues l of S (of P for `zca_cor` and `pca_cor`; to the diagonal of S for `cholesky`). The
covariance is then not the identity, but diag(l / (l + eps)) for `pca` and `pca_cor`, U diag(l / (l + eps)) U^T with the
principal directions U of S or P for `zca` and `zca_cor`, and I - eps W W^T for `cholesky`: directions with a variance
below eps, which are mostly noise, are not amplified.
"""

import warnings
from dataclasses import dataclass

import torch
from torch import Tensor

from cvcc_zoo.data.symmetric import gram

METHODS = ("zca", "pca", "cholesky", "zca_cor", "pca_cor")
PRINCIPAL = ("pca", "pca_cor")
"""Methods whose outputs are sorted principal components, so that the last ones can be left out."""


@dataclass(frozen=True)
class Decorrelation:
    """`matrix` (K, D), the eigenvalues `spectrum` (D,) in descending order, and the number of those that are not 0."""

    matrix: Tensor
    spectrum: Tensor
    rank: int


def decorrelation(
    covariance: Tensor, method: str, eps: float = 0.0, components: int | float | None = None
) -> Decorrelation:
    """Compute the whitening matrix of a covariance (D, D) in float64.

    If `eps` is 0, directions without variance are mapped to zero, and the whitened covariance is a projector.
    `components` (a number, or the share of variance to keep in (0, 1]) limits `pca` and `pca_cor`, in each of whose
    directions the largest entry is positive. Whitened values may have correlations of 1e-9, below the resolution of
    float32. Raises ValueError if the method needs a covariance of full rank.
    """
    if method == "cholesky":
        return _cholesky(covariance, eps)
    scale = torch.ones(len(covariance), dtype=covariance.dtype)
    if method.endswith("_cor"):
        std = covariance.diagonal().sqrt()
        scale = torch.where(std > 0, 1 / std, 0.0)
        covariance = scale[:, None] * covariance * scale
    values, vectors = torch.linalg.eigh(covariance)  # in ascending order
    values = values.flip(0)
    noise = _noise(values)
    rank = int((values > noise).sum())
    values = values.clamp(min=0)
    roots = (values + eps).rsqrt() if eps > 0 else torch.where(values > noise, values, torch.inf).rsqrt()
    if method in PRINCIPAL:
        kept = _count(components, values)
        matrix = vectors.T.flip(0)[:kept]
        largest = matrix.gather(1, matrix.abs().argmax(1, keepdim=True))
        matrix *= largest.sign() * roots[:kept, None]
    else:
        vectors *= roots.flip(0).sqrt()  # U l^-1/4, which times its transpose is U l^-1/2 U^T, the root of the inverse
        matrix = gram(vectors)
    del vectors  # 75 MB for CIFAR-10
    return Decorrelation(matrix.mul_(scale), values, rank)


def _noise(values: Tensor) -> float:
    """Return the threshold up to which eigenvalues (in descending order) are zero, as in numpy.linalg.matrix_rank."""
    return float(values[0].abs()) * len(values) * torch.finfo(torch.float64).eps


def _count(components: int | float | None, values: Tensor) -> int:
    """Return the number of leading directions to keep."""
    if components is None:
        return len(values)
    if isinstance(components, int):
        return min(components, len(values))
    shares = values.cumsum(0) / values.sum()
    return min(int((shares < components - 1e-12).sum()) + 1, len(values))


def _cholesky(covariance: Tensor, eps: float) -> Decorrelation:
    """Compute W = L^T with S^-1 = L L^T as R^-1, where S = R R^T and R is upper triangular."""
    size = len(covariance)
    eye = torch.eye(size, dtype=covariance.dtype)
    lower, failed = torch.linalg.cholesky_ex((covariance + eps * eye).flip(0, 1))
    spectrum = torch.linalg.eigvalsh(covariance).flip(0)
    rank = int((spectrum > _noise(spectrum)).sum())
    if failed or (eps == 0 and rank < size):
        raise ValueError(
            f"Cholesky whitening needs a covariance of full rank, and this one has rank {rank} of {size}; "
            "give eps > 0 (for example 0.001) or more images, or choose zca"
        )
    upper = lower.flip(0, 1)
    return Decorrelation(torch.linalg.solve_triangular(upper, eye, upper=True), spectrum.clamp(min=0), rank)


def pseudo_inverse(matrix: Tensor, spectrum: Tensor, eps: float) -> Tensor:
    """Return the matrix (D, K), float64, that undoes a whitening matrix (K, D) in the directions that it kept.

    The rank is not that of `matrix`, which was rounded to float32: the directions that it lost would not be zero.
    """
    matrix = matrix.double()
    rank = min(int(matrix.any(0).sum()), int(matrix.any(1).sum()))  # constant pixels of zca_cor, omitted components
    if eps == 0:
        rank = min(rank, int((spectrum > _noise(spectrum)).sum()))
    inverse: Tensor
    if matrix.shape == (rank, rank):
        inverse = torch.linalg.inv(matrix)
    else:
        u, values, vh = torch.linalg.svd(matrix, full_matrices=False)  # 50 times slower
        inverse = (vh[:rank].mT / values[:rank]) @ u[:, :rank].mT
    return inverse


def warn_of_rank(images: int, covariance: Tensor, rank: int, eps: float) -> None:
    """Issue a UserWarning if the covariances (G, D, D) have directions without variance, which become zero."""
    size = covariance.shape[1]
    if rank == size or eps > 0:
        return
    constant = int((covariance.diagonal(dim1=1, dim2=2) == 0).sum())
    why = f"there are {images:,} images" if images <= size else "some values are sums of others"
    if constant:
        why = f"{constant} of the pixels are the same in all images"
    warnings.warn(
        f"whitening {size:,} values together needs a covariance of rank {size:,}, and this one has rank {rank:,}: "
        f"{why}. The other {size - rank:,} directions become zero; use more images, a smaller scope, or eps > 0",
        UserWarning,
        stacklevel=4,
    )
