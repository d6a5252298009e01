"""Scale each value of a vector to mean 0 and standard deviation 1 over the training images."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn


class Standardize(nn.Module):
    """Vectors (N, D) to standardised vectors (N, D); a value that is the same for all images becomes 0."""

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
