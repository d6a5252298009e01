"""Features of vectors: principal components, which project on the directions of largest variance, and scaling.

The covariance of PCA is summed in float64, batch by batch; its eigenvectors are computed as for the whitening `pca`,
but only `whiten` also divides by the standard deviations.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from cvcc_zoo.data.decorrelation import decorrelation
from cvcc_zoo.data.pixels import is_traced
from cvcc_zoo.internals.torch import without_autocast


class PCA(nn.Module):
    """Vectors (N, D) to their principal components (N, K), as `sklearn.decomposition.PCA`; fitted by `fit`.

    With `whiten` the squares are divided by the number of vectors, where scikit-learn takes one less.
    """

    mean: Tensor  # (D,)
    basis: Tensor  # (K, D)
    spectrum: Tensor  # (D,): the variances of all components, divided by the number of vectors

    def __init__(self, components: int | float = 0.95, *, whiten: bool = False) -> None:
        """Keep a number of components, or a share of the variance in (0, 1); `whiten` scales them to variance 1."""
        super().__init__()
        whole = isinstance(components, int) and not isinstance(components, bool)
        share = isinstance(components, float) and 0 < components < 1
        if not (share or (whole and components >= 1)):
            raise ValueError(
                f"PCA: components must be at least 1, or a share of the variance in (0, 1), not {components!r}"
            )
        self.components, self.whiten = components, whiten
        for name in ("mean", "basis", "spectrum"):
            self.register_buffer(name, torch.empty(0))

    def make_room(self, size: int, kept: int) -> None:
        """Allocate the tensors of a PCA of vectors of `size` numbers with `kept` components."""
        for name, shape in (("mean", (size,)), ("basis", (kept, size)), ("spectrum", (size,))):
            setattr(self, name, torch.full(shape, torch.nan))

    @property
    def fitted(self) -> bool:
        """True if it has been fitted."""
        known = self.basis.is_meta or is_traced()  # without values to look at
        return self.basis.numel() > 0 and (known or bool(self.basis[0, 0].isfinite()))

    def fit(self, batches: Iterable[Tensor]) -> "PCA":
        """Fit mean and directions to all vectors of the batches (N, D), and return itself.

        Each batch is read once. Raises ValueError for fewer than two vectors, and for more components than directions
        with a variance.
        """
        count, total, products, shift = 0, torch.empty(0), torch.empty(0), torch.empty(0)
        for batch in batches:
            x = batch.detach().to("cpu", torch.float64)
            if not count:
                shift = x.mean(0)  # close to the mean of all, to avoid cancellation
                total, products = torch.zeros_like(shift), shift.new_zeros(len(shift), len(shift))
            x = x - shift
            count += len(x)
            total += x.sum(0)
            products.addmm_(x.T, x)
        if count < 2:
            raise ValueError(f"PCA needs at least two vectors, got {count}")
        mean = total / count
        covariance = products.div_(count).addr_(mean, mean, alpha=-1)
        found = decorrelation(covariance, "pca", components=self.components)
        kept = self.components if isinstance(self.components, int) else len(found.matrix)
        if kept > found.rank:
            raise ValueError(
                f"PCA: {kept} components of vectors that vary in {found.rank} directions; choose at most "
                f"{found.rank}, or use more images"
            )
        # The rows of `matrix` are directions of length 1 / sqrt(variance), to whiten; without, they have length 1.
        basis = found.matrix if self.whiten else found.matrix * found.spectrum[:kept, None].sqrt()
        self.mean, self.basis, self.spectrum = (part.to(self.mean) for part in (shift + mean, basis, found.spectrum))
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Return the components (N, K). Raises ValueError before it is fitted, and for vectors of another size."""
        if not self.fitted:
            raise ValueError("this PCA is not fitted: fit it to training vectors, or load trained weights")
        if x.shape[-1] != self.basis.shape[1]:
            raise ValueError(f"this PCA takes vectors of {self.basis.shape[1]:,} numbers, got {x.shape[-1]:,}")
        with without_autocast(x.device):  # 16 bits lose the small components, and overflow
            return (x - self.mean) @ self.basis.T


class Standardize(nn.Module):
    """Vectors (N, D) to vectors (N, D) whose values have mean 0 and standard deviation 1 over the training images.

    A value that is the same for all images becomes 0.
    """

    mean: Tensor  # (D,)
    std: Tensor  # (D,)

    def __init__(self, size: int) -> None:
        super().__init__()
        for name in ("mean", "std"):
            self.register_buffer(name, torch.full((size,), torch.nan))

    @property
    def fitted(self) -> bool:
        """True if it has been fitted."""
        return self.mean.is_meta or bool(self.mean[0].isfinite())

    def fit(self, batches: Iterable[Tensor]) -> "Standardize":
        """Fit mean and standard deviation to all vectors of the batches (N, D), and return itself.

        Raises ValueError if there are no vectors.
        """
        count, shift = 0, torch.zeros(0)
        total = squares = shift
        for batch in batches:
            x = batch.detach().to("cpu", torch.float64)
            if not count:
                shift = x.mean(0)  # close to the mean of all, to avoid cancellation
                total, squares = torch.zeros_like(shift), torch.zeros_like(shift)
            x = x - shift
            count += len(x)
            total += x.sum(0)
            squares += x.square().sum(0)
        if not count:
            raise ValueError("Standardize needs at least one training image")
        std = (squares / count - (total / count).square()).clamp(min=0).sqrt()
        self.mean.copy_(shift + total / count)
        self.std.copy_(torch.where(std > 1e-12 * shift.abs(), std, 1.0))
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Return the standardised vectors (N, D)."""
        return (x - self.mean) / self.std
