"""Corruptions of test images in five strengths, to measure how robust a model is.

They follow CIFAR-10-C (Hendrycks & Dietterich 2019, https://arxiv.org/abs/1903.12261), with the strengths of its
program `make_cifar_c.py` (https://github.com/hendrycks/robustness), which are chosen for images of 32x32 pixels;
lengths in pixels grow with larger images, and stay for smaller ones. Accuracies are not those of its files:

- The random numbers differ, and glass blur, snow and frost, which needs photographs, are left out.
- Zoom blur enlarges the middle exactly, by factors below the largest. The program crops and enlarges to whole pixels,
  so that 1.01 changes nothing, and at strengths 1 and 2 rounding makes it take the largest factor, too.
- Pixelation weights pixels by the area that they share. Pillow's BOX takes whole pixels with equal weights and enlarges
  by copying the nearest: at strength 1 nearly every pixel stays as it is.
- Elastic distortion interpolates once, the program twice.

Libraries with the corruptions of ImageNet-C, such as imagecorruptions, have only strengths that destroy small images.
"""

import io
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
import torchvision.transforms.v2.functional as v2
from PIL import Image
from torch import Tensor

from cvcc_zoo.data.augment.augmentation import as_uint8, each, in_floats
from cvcc_zoo.data.augment.geometry import windows
from cvcc_zoo.data.draws import Noise
from cvcc_zoo.registry import pick

STRENGTHS = 5
SIDE = 32  # pixels; the strengths are those of images of this height


def gaussian_noise(x: Tensor, noise: Noise, deviation: float) -> Tensor:
    """Add normal noise, as of a sensor in little light."""
    return x + deviation * noise.normal(*x.shape[1:])


def shot_noise(x: Tensor, noise: Noise, photons: int) -> Tensor:
    """Draw each value from a Poisson distribution: white has `photons` photons on average."""
    levels = torch.arange(256, dtype=torch.float64, device=x.device) / 255
    counts = torch.arange(2 * photons + 40, dtype=torch.float64, device=x.device)
    logs = torch.special.xlogy(counts, photons * levels[:, None]) - photons * levels[:, None] - torch.lgamma(counts + 1)
    shares = logs.exp().cumsum(1).clamp_(max=1)  # (256, counts): probability of at most so many photons
    level = (255 * x).round_().to(torch.int64)
    drawn = noise.uniform(*x.shape[1:]).to(torch.float64)
    found = torch.searchsorted((shares + 2 * levels[:, None] * 255).flatten(), drawn + 2.0 * level)
    return (found - level * len(counts)).clamp_(0, len(counts) - 1).to(x.dtype) / photons


def impulse_noise(x: Tensor, noise: Noise, amount: float) -> Tensor:
    """Make a share of the values 0 or 1, as of broken pixels."""
    drawn = noise.uniform(*x.shape[1:])
    return torch.where(drawn < amount, (drawn < amount / 2).to(x.dtype), x)


def defocus_blur(x: Tensor, noise: Noise, size: tuple[float, float]) -> Tensor:
    """Convolve with a disk of a radius, whose edge is smoothed by a Gaussian, both in pixels of 32."""
    radius, softness = (length * max(1.0, x.shape[2] / SIDE) for length in size)
    edge = math.ceil(3 * softness) if x.shape[2] > SIDE else 1  # pixels of the Gaussian on each side
    reach = math.ceil(radius) + edge
    distance = torch.arange(-reach, reach + 1, dtype=x.dtype, device=x.device)
    disk = (distance[:, None] ** 2 + distance**2 <= radius**2).to(x.dtype)
    near = torch.exp(-0.5 * (torch.arange(-edge, edge + 1, dtype=x.dtype, device=x.device) / softness) ** 2)
    soft = (near / near.sum()).outer(near / near.sum())
    kernel = F.conv2d((disk / disk.sum())[None, None], soft[None, None], padding=edge)
    padded = F.pad(x.flatten(0, 1)[:, None], (reach,) * 4, mode="reflect")
    return F.conv2d(padded, kernel).view_as(x)


def motion_blur(x: Tensor, noise: Noise, size: tuple[float, float]) -> Tensor:
    """Smear each image in a direction within 45 degrees of the horizontal; radius and deviation in pixels of 32."""
    radius, deviation = (length * max(1.0, x.shape[2] / SIDE) for length in size)
    taps = 2 * math.ceil(radius) + 1
    angle = (noise.uniform() - 0.5) * (math.pi / 2)
    padded = F.pad(x, (taps,) * 4, mode="replicate")
    weights = torch.exp(-0.5 * (torch.arange(taps, dtype=torch.float64) / deviation) ** 2)
    blurred = torch.zeros_like(x)
    for tap, weight in enumerate((weights / weights.sum()).tolist()):
        down, right = (taps + (tap * part).round().to(torch.int64) for part in (angle.sin(), angle.cos()))
        blurred.add_(windows(padded, down, right, *x.shape[2:]), alpha=weight)
    return blurred


