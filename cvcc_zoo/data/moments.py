"""First and second moments of images as sums of integers: the same bit for bit in any order, batching and sharding.

Pixels minus 128 are 8-bit integers. A float32 matrix product is exact while the sums of squares stay within 2^24, so
for at least 1024 images and usually for more than 2048, and float64 holds the sum over 5e11 images. Contrast
normalisation gives integers of 17 bits and a sign, whose sums are int64.
"""

from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from cvcc_zoo.data.contrast import fixed_point
from cvcc_zoo.data.symmetric import add_gram, minus_128, mirror, product
from cvcc_zoo.printing.progress import tracked

SCOPES = ("all", "pixels_per_channel", "channel_values")
CHUNK = 2048
PIXELS = 2**24 // 2**14  # of an image, whose products have an exact sum in float32
CHUNK_VALUES = CHUNK * 3072  # so larger images are read in smaller chunks
CACHED = CHUNK_VALUES // 8  # float32 values that fit into the cache of a CPU


def vectors(images: Tensor, scope: str) -> Tensor:
    """View images (N, C, H, W) as G groups of vectors (G, M, D) that are whitened together.

    `all`: one group of N vectors with D = C H W; `pixels_per_channel`: C groups of N vectors with D = H W;
    `channel_values`: one group of N H W vectors with D = C.
    """
    if scope == "all":
        return images.flatten(1)[None]
    if scope == "pixels_per_channel":
        return images.flatten(2).transpose(0, 1)
    return images.movedim(1, -1).flatten(0, -2)[None]


def images_of(x: Tensor, scope: str, shape: torch.Size) -> Tensor:
    """Undo `vectors` for images of this shape."""
    if scope == "all":
        return x[0].view(shape)
    if scope == "pixels_per_channel":
        return x.transpose(0, 1).reshape(shape)
    return x[0].view(shape[0], *shape[2:], -1).movedim(-1, 1)


@dataclass
class Moments:
    """Sums over `count` vectors of integers: `total` (G, D) and `products` (G, D, D), float64 or int64.

    The integers are (pixel - `offset`) / `unit`.
    """

    count: int
    total: Tensor
    products: Tensor
    unit: float
    offset: float

    def mean(self) -> Tensor:
        """Return the mean (G, D), in units of the pixels."""
        return self.unit * self.total / self.count + self.offset

    def covariance(self) -> Tensor:
        """Return the covariance (G, D, D), normalised by the number of vectors; exactly zero for a constant pixel.

        The integer nearest to the mean is subtracted exactly; the remaining mean is at most 1/2, so subtracting its
        square loses no digits.
        """
        near = (self.total / self.count).round().to(self.total.dtype)
        rest = (self.total - self.count * near) / self.count
        centred = self.products.clone()
        for group, n, t in zip(centred, near, self.total, strict=True):
            group.addr_(n, t, alpha=-1).addr_(t, n, alpha=-1).addr_(n, n, alpha=self.count)  # integers: exact
        covariance = centred.to(torch.float64).div_(self.count)
        for group, r in zip(covariance, rest, strict=True):
            group.addr_(r, r, alpha=-1)
        return covariance.mul_(self.unit**2)


def measure(
    images: Tensor,
    samples: Tensor,
    scope: str,
    contrast: str | None = None,
    *,
    chunk: int = CHUNK,
    across_processes: bool = False,
) -> Moments:
    """Compute the moments of the uint8 images (N, C, H, W) at positions `samples` (M,), reading in file order.

    The sums are computed on the CPU, wherever the images are.
    With `across_processes` each process of the default group reads its share, and the sums are added up. Raises
    ValueError if there are too many vectors for exact sums.
    """
    c, h, w = images.shape[1:]
    groups, size = {"all": (1, c * h * w), "pixels_per_channel": (c, h * w), "channel_values": (1, c)}[scope]
    dtype, digits, largest = (torch.float64, 53, 2**7) if contrast is None else (torch.int64, 63, 2**17)
    total = torch.zeros(groups, size, dtype=dtype)
    products = torch.zeros(groups, size, size, dtype=dtype)
    shared = across_processes and dist.is_available() and dist.is_initialized()
    rank, processes = (dist.get_rank(), dist.get_world_size()) if shared else (0, 1)
    mine = samples.cpu().sort().values[rank::processes]
    count = len(samples) * (h * w if scope == "channel_values" else 1)
    if count > 2**digits // largest**2:
        raise ValueError(
            f"{count:,} vectors are too many for exact sums; fit the whitening on at most "
            f"{2**digits // largest**2:,} of them: whitening.fit(images, samples)"
        )
    unit, offset = 1.0, 128.0
    values = CACHED if scope == "channel_values" else CHUNK_VALUES
    at_once = max(1, min(chunk, values // (c * h * w)))
    for part in tracked(torch.split(mine, at_once), "whitening: images", len(mine), len):
        pixels = images.index_select(0, part.to(images.device)).cpu()
        if contrast is not None:
            integers, unit = fixed_point(pixels, contrast)
            offset = 0.0
        else:
            integers = minus_128(pixels, size)
            if scope == "channel_values":
                _add_pixels(integers.float(), total, products)
                continue
        x = vectors(integers, scope)
        total += (x.float() if x.dtype == torch.int8 else x).sum(1).to(dtype)  # exact for fewer than 2^17 vectors
        for piece in exact_pieces(x, largest):
            for group, sums in zip(piece, products, strict=True):
                add_gram(group.T, sums)
    if shared:
        for sums in (total, products):
            sum_over_processes(sums)
    for sums in products:
        mirror(sums)
    return Moments(count, total, products, unit, offset)


def _add_pixels(integers: Tensor, total: Tensor, products: Tensor) -> None:
    """Add the sums of float32 images to (1, C) and (1, C, C), image by image, as a sum of all pixels is not exact."""
    for part in torch.split(integers.flatten(2), PIXELS, dim=2):
        total += part.sum(2).to(torch.float64).sum(0)
        products += product(part, part.transpose(1, 2)).to(torch.float64).sum(0)


def exact_pieces(x: Tensor, largest: int) -> tuple[Tensor, ...]:
    """Split vectors (G, M, D) of integers up to `largest` into parts whose products are exact."""
    exact = {torch.float64: 2**53, torch.int64: 2**63, torch.int8: 2**31 - 1}.get(x.dtype, 2**24)
    safe = exact // largest**2
    if x.shape[1] <= safe or (exact == 2**24 and x.square().sum(1).max() <= exact):
        return (x,)
    return torch.split(x, safe, dim=1)


def sum_over_processes(sums: Tensor) -> None:
    """Add up the sums of all processes of torch's default group, in place; with one process do nothing."""
    if not (dist.is_available() and dist.is_initialized()):
        return
    on_gpu = dist.get_backend() == "nccl"
    shared = sums.cuda() if on_gpu else sums
    dist.all_reduce(shared)
    sums.copy_(shared)


def known(mean: Tensor) -> bool:
    """Return whether a mean was ever computed: before, it is empty or NaN."""
    return mean.numel() > 0 and not mean.is_meta and bool(torch.isfinite(mean).all())
