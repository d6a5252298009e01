"""Batches of tensors in an order that is a function of (seed, epoch)."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Self

import torch
import torch.distributed as dist
from torch import Tensor

from cvcc_zoo.data.balance import BalancedOrder, EpochPermutation, FixedOrder

AHEAD = 2**25
"""Values in the images that are augmented together: 128 MiB as float32, for each of a few temporary copies."""


class Batch:
    """A batch `images, labels = batch`: uint8 (N, C, H, W) and int64 (N,).

    It also has `samples`, int64 (N,), and so it is not a tuple: Lightning rebuilds tuples from their elements alone.
    They are the positions of the images in the data set; the size of the data set is added for each time that the image
    was drawn before in this epoch, so that every draw is augmented in its own way.
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
        """Move the batch to another device."""
        return type(self)(*(each.to(*args, **options) for each in (self.images, self.labels, self.samples)))


class Augmented(Batch):
    """A batch that is augmented already: its images may be floats in [0, 1], or of another size."""


def overfits(trainer: Any) -> bool:
    """Return whether a trainer, or None, repeats the same few batches in every epoch."""
    return trainer is not None and trainer.overfit_batches > 0


def limited(trainer: Any, stage: str) -> bool:
    """Return whether a trainer, or None, uses only some of the "train", "val" or "test" images.

    They must then be drawn at random, because a folder starts with all images of one class.
    """
    limit = 1.0 if trainer is None else getattr(trainer, f"limit_{stage}_batches")
    return isinstance(limit, int) or limit < 1  # 1 is a batch, 1.0 is everything


Change = Callable[[Batch, int], tuple[Tensor, Tensor]]
"""An augmentation: from a batch and the number of the epoch to images and labels."""
GIVE = "give it the DataModule instead, as in trainer.fit(model, datamodule=data)"


class Position:
    """The next epoch, and its batches that were trained on before, which a resumed run skips once."""

    def __init__(self) -> None:
        self.epoch, self.batches = 0, 0

    def take(self, epoch: int) -> int:
        """Begin an epoch: return the number of batches to skip in it, and 0 from then on."""
        batches = self.batches if self.epoch == epoch else 0
        self.epoch, self.batches = epoch + 1, 0
        return batches