def zoom_blur(x: Tensor, noise: Noise, largest: float) -> Tensor:
    """Average an image with enlargements of its middle by 1, 1.01, ... below the factor `largest`."""
    steps = round(100 * (largest - 1))
    total = x.clone()
    for step in range(steps):
        rows, columns = (_enlarge(side, 1 + step / 100, x) for side in x.shape[2:])
        total += rows @ x @ columns.T
    return total / (steps + 1)


def _enlarge(side: int, factor: float, like: Tensor) -> Tensor:
    """Return the matrix (side, side) that enlarges the middle of a line of pixels by linear interpolation."""
    middle = (side - 1) / 2
    places = (torch.arange(side, dtype=like.dtype, device=like.device) - middle) / factor + middle
    pixels = torch.arange(side, dtype=like.dtype, device=like.device)
    return (1 - (places[:, None] - pixels).abs()).clamp_(min=0)


def fog(x: Tensor, noise: Noise, size: tuple[float, float]) -> Tensor:
    """Add a cloud of a thickness, and scale the image back to its brightest value; a higher decay smooths the cloud."""
    thickness, decay = size
    brightest = each(x.flatten(1).amax(1))
    cloud = _plasma(x, noise, decay)[:, None, : x.shape[2], : x.shape[3]]
    return (x + thickness * cloud) * brightest / (brightest + thickness)


def _plasma(x: Tensor, noise: Noise, decay: float) -> Tensor:
    """Return fractal clouds (N, S, S) in [0, 1] by the diamond-square algorithm; S is a power of 2."""
    side = 2 ** math.ceil(math.log2(max(x.shape[2:])))
    cloud = torch.zeros(len(x), side, side, dtype=x.dtype, device=x.device)
    step, rough = side, 1.0
    while step >= 2:
        half = step // 2

        def wobble(count: int, size: float = rough) -> Tensor:
            return size * (2 * noise.uniform(count, count) - 1).to(x.dtype)

        corners = cloud[:, ::step, ::step].clone()
        count = corners.shape[1]
        right, below = corners.roll(-1, 2), corners.roll(-1, 1)
        middle = (corners + right + below + below.roll(-1, 2)) / 4 + wobble(count)
        cloud[:, half::step, half::step] = middle
        cloud[:, ::step, half::step] = (corners + right + middle + middle.roll(1, 1)) / 4 + wobble(count)
        cloud[:, half::step, ::step] = (corners + below + middle + middle.roll(1, 2)) / 4 + wobble(count)
        step, rough = half, rough / decay**2
    low, high = (getattr(cloud.flatten(1), name)(1) for name in ("amin", "amax"))
    scaled: Tensor = (cloud - low[:, None, None]) / (high - low)[:, None, None]
    return scaled


def brightness(x: Tensor, noise: Noise, change: float) -> Tensor:
    """Raise the value of each pixel in HSV; hue and saturation stay."""
    value = x.amax(1, keepdim=True)
    raised = (value + change).clamp_(max=1)
    return torch.where(value > 0, x * (raised / value.clamp(min=1e-8)), raised.expand_as(x))


def contrast(x: Tensor, noise: Noise, share: float) -> Tensor:
    """Keep a share of the distance of each value from the mean of its channel."""
    means = x.mean((2, 3), keepdim=True)
    return (x - means) * share + means


def elastic_transform(x: Tensor, noise: Noise, size: tuple[float, float, float]) -> Tensor:
    """Move pixels by a random affine map and smooth random distances.

    `size` has the largest distance, the deviation of the Gaussian that smooths it, and how far three corners move, each
    as a share of the height.
    """
    height, width = x.shape[2:]
    distance, smoothness, corner = (share * height for share in size)
    middle, square = height // 2, height // 3
    corners = [[middle + square] * 2, [middle + square, middle - square], [middle - square] * 2]  # (x, y)
    before = torch.tensor(corners, dtype=torch.float64, device=x.device)
    after = before + corner * (2 * noise.uniform(3, 2).to(torch.float64) - 1)
    homogeneous = torch.cat([after, torch.ones_like(after[..., :1])], dim=2)
    back = torch.linalg.solve(homogeneous, before.expand(len(x), -1, -1)).to(x.dtype)  # (N, 3, 2)
    rows, columns = (torch.arange(side, dtype=x.dtype, device=x.device) for side in (height, width))
    grid = torch.stack([*torch.meshgrid(columns, rows, indexing="xy"), torch.ones_like(x[0, 0])], dim=2)
    places = torch.einsum("hwk,nkc->nhwc", grid, back)
    if distance:
        shifts = (2 * noise.uniform(2, height, width) - 1).to(x.dtype)
        reach = min(math.ceil(3 * smoothness), height - 1)
        shifts = v2.gaussian_blur(shifts, [2 * reach + 1] * 2, [smoothness] * 2)
        places = places + distance * shifts.permute(0, 2, 3, 1)
    scale = torch.tensor([width - 1, height - 1], dtype=x.dtype, device=x.device)
    return F.grid_sample(x, 2 * places / scale - 1, mode="bilinear", padding_mode="reflection", align_corners=True)


