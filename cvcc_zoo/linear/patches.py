"""The single-layer network of Coates & Ng, which compares each patch of an image with a dictionary of patches.

Coates, Ng & Lee 2011, https://proceedings.mlr.press/v15/coates11a.html, sections 3 and 4: patches are scaled to mean 0
and the same contrast, whitened, and compared with a dictionary; the responses are pooled over quarters of the image.
Coates & Ng 2011, https://icml.cc/2011/papers/485_icmlpaper.pdf: random patches are nearly as good a dictionary as a
learned one, if the responses go through a soft threshold in both signs: max(0, z - a) and max(0, -z - a).
"""

from collections.abc import Iterable
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cvcc_zoo.data.decorrelation import decorrelation
from cvcc_zoo.kinds import check_whole
from cvcc_zoo.registry import check_known

Dictionary = Literal["random", "pca"]
DICTIONARIES = get_args(Dictionary)
CONTRAST = 10 / 255**2  # added to the variance of a patch: 10 for pixels up to 255 (Coates, Ng & Lee, section 4)
EPS = 0.1  # added to the eigenvalues when patches are whitened (their code)
THRESHOLD = 0.25  # of responses of unit patches (Coates & Ng, section 4.1)
MOST_PATCHES = 100_000  # to fit the dictionary and the whitening
CHUNK = 8  # images at a time: 800 responses of 729 patches take 2.3 MB an image


class Patches(nn.Module):
    """Images (N, C, H, W), float in [0, 1], to vectors (N, 2 x filters x pool^2); fitted by `fit`."""

    filters: Tensor  # (K, C, size, size): dictionary, whitening and the removal of the mean in one
    offset: Tensor  # (K,)

    def __init__(
        self,
        in_channels: int = 3,
        filters: int = 800,
        size: int = 6,
        pool: int = 2,
        dictionary: Dictionary = "random",
        seed: int = 0,
    ) -> None:
        """Choose the dictionary.

        Args:
            in_channels: Channels of the images.
            filters: Number of patches in the dictionary; for `pca` at most C x size x size - 1.
            size: Height and width of a patch in pixels, at least 2.
            pool: Responses are averaged over pool x pool regions of the image.
            dictionary: `random` for whitened patches of training images, `pca` for their principal directions.
            seed: Seed of the choice of patches.

        """
        super().__init__()
        for name, value, least in (("filters", filters, 1), ("size", size, 2), ("pool", pool, 1), ("seed", seed, 0)):
            check_whole(f"Patches: {name}", value, least)
        check_known("dictionary of Patches", DICTIONARIES, dictionary)
        values = in_channels * size**2
        if dictionary == "pca" and filters > values - 1:
            raise ValueError(
                f"Patches: {in_channels}x{size}x{size} patches without their mean have {values - 1} principal "
                f"directions, not {filters}; choose filters={values - 1} or less, or dictionary=random"
            )
        self.in_channels, self.size, self.pool, self.dictionary, self.seed = in_channels, size, pool, dictionary, seed
        self.register_buffer("filters", torch.full((filters, in_channels, size, size), torch.nan))
        self.register_buffer("offset", torch.full((filters,), torch.nan))

    @property
    def fitted(self) -> bool:
        """True if it has been fitted."""
        return self.offset.is_meta or bool(self.offset[0].isfinite())

    def out_features(self, height: int, width: int) -> int:
        """Return the length of the vector of an image of this size in pixels. Raises ValueError if it is too small."""
        smallest = self.size + self.pool - 1
        if min(height, width) < smallest:
            raise ValueError(
                f"Patches of {self.size}x{self.size} pixels in {self.pool}x{self.pool} regions take images of at least "
                f"{smallest}x{smallest} pixels, not {height}x{width}"
            )
        return 2 * len(self.offset) * self.pool**2

    def fit(self, batches: Iterable[Tensor]) -> "Patches":
        """Fit whitening and dictionary to random patches of the images (N, C, H, W), and return itself.

        Raises ValueError if the images have fewer patches than the dictionary needs.
        """
        generator = torch.Generator().manual_seed(self.seed)
        patches = self._draw(batches, generator).to(torch.float64)  # (P, C size size)
        patches = patches[torch.randperm(len(patches), generator=generator)[:MOST_PATCHES]]
        if len(patches) < len(self.offset):
            raise ValueError(f"Patches: {len(self.offset)} filters from {len(patches)} patches; use more images")
        patches = patches - patches.mean(1, keepdim=True)
        patches = patches / (patches.square().mean(1, keepdim=True) + CONTRAST).sqrt()
        mean = patches.mean(0)
        covariance = (patches - mean).T @ (patches - mean) / len(patches)
        if self.dictionary == "pca":
            combined = decorrelation(covariance, "pca", EPS, len(self.offset)).matrix
        else:
            whitening = decorrelation(covariance, "zca", EPS).matrix
            chosen = (patches[: len(self.offset)] - mean) @ whitening.T
            combined = F.normalize(chosen) @ whitening
        self.offset.copy_(combined @ mean)
        combined = combined - combined.mean(1, keepdim=True)  # so that filters subtract the mean of each patch
        self.filters.copy_(combined.view(self.filters.shape))
        return self

    def _draw(self, batches: Iterable[Tensor], generator: torch.Generator) -> Tensor:
        """Return two random patches of each image; where these are very many, of every second, fourth ... image."""
        drawn, every = list[Tensor](), 1
        for images in batches:
            images = images[::every].cpu()
            rows, columns = images.shape[2] - self.size + 1, images.shape[3] - self.size + 1
            unfolded = F.unfold(images, self.size)  # (N, C size size, places)
            for _ in range(2):
                places = torch.randint(rows * columns, (len(images),), generator=generator)
                drawn.append(unfolded[torch.arange(len(images)), :, places])
            if sum(map(len, drawn)) > 2 * MOST_PATCHES:  # a folder starts with all images of one class
                drawn, every = [torch.cat(drawn)[::2]], 2 * every
        return torch.cat(drawn)

    def forward(self, x: Tensor) -> Tensor:
        """Return the mean responses above the threshold, then those below minus the threshold, of each region."""
        # The number of parts would be a constant of an exported program.
        parts = (x,) if torch.compiler.is_exporting() else torch.split(x, CHUNK)
        return torch.cat([self._responses(part) for part in parts])

    def _responses(self, x: Tensor) -> Tensor:
        grey = x.mean(1, keepdim=True)
        mean = F.avg_pool2d(grey, self.size, 1)
        square = F.avg_pool2d(x.square().mean(1, keepdim=True), self.size, 1)
        contrast = (square - mean.square()).clamp(min=0) + CONTRAST
        responses = F.conv2d(x, self.filters) * contrast.rsqrt() - self.offset[:, None, None]
        signs = (F.relu(responses - THRESHOLD), F.relu(-responses - THRESHOLD))
        return torch.cat([F.adaptive_avg_pool2d(sign, self.pool).flatten(1) for sign in signs], 1)
