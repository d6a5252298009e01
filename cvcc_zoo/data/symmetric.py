"""Products that are symmetric, from half of their entries."""

import torch
from torch import Tensor

LEAF = 128  # rows: below, the two halves are no longer worth two products


def add_gram(x: Tensor, sums: Tensor) -> None:
    """Add X X^T (D, D) for X (D, M) to `sums`, on and above the diagonal: 0.52 of the products for 3072 rows."""
    half = len(x) // 2
    if half < LEAF // 2:
        sums += (x @ x.T).to(sums.dtype)
        return
    add_gram(x[:half], sums[:half, :half])
    add_gram(x[half:], sums[half:, half:])
    sums[:half, half:] += (x[:half] @ x[half:].T).to(sums.dtype)


def mirror(sums: Tensor) -> None:
    """Fill what `add_gram` left out below the diagonal."""
    half = len(sums) // 2
    if half >= LEAF // 2:
        mirror(sums[:half, :half])
        mirror(sums[half:, half:])
        sums[half:, :half] = sums[:half, half:].T


def gram(x: Tensor) -> Tensor:
    """X X^T (D, D) for X (D, M)."""
    sums = torch.zeros(len(x), len(x), dtype=x.dtype)
    add_gram(x, sums)
    mirror(sums)
    return sums