def pixelate(x: Tensor, noise: Noise, share: float) -> Tensor:
    """Shrink an image to a share of its height, and enlarge it again, both by the mean of the pixels below a pixel."""
    for dim in (2, 3):
        side, small = x.shape[dim], int(x.shape[dim] * share)
        there, back = _overlaps(side, small, x), _overlaps(small, side, x)
        x = (x.transpose(dim, -1) @ (back @ there).T).transpose(dim, -1)
    return x


def _overlaps(side: int, target: int, like: Tensor) -> Tensor:
    """Return the matrix (target, side) that resizes a line of pixels by the share in which old and new ones overlap."""
    edges = torch.arange(side + 1, dtype=like.dtype, device=like.device)
    new = torch.arange(target + 1, dtype=like.dtype, device=like.device) * (side / target)
    shared = torch.minimum(edges[1:], new[1:, None]) - torch.maximum(edges[:-1], new[:-1, None])
    return shared.clamp_(min=0) * (target / side)


def jpeg_compression(x: Tensor, noise: Noise, quality: int) -> Tensor:
    """Compress as JPEG of a quality from 1 to 100."""
    decoded = []
    for image in as_uint8(x).cpu():
        file = io.BytesIO()
        v2.to_pil_image(image).save(file, format="JPEG", quality=quality)
        with Image.open(file) as compressed:
            decoded.append(v2.pil_to_tensor(compressed))
    return torch.stack(decoded).to(x.device).to(x.dtype) / 255


@dataclass(frozen=True)
class Corruption:
    """A corruption of floats (N, C, H, W) in [0, 1], and its five strengths."""

    change: Callable[[Tensor, Noise, Any], Tensor]
    strengths: tuple[Any, ...]


CORRUPTIONS = {
    kind.change.__name__: kind
    for kind in (
        Corruption(gaussian_noise, (0.04, 0.06, 0.08, 0.09, 0.10)),
        Corruption(shot_noise, (500, 250, 100, 75, 50)),
        Corruption(impulse_noise, (0.01, 0.02, 0.03, 0.05, 0.07)),
        Corruption(defocus_blur, ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1))),
        Corruption(motion_blur, ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5))),
        Corruption(zoom_blur, (1.06, 1.11, 1.16, 1.21, 1.26)),
        Corruption(fog, ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75))),
        Corruption(brightness, (0.05, 0.1, 0.15, 0.2, 0.3)),
        Corruption(contrast, (0.75, 0.5, 0.4, 0.3, 0.15)),
        Corruption(elastic_transform, ((0, 0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05),
                                       (0.1, 0.03, 0.03))),
        Corruption(pixelate, (0.95, 0.9, 0.85, 0.75, 0.65)),
        Corruption(jpeg_compression, (80, 65, 58, 50, 40)),
    )
}  # fmt: skip


def title_of(name: str) -> str:
    """Return the name of a corruption as it stands in a text, such as JPEG compression."""
    return name.replace("_", " ").replace("gaussian", "Gaussian").replace("jpeg", "JPEG")


def corrupt(images: Tensor, name: str, strength: int, positions: Tensor, seed: int = 0) -> Tensor:
    """Corrupt images (N, C, H, W), uint8 or float in [0, 1], whose `positions` (N,) in the data set choose the noise.

    Raises ValueError for an unknown name, with the nearest ones, a strength outside of 1 .. 5, or another number of
    positions.
    """
    kind = CORRUPTIONS[pick("corruption", name, CORRUPTIONS)]
    if not 1 <= strength <= STRENGTHS:
        raise ValueError(f"the strength of a corruption is 1 to {STRENGTHS}, got {strength}")
    if positions.shape != images.shape[:1]:
        raise ValueError(f"{len(images)} images need as many positions, got the shape {tuple(positions.shape)}")
    return in_floats(images, lambda x: kind.change(x, Noise(seed, positions), kind.strengths[strength - 1]))
