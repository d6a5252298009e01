"""Products that are symmetric, from half of their entries; of pixels in integers, where a CPU has instructions for it.

Such a CPU (VNNI) adds up four products of bytes at once in int32, which is exact, and six times as fast as float32.
"""

import torch
from torch import Tensor

from cvcc_zoo.internals.torch import has_int8, int8_product

LEAF = 128  # rows: below, the two halves are no longer worth two products


def add_gram(x: Tensor, sums: Tensor) -> None:
    """Add X X^T (D, D) for X (D, M) to `sums`, on and above the diagonal: 0.52 of the products for 3072 rows."""
    half = len(x) // 2
    if half < LEAF // 2:
        sums += product(x, x.T).to(sums.dtype)
        return
    add_gram(x[:half], sums[:half, :half])
    add_gram(x[half:], sums[half:, half:])
    sums[:half, half:] += product(x[:half], x[half:].T).to(sums.dtype)


def minus_128(pixels: Tensor, rows: int) -> Tensor:
    """Pixels uint8 minus 128, for `add_gram` of so many rows: int8 where that is exact and fast, else float32."""
    fast = rows >= LEAF and pixels.device.type == "cpu" and has_int8()
    # A byte minus 128 has the first bit of the other sign.
    return (pixels ^ 128).view(torch.int8) if fast else pixels.to(torch.float32).sub_(128)


def product(a: Tensor, b: Tensor) -> Tensor:
    """A B; of int8 in int32, which is right for at least two rows and columns, and up to 2^17 - 1 values in a sum."""
    return int8_product(a, b) if a.dtype == torch.int8 else a @ b


def mirror(sums: Tensor) -> None:
    """Fill what `add_gram` left out below the diagonal."""
    half = len(sums) // 2
    if half >= LEAF // 2:
        mirror(sums[:half, :half])
        mirror(sums[half:, half:])
        sums[half:, :half] = sums[:half, half:].T


def gram(x: Tensor) -> Tensor:
    """X X^T (D, D) for X (D, M)."""
    sums = torch.zeros(len(x), len(x), dtype=x.dtype, device=x.device)
    add_gram(x, sums)
    mirror(sums)
    return sums