class TensorLoader:
    """Iterate over images that are one tensor; no worker processes are needed.

    The tensor may be memory-mapped, or on an accelerator with its labels, where batches are then made.

    `samples` (M,) are the positions of the images to visit. With a `shuffle_seed` every epoch has its own order (with
    `fixed` the same one; with `balanced` one that draws each class equally often), and a last batch that would be
    smaller is left out. Without it the order is that of `samples`, and every image comes exactly once.

    Several processes share every shuffled batch. Without shuffling they take whole batches in turn, computed as by a
    single process; the last ones may be empty, so that every process has the same number.

    A resumed run starts after the batches in its `position`. The epoch is read at the first batch, not when the
    iterator is created, because Lightning sets it in between; where nobody sets it, as in a loop of your own, the next
    iteration is the next epoch, also that of a new loader with the same position.
    """

    batch_sampler = None  # Lightning reads it if there is a sampler

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
        balanced: bool = False,
    ) -> None:
        self.images, self.labels, self.samples = images, labels, samples
        self.batch_size = min(batch_size, len(samples)) or 1
        self.sampler: EpochPermutation | FixedOrder | None = None
        if shuffle_seed is not None:
            order = EpochPermutation(len(samples), shuffle_seed)
            if balanced:
                order = BalancedOrder(labels[samples.to(labels.device)].cpu(), shuffle_seed)
            self.sampler = FixedOrder(order) if fixed else order
        self.rank, self.world_size = rank, world_size
        if shuffle_seed is not None and self.batch_size < world_size:
            raise ValueError(
                f"a batch of {self.batch_size} images cannot be divided among {world_size} processes; choose at least "
                f"--data.batch_size={world_size}, or fewer devices"
            )
        self.position = position or Position()
        if self.sampler is not None:
            self.sampler.set_epoch(self.position.epoch)
        self.change: Change | None = None
        self.ahead = 1

    def make_ahead(self, change: Change, numbers: int = AHEAD) -> None:
        """Apply `change` to several batches at once, as many as have about `numbers` values in their images.

        Batches are then `Augmented`. `change` must treat every image independently. This is faster on an accelerator,
        because augmentations are many small operations, each with the cost of a launch.
        """
        self.change, self.ahead = change, max(1, numbers // (self.batch_size * self.images[0].numel()))

    def state_dict(self) -> dict[str, Any]:
        """Return nothing: the DataModule saves the position. Lightning warns about loaders without this method."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Do nothing."""

    def __len__(self) -> int:
        whole, rest = divmod(len(self.samples), self.batch_size)
        return whole if self.sampler is not None else -(-(whole + bool(rest)) // self.world_size)

    def __iter__(self) -> Iterator[Batch]:
        samples, first, epoch = self.samples, 0, 0
        if self.sampler is not None:
            epoch = self.sampler.epoch
            order, first = self.sampler.order(), self.position.take(epoch)
            self.sampler.set_epoch(epoch + 1)
            # The n-th repetition of an image in an epoch is its number + n len(images), so that it is changed anew.
            samples = samples[order % len(samples)] + order // len(samples) * len(self.images)
        samples = samples.to(self.images.device)
        for number in range(first, len(self), self.ahead):
            numbers = range(number, min(number + self.ahead, len(self)))
            yield from self._batches([self._samples_of(samples, each) for each in numbers], epoch)

    def _batches(self, parts: list[Tensor], epoch: int) -> Iterator[Batch]:
        """Make the batches of these samples together."""
        chosen = torch.cat(parts)
        rows = chosen % len(self.images)
        batch = Batch(self.images.index_select(0, rows), self.labels[rows], chosen)  # 20 times faster than []
        if self.change is None:
            yield batch
        else:
            sizes = [len(part) for part in parts]
            changed = (*self.change(batch, epoch), chosen)
            for fields in zip(*(torch.split(each, sizes) for each in changed), strict=True):
                yield Augmented(*fields)

    def _samples_of(self, samples: Tensor, number: int) -> Tensor:
        """Return this process's samples of a batch."""
        if self.sampler is None:
            number = number * self.world_size + self.rank
        chosen = samples[number * self.batch_size : (number + 1) * self.batch_size]
        return chosen if self.sampler is None else chosen[self.rank :: self.world_size]


def check_given(trainer: Any, batch: Any) -> None:
    """Raise ValueError if a Trainer, or None, was given a loader of a DataModule, and needs the DataModule itself.

    Nobody would augment its training images, and several processes would all get the same images.
    """
    if trainer is None or not (trainer.training or trainer.world_size > 1):
        return
    stage = "train_dataloader" if trainer.training else "test_dataloaders" if trainer.testing else "val_dataloaders"
    given = getattr(trainer, stage)
    for loader in given if isinstance(given, list | tuple) else [given]:
        if not isinstance(loader, TensorLoader):
            continue
        if trainer.training and loader.sampler is not None and isinstance(batch, Batch):
            raise ValueError(
                "the Trainer was given the loader of a DataModule, and would train without its augmentations, without "
                f"the names of the classes, and without checks of the images; {GIVE}"
            )
        if loader.world_size != trainer.world_size:
            raise ValueError(
                f"{trainer.world_size} processes would all get the same images, because this loader was made without "
                f"the Trainer; {GIVE}"
            )


def in_order(batches: Sequence[Any]) -> list[Any]:
    """Gather the results of batches in fixed order from all processes of torch's default group, in that order."""
    if not (dist.is_available() and dist.is_initialized()):
        return list(batches)
    everyone: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(everyone, batches)
    return [batch for turn in zip(*everyone, strict=True) for batch in turn]
