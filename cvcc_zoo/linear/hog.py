"""Histograms of oriented gradients. Dalal & Triggs 2005, https://inria.hal.science/inria-00548512.

Each pixel votes for the direction of its gradient, weighted by the gradient's length. The votes of a cell of pixels are
a histogram; the histograms of a block of cells are normalised together, and blocks overlap. The result describes the
shapes of objects and hardly depends on brightness and contrast.
"""

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cvcc_zoo.kinds import check_whole
from cvcc_zoo.registry import check_known

Norm = Literal["L1", "L1-sqrt", "L2", "L2-Hys"]
NORMS = get_args(Norm)
EPS = 1e-5
CHUNK = 64  # images at a time, so that intermediate results fit into the cache of a CPU
LARGEST = 255  # of the options
CLIP = 0.2  # of L2-Hys: the largest normalised value, so that no direction dominates a block


class HOG(nn.Module):
    """Images (N, C, H, W), uint8 0..255 or float 0..1, to vectors (N, D), as `skimage.feature.hog` of images in 0..1.

    D is blocks_down x blocks_across x block^2 x orientations, in that order; with the defaults on 32x32 pixels
    7 x 7 x 2^2 x 9 = 1764. uint8 is converted to float32 in 0..1. Each pixel uses the channel with the longest
    gradient.

    For grey images and images of whole numbers, the results agree with scikit-image to 1e-5. In colour images from
    uint8, two channels often have equally long gradients; then rounding decides, and scikit-image may choose another
    channel. If the number of orientations is divisible by 4, exact diagonals lie between two bins, and rounding decides
    too: scikit-image's own results then differ between float32 and float64. Gradients flow to the images, except
    through the choice of directions, which is constant.
    """

    def __init__(self, orientations: int = 9, cell: int = 4, block: int = 2, norm: Norm = "L2-Hys") -> None:
        """Choose the histograms.

        Args:
            orientations: Number of directions in [0, 180) degrees, 1 to 255.
            cell: Height and width of a cell in pixels, 1 to 255; pixels beyond the last whole cell are ignored.
            block: Height and width of a block in cells, 1 to 255.
            norm: L1, L1-sqrt, L2, or L2-Hys (L2, clipped at 0.2, and L2 again).

        """
        super().__init__()
        for name, value in (("orientations", orientations), ("cell", cell), ("block", block)):
            check_whole(f"HOG: {name}", value, 1, LARGEST)
        check_known("norm of HOG", NORMS, norm)
        self.orientations, self.cell, self.block, self.norm = orientations, cell, block, norm
        self.borders = 180 / orientations * torch.arange(1, orientations, dtype=torch.float64)  # degrees

    def size(self, height: int, width: int) -> int:
        """Return the length of the vector of an image of this size in pixels. Raises ValueError if no block fits."""
        smallest = self.cell * self.block
        if min(height, width) < smallest:
            raise ValueError(
                f"HOG with blocks of {self.block}x{self.block} cells of {self.cell}x{self.cell} pixels takes images of "
                f"at least {smallest}x{smallest} pixels, not {height}x{width}; choose smaller cells or blocks, or "
                "resize the images"
            )
        down, across = (side // self.cell - self.block + 1 for side in (height, width))
        return down * across * self.block**2 * self.orientations

    def forward(self, images: Tensor) -> Tensor:
        """Return the vectors (N, D) of images. Raises ValueError for images that are too small or of another type."""
        if images.ndim != 4 or not (images.dtype == torch.uint8 or images.is_floating_point()):
            raise ValueError(
                f"HOG takes images (N, C, H, W), uint8 or float, got {images.dtype} of shape {tuple(images.shape)}"
            )
        self.size(*images.shape[2:])
        # The number of parts would be a constant of an exported program.
        parts = (images,) if torch.compiler.is_exporting() else torch.split(images, CHUNK)
        vectors = torch.cat([self._blocks(self.histograms(part)) for part in parts])
        return vectors.to(images.dtype) if images.is_floating_point() else vectors

    def histograms(self, images: Tensor) -> Tensor:
        """Return the histograms, not normalised: (N, cells down, cells across, orientations)."""
        precise = torch.promote_types(torch.get_default_dtype(), torch.float32)  # in 16 bits, EPS**2 would be 0
        x = images.to(torch.promote_types(images.dtype, precise))
        x = x if images.is_floating_point() else x / 255
        return self._histograms(*self._gradients(x))

    def _gradients(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the gradients to the right and downwards, and their length, each (N, H, W); zero at the border."""
        right = F.pad(x[..., 2:] - x[..., :-2], (1, 1))
        down = F.pad(x[..., 2:, :] - x[..., :-2, :], (0, 0, 1, 1))
        parts = torch.stack([right, down, right * right + down * down])
        chosen = parts[:, :, 0]
        for channel in range(1, x.shape[1]):
            other = parts[:, :, channel]
            chosen = torch.where(other[2] > chosen[2], other, chosen)
        return chosen[0], chosen[1], _root(chosen[2])

    def _histograms(self, right: Tensor, down: Tensor, length: Tensor) -> Tensor:
        """Return the mean votes of the pixels of each cell: (N, cells down, cells across, orientations)."""
        number = self._directions(right.detach(), down.detach())
        # One map for each direction: the length of the gradients in that direction, and 0 elsewhere.
        votes = length.new_zeros(length.shape[0], self.orientations, *length.shape[1:])
        votes.scatter_(1, number[:, None], length[:, None])
        return F.avg_pool2d(votes, self.cell).movedim(1, 3)  # pixels beyond the last whole cell have no vote

    def _directions(self, right: Tensor, down: Tensor) -> Tensor:
        """Return the number of the bin of each gradient, (N, H, W).

        Angles are rounded as in scikit-image: if the number of orientations is divisible by 4, diagonals lie on the
        border between two bins, and the last bit decides.
        """
        precise = torch.float32 if right.device.type == "mps" else torch.float64  # Apple's GPUs have no float64
        right, down = right.to(precise), down.to(precise)
        if torch.onnx.is_in_onnx_export():  # ONNX Runtime has no atan2 in float64
            sign = torch.where((down < 0) | ((down == 0) & (right < 0)), -1.0, 1.0)
            border = self.borders.deg2rad()[:, None, None, None]
            return (sign * down * border.cos() >= sign * right * border.sin()).sum(0)
        angle = torch.atan2(down, right).rad2deg_().remainder_(180)
        return torch.bucketize(angle, self.borders.to(angle), right=True)

    def _blocks(self, histograms: Tensor) -> Tensor:
        """Normalise overlapping blocks of cells, and return them as (N, D)."""
        blocks = histograms.unfold(1, self.block, 1).unfold(2, self.block, 1)  # (N, down, across, bins, block, block)
        blocks = blocks.movedim(3, -1).flatten(3)
        if self.norm.startswith("L1"):
            scaled = blocks / (blocks.abs().sum(-1, keepdim=True) + EPS)
            return (_root(scaled) if self.norm == "L1-sqrt" else scaled).flatten(1)
        scaled = blocks / (blocks.square().sum(-1, keepdim=True) + EPS**2).sqrt()
        if self.norm == "L2-Hys":
            clipped = scaled.clamp(max=CLIP)
            scaled = clipped / (clipped.square().sum(-1, keepdim=True) + EPS**2).sqrt()
        return scaled.flatten(1)


def _root(x: Tensor) -> Tensor:
    """Return the square root of numbers that are not negative; at 0, where it has no derivative, that is 0."""
    positive = x > 0
    return torch.where(positive, x, 1.0).sqrt() * positive
