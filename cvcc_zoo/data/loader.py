"""Batches of tensors in an order that is a function of (seed, epoch)."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Self

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils.data import SequentialSampler

from cvcc_zoo.data.draws import mix_seed

AHEAD = 2**25
"""Numbers in the images that are changed at once: 128 MiB as float32, a few times."""


class Batch:
    """`images, labels = batch`: uint8 (N, C, H, W) and int64 (N,).

    It also has `samples`, int64 (N,): the places of the images in the data set. It is no tuple, since Lightning builds
    tuples anew from their fields alone.
    """

    def __init__(self, images: Tensor, labels: Tensor, samples: Tensor) -> None:
        self.images, self.labels, self.samples = images, labels, samples

    def __iter__(self) -> Iterator[Tensor]:
        return iter((self.images, self.labels))

    def __len__(self) -> int:
        return 2

    def __getitem__(self, field: int) -> Tensor:
        return (self.images, self.labels)[field]

    def to(self, *args: Any, **options: Any) -> Self:
        """The same on another device."""
        return type(self)(*(each.to(*args, **options) for each in (self.images, self.labels, self.samples)))


class Augmented(Batch):
    """A batch that is ready: its images may be floats in [0, 1], or of another size."""


def overfits(trainer: Any) -> bool:
    """Whether a trainer, or None, takes the same few batches in every epoch."""
    return trainer is not None and trainer.overfit_batches > 0


def limited(trainer: Any, stage: str) -> bool:
    """Whether a trainer, or None, takes a part of the "val" or "test" images alone: which then has to be drawn.

    A folder begins with all images of one class.
    """
    limit = 1.0 if trainer is None else getattr(trainer, f"limit_{stage}_batches")
    return isinstance(limit, int) or limit < 1  # 1 is a batch, 1.0 is everything


Change = Callable[[Batch, int], tuple[Tensor, Tensor]]
"""Images and labels as they are trained on, from a batch and the number of the epoch."""


class EpochPermutation:
    """A new order of `count` samples for every epoch; Lightning calls `set_epoch` before each."""

    def __init__(self, count: int, seed: int) -> None:
        self.count = count
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order the next iteration takes."""
        self.epoch = epoch

    def order(self) -> Tensor:
        """int64 (count,): a permutation of 0 .. count - 1."""
        generator = torch.Generator().manual_seed(mix_seed(self.seed, self.epoch))
        return torch.randperm(self.count, generator=generator)


class FixedPermutation(EpochPermutation, SequentialSampler):
    """The order of epoch 0 in every one; a SequentialSampler, because Lightning wants one for `overfit_batches`."""

    def order(self) -> Tensor:
        """int64 (count,)."""
        return EpochPermutation(self.count, self.seed).order()


class Position:
    """How far a training came in its epoch; what a resumed one skips, once."""

    def __init__(self) -> None:
        self.epoch, self.batches = 0, 0

    def take(self, epoch: int) -> int:
        """How many batches of this epoch were trained on before; 0 when it is asked again."""
        batches = self.batches if self.epoch == epoch else 0
        self.batches = 0
        return batches


class TensorLoader:
    """Iterates over images held as one tensor; no worker processes are needed.

    They may be memory-mapped, or lie on an accelerator with their labels: then the batches are made there.

    `samples` (M,) picks which of the images are visited. With a `shuffle_seed` every epoch has its own order and a
    last batch that would be smaller is left out (it holds other images each epoch; where they are `fixed` the
    same ones); without one the order is fixed
    and every image comes exactly once.

    With several processes each takes its share of every shuffled batch. In a fixed order each takes whole batches in
    turn, which it computes as a single process would; where they run out it gets empty ones, so that all have as many.

    A resumed training starts after the batches that its `position` holds. Which epoch it is in is asked at the first
    batch, not when the iterator is made: Lightning sets the epoch in between.
    """

    batch_sampler = None  # Lightning asks for it where there is a sampler

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        samples: Tensor,
        batch_size: int,
        *,
        shuffle_seed: int | None = None,
        rank: int = 0,
        world_size: int = 1,
        position: Position | None = None,
        fixed: bool = False,
    ) -> None:
        self.images, self.labels, self.samples = images, labels, samples
        self.batch_size = min(batch_size, len(samples)) or 1
        permutation = FixedPermutation if fixed else EpochPermutation
        self.sampler = None if shuffle_seed is None else permutation(len(samples), shuffle_seed)
        self.rank, self.world_size = rank, world_size
        if shuffle_seed is not None and self.batch_size < world_size:
            raise ValueError(
                f"a batch of {self.batch_size} images cannot be shared by {world_size} processes; choose at least "
                f"--data.batch_size={world_size}, or fewer devices"
            )
        self.position = position or Position()
        self.change: Change | None = None
        self.ahead = 1

    def make_ahead(self, change: Change, numbers: int = AHEAD) -> None:
        """Let `change` make of several batches at once what is trained on, with `numbers` numbers in their images.

        The batches are then `Augmented`. Every image must be changed for itself alone. On an accelerator that is
        faster: augmentations are many small operations, each of which has to be started.
        """
        self.change, self.ahead = change, max(1, numbers // (self.batch_size * self.images[0].numel()))

    def state_dict(self) -> dict[str, Any]:
        """Nothing: the DataModule keeps the position. Lightning warns of loaders without this method."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing."""

    def __len__(self) -> int:
        whole, rest = divmod(len(self.samples), self.batch_size)
        return whole if self.sampler is not None else -(-(whole + bool(rest)) // self.world_size)

    def __iter__(self) -> Iterator[Batch]:
        samples, first, epoch = self.samples, 0, 0
        if self.sampler is not None:
            epoch = self.sampler.epoch
            samples, first = samples[self.sampler.order()], self.position.take(epoch)
        samples = samples.to(self.images.device)
        for number in range(first, len(self), self.ahead):
            numbers = range(number, min(number + self.ahead, len(self)))
            yield from self._made([self._chosen(samples, each) for each in numbers], epoch)

    def _made(self, parts: list[Tensor], epoch: int) -> Iterator[Batch]:
        """The batches of those samples, made together."""
        chosen = torch.cat(parts)
        batch = Batch(self.images.index_select(0, chosen), self.labels[chosen], chosen)  # 20 times faster than []
        if self.change is None:
            yield batch
        else:
            sizes = [len(part) for part in parts]
            for made in zip(*(torch.split(each, sizes) for each in (*self.change(batch, epoch), chosen)), strict=True):
                yield Augmented(*made)

    def _chosen(self, samples: Tensor, number: int) -> Tensor:
        """The samples of a batch that are for this process."""
        if self.sampler is None:
            number = number * self.world_size + self.rank
        chosen = samples[number * self.batch_size : (number + 1) * self.batch_size]
        return chosen if self.sampler is None else chosen[self.rank :: self.world_size]


def in_order(batches: Sequence[Any]) -> list[Any]:
    """What was made of the batches of a fixed order: in that order, from all processes of torch's default group."""
    if not (dist.is_available() and dist.is_initialized()):
        return list(batches)
    everyone: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(everyone, batches)
    return [batch for turn in zip(*everyone, strict=True) for batch in turn]
