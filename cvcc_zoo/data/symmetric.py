"""Symmetric products from half of their entries; for pixels in integers, if the CPU has instructions for it.

Such a CPU (VNNI) sums four products of bytes at a time in int32, which is exact and six times as fast as float32.
"""

import torch
from torch import Tensor

from cvcc_zoo.internals.torch import has_int8, int8_product, without_autocast

LEAF = 128  # rows; fewer are multiplied at once, as splitting no longer pays


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
    """Subtract 128 from uint8 pixels, for `add_gram` of `rows` rows: int8 if that is exact and fast, else float32."""
    fast = rows >= LEAF and pixels.device.type == "cpu" and has_int8()
    # Flipping the first bit of a byte and reading it as signed subtracts 128.
    return (pixels ^ 128).view(torch.int8) if fast else pixels.to(torch.float32).sub_(128)


def product(a: Tensor, b: Tensor) -> Tensor:
    """Return A B, of int8 in int32: correct for at least two rows and columns, and sums of up to 2^17 - 1 values.

    Autocast does not round it to 16 bits.
    """
    if a.dtype == torch.int8:
        return int8_product(a, b)
    with without_autocast(a.device):
        return a @ b


def mirror(sums: Tensor) -> None:
    """Fill in the entries below the diagonal, which `add_gram` leaves out."""
    half = len(sums) // 2
    if half >= LEAF // 2:
        mirror(sums[:half, :half])
        mirror(sums[half:, half:])
        sums[half:, :half] = sums[:half, half:].T


def gram(x: Tensor) -> Tensor:
    """Return X X^T (D, D) for X (D, M)."""
    sums = torch.zeros(len(x), len(x), dtype=x.dtype, device=x.device)
    add_gram(x, sums)
    mirror(sums)
    return sums
