"""Imbalanced classes: an order that draws each class equally often, and the line about them when training starts."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.utils.data import SequentialSampler

from cvcc_zoo.data.draws import mix_seed
from cvcc_zoo.registry import pick

SAMPLERS = ("shuffle", "balanced")
IMBALANCED = 10  # times as many images in the largest class as in the smallest


class EpochPermutation:
    """A new order of `count` samples for every epoch; Lightning calls `set_epoch` before each."""

    def __init__(self, count: int, seed: int) -> None:
        self.count = count
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch whose order the next iteration uses."""
        self.epoch = epoch

    def order(self) -> Tensor:
        """Return a permutation of 0 .. count - 1, int64 (count,)."""
        return permutation(self.count, self.seed, self.epoch)


class BalancedOrder(EpochPermutation):
    """An order in which each class has the same number of images, give or take one, with `labels` (count,).

    Each class has an endless sequence of its images, one permutation after the other, and every epoch takes the next
    part of it: no image is drawn again before all others of its class, also across epochs.
    """

    def __init__(self, labels: Tensor, seed: int) -> None:
        super().__init__(len(labels), seed)
        self.members = [(labels == label).nonzero().flatten() for label in torch.unique(labels).tolist()]

    def order(self) -> Tensor:
        """Return int64 (count,): index + count * n for the n-th repetition of a sample in this epoch, n = 0, 1, ..."""
        drawn = [self._drawn(number, members) for number, members in enumerate(self.members)]
        return torch.cat(drawn)[permutation(self.count, self.seed, self.epoch)]

    def _drawn(self, number: int, members: Tensor) -> Tensor:
        """Return what this epoch draws from a class."""
        # Hermite's identity: over all classes, the floors of (x + number) / classes sum up to x.
        start, end = ((epoch * self.count + number) // len(self.members) for epoch in (self.epoch, self.epoch + 1))
        rounds = range(start // len(members), -(-end // len(members)))
        sequence = [members[permutation(len(members), self.seed, number, each)] for each in rounds]
        first = rounds.start * len(members)
        drawn = torch.cat([members[:0], *sequence])[start - first : end - first]
        return drawn + self.count * earlier(drawn, self.count)


class FixedOrder(SequentialSampler):
    """The order of epoch 0 in every epoch; a SequentialSampler, because Lightning needs one for `overfit_batches`."""

    def __init__(self, first: EpochPermutation) -> None:
        self.first, self.epoch = first, 0

    def set_epoch(self, epoch: int) -> None:
        """Set the number of the epoch, on which only augmentations depend."""
        self.epoch = epoch

    def order(self) -> Tensor:
        """Return the order of epoch 0."""
        return self.first.order()


def permutation(count: int, *seed: int) -> Tensor:
    """Return a permutation of 0 .. count - 1, int64 (count,), which depends on the numbers of the seed."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(mix_seed(*seed)))


def earlier(drawn: Tensor, count: int) -> Tensor:
    """Return, for each of some numbers in 0 .. count - 1, how often it occurs before its place, int64 (N,)."""
    by_number = drawn.argsort(stable=True)
    times = torch.bincount(drawn, minlength=count)
    starts = times.cumsum(0) - times
    found = torch.empty_like(drawn)
    found[by_number] = torch.arange(len(drawn)) - starts[drawn[by_number]]
    return found


def check_sampler(name: str) -> str:
    """Return the name of a sampler as it is spelled here. Raises ValueError with the nearest names."""
    return pick("sampler", name, SAMPLERS)


def imbalance(labels: Tensor, classes: Sequence[str]) -> str | None:
    """Return a line about training images (labels int64 (N,)) if the largest class has ten times the smallest."""
    counts = torch.bincount(labels, minlength=len(classes))
    low, high = int(counts.argmin()), int(counts.argmax())
    if counts[high] < IMBALANCED * counts[low]:
        return None
    return (
        f"The classes are imbalanced: {counts[high]:,} training images of {classes[high]!r} and {counts[low]:,} of "
        f"{classes[low]!r}; remedies are --data.sampler=balanced, --model.loss.class_weights=balanced and "
        "--model.loss=focal"
    )
