"""Histograms of oriented gradients. Dalal & Triggs 2005, https://inria.hal.science/inria-00548512.

Each pixel votes for the direction of its gradient, with the gradient's length; the votes of a cell of pixels are a
histogram; histograms of a block of cells are normalised together, and blocks overlap. Shapes of objects stay, and
brightness and contrast go.
"""

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Norm = Literal["L1", "L1-sqrt", "L2", "L2-Hys"]
NORMS = get_args(Norm)
EPS = 1e-5
CHUNK = 64  # images at a time: what is made of them stays in the cache of a CPU
LARGEST = 255  # orientations are counted in a byte
CLIP = 0.2  # of L2-Hys: no direction may rule a block


class HOG(nn.Module):
    """Images (N, C, H, W), uint8 0..255 or float 0..1, to vectors (N, D), as `skimage.feature.hog` of images in 0..1.

    D is blocks_down x blocks_across x block^2 x orientations, in that order; with the defaults on 32x32 pixels
    7 x 7 x 2^2 x 9 = 1764. Bytes are read as float32 in 0..1. Where the number of orientations is divisible by 4, exact
    diagonals lie between two bins and rounding decides: also scikit-image's numbers are others for float64 then. Of
    several channels, a pixel takes the gradient of the one where it is longest. Where two are equally long, as colours
    of bytes often are, rounding decides, in scikit-image not always for the same one; in grey images and with whole
    numbers both agree to 1e-5. Gradients flow to the images, but for the choice of directions, which is constant.
    """

    def __init__(self, orientations: int = 9, cell: int = 4, block: int = 2, norm: Norm = "L2-Hys") -> None:
        """Choose the histograms.

        Args:
            orientations: Directions in [0, 180) degrees that are told apart, 1 to 255.
            cell: Height and width of a cell in pixels, 1 to 255; pixels that fill no whole cell are left out.
            block: Height and width of a block in cells, 1 to 255.
            norm: L1, L1-sqrt, L2, or L2-Hys (L2, cut off at 0.2, and L2 again).

        """
        super().__init__()
        for name, value in (("orientations", orientations), ("cell", cell), ("block", block)):
            if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= LARGEST:
                raise ValueError(f"HOG: {name} is a whole number from 1 to {LARGEST}, not {value!r}")
        if norm not in NORMS:
            raise ValueError(f"HOG: norm is one of {', '.join(NORMS)}, not {norm!r}")
        self.orientations, self.cell, self.block, self.norm = orientations, cell, block, norm
        self.borders = 180 / orientations * torch.arange(1, orientations, dtype=torch.float64)  # degrees

    def size(self, height: int, width: int) -> int:
        """How many numbers describe an image of this size in pixels. Raises ValueError if no block fits into it."""
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
        """Raises ValueError for images that are too small or of another type."""
        if images.ndim != 4 or not (images.dtype == torch.uint8 or images.is_floating_point()):
            raise ValueError(
                f"HOG takes images (N, C, H, W), uint8 or float, got {images.dtype} of shape {tuple(images.shape)}"
            )
        self.size(*images.shape[2:])
        return torch.cat([self._blocks(self.histograms(part)) for part in torch.split(images, CHUNK)])

    def histograms(self, images: Tensor) -> Tensor:
        """The votes before blocks are normalised: (N, cells down, cells across, orientations)."""
        x = images if images.is_floating_point() else images.to(torch.get_default_dtype()) / 255
        return self._histograms(*self._gradients(x))

    def _gradients(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """To the right, downwards, and their length, each (N, H, W); zero at the border, which lacks a neighbour."""
        right = F.pad(x[..., 2:] - x[..., :-2], (1, 1))
        down = F.pad(x[..., 2:, :] - x[..., :-2, :], (0, 0, 1, 1))
        parts = torch.stack([right, down, right * right + down * down])
        chosen = parts[:, :, 0]
        for channel in range(1, x.shape[1]):
            other = parts[:, :, channel]
            chosen = torch.where(other[2] > chosen[2], other, chosen)
        some = chosen[2] > 0  # the root has no derivative at 0
        return chosen[0], chosen[1], torch.where(some, chosen[2], 1.0).sqrt() * some

    def _histograms(self, right: Tensor, down: Tensor, length: Tensor) -> Tensor:
        """(N, cells down, cells across, orientations): mean votes of the pixels of each cell.

        The angles are rounded as scikit-image's are: where the number of orientations is divisible by 4, diagonals lie
        on the border between two bins, and the last bit decides.
        """
        precise = torch.float32 if right.device.type == "mps" else torch.float64  # Apple's GPUs have no other
        angle = torch.atan2(down.detach().to(precise), right.detach().to(precise)).rad2deg_().remainder_(180)
        number = torch.bucketize(angle, self.borders.to(angle), right=True)
        down_cells, across_cells = (side // self.cell for side in length.shape[1:])
        cells = (torch.arange(n * self.cell, device=length.device) // self.cell for n in (down_cells, across_cells))
        rows, columns = cells
        whole = (..., slice(len(rows)), slice(len(columns)))
        place = (number[whole] + (rows[:, None] * across_cells + columns) * self.orientations).flatten(1)
        votes = length.new_zeros(len(length), down_cells * across_cells * self.orientations)
        votes = votes.scatter_add(1, place, length[whole].flatten(1)) / self.cell**2
        return votes.view(-1, down_cells, across_cells, self.orientations)

    def _blocks(self, histograms: Tensor) -> Tensor:
        """Overlapping blocks of cells, normalised, as (N, D)."""
        blocks = histograms.unfold(1, self.block, 1).unfold(2, self.block, 1)  # (N, down, across, bins, block, block)
        blocks = blocks.movedim(3, -1).flatten(3)
        if self.norm.startswith("L1"):
            scaled = blocks / (blocks.abs().sum(-1, keepdim=True) + EPS)
            return (scaled.sqrt() if self.norm == "L1-sqrt" else scaled).flatten(1)
        scaled = blocks / (blocks.square().sum(-1, keepdim=True) + EPS**2).sqrt()
        if self.norm == "L2-Hys":
            cut = scaled.clamp(max=CLIP)
            scaled = cut / (cut.square().sum(-1, keepdim=True) + EPS**2).sqrt()
        return scaled.flatten(1)
