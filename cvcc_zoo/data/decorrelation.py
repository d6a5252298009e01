"""Whitening matrices: from a covariance S to W with W S W^T = I. Kessy, Lewin & Strimmer 2018, arXiv 1512.00809.

`zca`       S^-1/2, symmetric: of all whitened vectors its are the nearest to the original ones
`pca`       L^-1/2 U^T with S = U L U^T: the whitened values are sorted by the variance that they stand for
`cholesky`  upper triangular: a value is whitened by those after it only
`zca_cor`   P^-1/2 V^-1/2 with the correlation P and the variances V: the most correlated with the original values
`pca_cor`   the same with the principal directions of P

`eps` is added to the eigenvalues of S (of P for the two of the correlation; to the diagonal of S for `cholesky`). Then
the covariance is U diag(l / (l + eps)) U^T and no longer the identity: directions with a variance below eps, which are
mostly noise, are not blown up.
"""

import warnings
from dataclasses import dataclass

import torch
from torch import Tensor

from cvcc_zoo.data.symmetric import gram

METHODS = ("zca", "pca", "cholesky", "zca_cor", "pca_cor")
PRINCIPAL = ("pca", "pca_cor")
"""Methods whose outputs are principal components, sorted, so that some of them can be left out."""


@dataclass(frozen=True)
class Decorrelation:
    """`matrix` (K, D), the eigenvalues `spectrum` (D,) in falling order, and how many of them are not zero."""

    matrix: Tensor
    spectrum: Tensor
    rank: int


def decorrelation(
    covariance: Tensor,
    method: str,
    eps: float = 0.0,
    components: int | float | None = None,
    *,
    precise: bool = True,
) -> Decorrelation:
    """The whitening matrix for a covariance (D, D) in float64.

    Without `eps`, directions that have no variance are mapped to zero: the covariance is then a projector.
    `components` (an int, or the share of variance to keep in (0, 1]) cuts `pca` and `pca_cor`; each of their
    directions has its largest entry positive. Without `precise` whitened values may be correlated by 1e-9, which
    float32 cannot tell. Raises ValueError where a covariance without full rank cannot work.
    """
    if method == "cholesky":
        return _cholesky(covariance, eps)
    scale = torch.ones(len(covariance), dtype=covariance.dtype)
    if method.endswith("_cor"):
        std = covariance.diagonal().sqrt()
        scale = torch.where(std > 0, 1 / std, 0.0)
        covariance = scale[:, None] * covariance * scale
    values, vectors = torch.linalg.eigh(covariance)  # in rising order
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
        vectors *= roots.flip(0).sqrt()
        matrix = gram(vectors)
    del vectors  # 75 MB for CIFAR-10
    if precise and eps == 0 and rank == len(values):
        matrix = _refine(matrix, covariance)
    return Decorrelation(matrix.mul_(scale), values, rank)


def _refine(matrix: Tensor, covariance: Tensor) -> Tensor:
    """One Newton step towards W S W^T = I: W <- (3 I - W S W^T) W / 2.

    `eigh` is wrong by the rounding of the largest eigenvalue, which is 1e-9 of the smallest ones of CIFAR-10. With
    S = R R^T, W R is nearly orthogonal and so keeps the digits that W S W^T would lose.
    """
    factor, failed = torch.linalg.cholesky_ex(covariance)
    if failed:
        return matrix
    nearly_orthogonal = matrix @ factor
    del factor
    error = gram(nearly_orthogonal)
    del nearly_orthogonal
    error.diagonal().sub_(1)
    return matrix.sub_(error.float() @ matrix.float(), alpha=0.5)  # of a correction, seven digits are enough


def _noise(values: Tensor) -> float:
    """Eigenvalues in falling order that are not larger than this are zero, as in numpy.linalg.matrix_rank."""
    return float(values[0].abs()) * len(values) * torch.finfo(torch.float64).eps


def _count(components: int | float | None, values: Tensor) -> int:
    """How many leading directions are kept."""
    if components is None:
        return len(values)
    if isinstance(components, int):
        return min(components, len(values))
    shares = values.cumsum(0) / values.sum()
    return min(int((shares < components - 1e-12).sum()) + 1, len(values))


def _cholesky(covariance: Tensor, eps: float) -> Decorrelation:
    """W = L^T with S^-1 = L L^T, from the factor S = R R^T with R upper triangular: W = R^-1."""
    size = len(covariance)
    eye = torch.eye(size, dtype=covariance.dtype)
    lower, failed = torch.linalg.cholesky_ex((covariance + eps * eye).flip(0, 1))
    spectrum = torch.linalg.eigvalsh(covariance).flip(0)
    rank = int((spectrum > _noise(spectrum)).sum())
    if failed or (eps == 0 and rank < size):
        raise ValueError(
            f"Cholesky whitening needs a covariance of full rank, this one has rank {rank} of {size}; "
            "give eps > 0 (for example 0.001), more images, or take zca"
        )
    upper = lower.flip(0, 1)
    return Decorrelation(torch.linalg.solve_triangular(upper, eye, upper=True), spectrum.clamp(min=0), rank)


def pseudo_inverse(matrix: Tensor, spectrum: Tensor, eps: float) -> Tensor:
    """The matrix (D, K), in float64, that undoes a whitening matrix (K, D) as far as it kept the directions."""
    matrix = matrix.double()
    whole = matrix.shape[0] == matrix.shape[1] and (eps > 0 or float(spectrum[-1]) > _noise(spectrum))
    inverse: Tensor = torch.linalg.inv(matrix) if whole else torch.linalg.pinv(matrix)  # pinv is 50 times slower
    return inverse


def warn_of_rank(images: int, covariance: Tensor, rank: int, eps: float) -> None:
    """A UserWarning where some directions of the covariances (G, D, D) have no variance and will be zero."""
    size = covariance.shape[1]
    if rank == size or eps > 0:
        return
    constant = int((covariance.diagonal(dim1=1, dim2=2) == 0).sum())
    why = f"there are {images:,} images" if images <= size else "some values are sums of others"
    if constant:
        why = f"{constant} of the pixels are the same in all images"
    warnings.warn(
        f"whitening {size:,} values together needs a covariance of rank {size:,} and got {rank:,}: {why}. "
        f"The other {size - rank:,} directions become zero; give more images than that, a smaller scope, or eps > 0",
        UserWarning,
        stacklevel=4,
    )
