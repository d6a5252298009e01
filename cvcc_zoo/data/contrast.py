"""Global contrast normalisation: bring each image to mean 0 and a common contrast before whitening.

`pylearn2`  (x - mean) / (norm / 55), the first step of the published ZCA-whitened CIFAR-10 of Goodfellow et al. 2013
            (pylearn2, make_cifar10_gcn_whitened.py: scale 55, sqrt_bias 0, min_divisor 1e-8)
`coates`    (x - mean) / sqrt(variance + 10), of Coates, Ng & Lee 2011 (sqrt_bias 10, use_std; variance with N - 1)

Both expect pixels in 0..255.
"""

import math

import torch
from torch import Tensor

CONTRASTS = ("pylearn2", "coates")
SCALE = 55.0  # pylearn2, make_cifar10_gcn_whitened.py
MIN_DIVISOR = 1e-8  # pylearn2, expr/preprocessing.py: an image without contrast is only centred
VARIANCE_BIAS = 10.0  # Coates, Ng & Lee 2011, section 3.1


def normalise_contrast(pixels: Tensor, method: str) -> Tensor:
    """Normalise float pixels 0..255 (N, C, H, W); the channels of an image share mean and contrast."""
    centred = pixels - pixels.mean((1, 2, 3), keepdim=True)
    return centred / _divisor(centred.square().sum((1, 2, 3), keepdim=True), pixels.shape[1:].numel(), method)


def fixed_point(images: Tensor, method: str) -> tuple[Tensor, float]:
    """Normalise uint8 images (N, C, H, W); return integers in float64, and the unit that they count in.

    Each pixel is rounded to 17 bits and a sign, so that sums over the images are the same bit for bit in any order. The
    rounding changes the covariance by about a millionth.
    """
    count = images.shape[1:].numel()
    bound = SCALE if method == "pylearn2" else math.sqrt(count)  # largest absolute value of a pixel
    unit = 2.0 ** (math.ceil(math.log2(bound)) - 17)
    pixels = images.to(torch.float64)
    total = pixels.sum((1, 2, 3), keepdim=True)
    squares = pixels.square().sum((1, 2, 3), keepdim=True) - total.square() / count
    return ((pixels - total / count) / _divisor(squares, count, method) / unit).round(), unit


def _divisor(squares: Tensor, count: int, method: str) -> Tensor:
    """Return the divisor of the centred pixels, from the sum of their squares."""
    if method == "coates":
        return (squares / (count - 1) + VARIANCE_BIAS).sqrt()
    flat = squares < (MIN_DIVISOR * SCALE) ** 2
    return torch.where(flat, 1.0, torch.where(flat, 1.0, squares).sqrt() / SCALE)  # sqrt has no derivative at 0
