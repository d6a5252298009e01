"""The nearest orthogonal matrix by matrix products: U V^T of X = U S V^T. https://kellerjordan.github.io/posts/muon/

    X = a X + b (X X^T) X + c (X X^T)^2 X

changes only the singular values, each to a s + b s^3 + c s^5; after a few steps, all that were not tiny are near one.
The `MUON` coefficients are as steep as possible at zero; the values end not at one but between about 0.7 and 1.2 for
any number of steps. Those of `POLAR_EXPRESS` are the best for each step in turn, and converge
(https://arxiv.org/abs/2505.16932).

For a matrix that is wider than high, most of the work is in X X^T and its product with X. But all the products are
polynomials in the Gram matrix A = X X^T, which is small: `by_gram` iterates on A alone, collects the product Q of all
factors, and multiplies X once, by Q. For a 3x3 convolution that keeps its channels (n = 9 m) this takes 35 m^3
multiplications instead of 95. Because A has the squares of the singular values, it needs at least float32: a singular
value s is lost if s^2 is below the rounding error of 1.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from cvcc_zoo.internals.torch import without_autocast

Coefficients = Sequence[tuple[float, float, float]]

MUON = (3.4445, -4.7750, 2.0315)  # https://kellerjordan.github.io/posts/muon/
POLAR_EXPRESS: Coefficients = (  # https://github.com/NoahAmsel/PolarExpress, for singular values from 1e-3 to 1.01
    (8.237312490495555, -23.157747414558198, 16.680568411445915),
    (4.082441999064835, -2.893047735332586, 0.5252849256975648),
    (3.9263479922546582, -2.8547468034765298, 0.5318022422894988),
    (3.2982187133085143, -2.424541981026706, 0.48632008358844075),
    (2.2970369434552573, -1.63662558125903, 0.4002628455953627),
    (1.8763805351440397, -1.2347896577722228, 0.35891887501668385),
    (1.8564423485617974, -1.2132449880935525, 0.3568003487825883),
    (1.875, -1.25, 0.375),  # from here on the series of 1 / sqrt(x), which converges
)


def coefficients_of(name: str | Sequence[float], steps: int) -> Coefficients:
    """Return the coefficients of each step, from three numbers for all of them or from "polar_express"."""
    if isinstance(name, str):
        return [POLAR_EXPRESS[min(step, len(POLAR_EXPRESS) - 1)] for step in range(steps)]
    a, b, c = name
    return [(a, b, c)] * steps


def orthogonalise(x: Tensor, coefficients: Coefficients, *, dtype: torch.dtype, eps: float) -> Tensor:
    """Return nearly U V^T of each matrix in (..., m, n), in the precision `dtype`.

    A matrix is first divided by its Frobenius norm, or by `eps` if that is larger, so that no singular value exceeds 1.
    """
    y = x.to(dtype)
    y = y / y.norm(dim=(-2, -1), keepdim=True).clamp(min=eps)
    if tall := y.size(-2) > y.size(-1):
        y = y.mT.contiguous()
    narrow = y.size(-1) < 1.5 * y.size(-2)  # 5 (2 m^2 n + m^3) against 2 m^2 n + 17 m^3
    with without_autocast(x.device):
        y = step_by_step(y, coefficients) if narrow or dtype.itemsize < 4 else by_gram(y, coefficients)
    return y.mT if tall else y


def step_by_step(x: Tensor, coefficients: Coefficients) -> Tensor:
    """Iterate literally: X = a X + (b A + c A^2) X with A = X X^T."""
    for a, b, c in coefficients:
        gram = x @ x.mT
        x = _product(_product(gram, gram, add=gram, times=b, alpha=c), x, add=x, times=a)
    return x


def by_gram(x: Tensor, coefficients: Coefficients) -> Tensor:
    """Iterate on the Gram matrix: Q = P Q and A = P A P with P = a + b A + c A^2, which all commute; return Q X."""
    gram = x @ x.mT
    product = None
    for step, (a, b, c) in enumerate(coefficients, start=1):
        factor = _product(gram, gram, add=gram, times=b, alpha=c)
        factor.diagonal(dim1=-2, dim2=-1).add_(a)
        product = factor if product is None else factor @ product
        if step < len(coefficients):
            gram = factor @ gram @ factor
    return x if product is None else product @ x


def _product(first: Tensor, second: Tensor, *, add: Tensor, times: float, alpha: float = 1.0) -> Tensor:
    """Return times add + alpha first second, of matrices or batches of them."""
    multiply = torch.addmm if first.ndim == 2 else torch.baddbmm
    return multiply(add, first, second, beta=times, alpha=alpha)
