"""The length of a training run in steps and in epochs: whichever ends first."""

import math
from typing import Any

from lightning import Trainer
from lightning.pytorch.callbacks import GradientAccumulationScheduler

from cvcc_zoo.data.loader import TensorLoader
from cvcc_zoo.internals.averages import training_epochs
from cvcc_zoo.internals.lightning import batches_of_epoch, callbacks_of, load_training_batches, log_every_n_steps


def training_length(trainer: Trainer) -> tuple[int, int]:
    """Return the optimizer steps and epochs (the last may be cut off) of a training run that is set up.

    They are those made and those to come, because a resumed training may have had other steps per epoch before. Raises
    ValueError if it has no end, neither max_epochs nor max_steps, or if its images are a stream of any length.
    """
    last, most = end_of(trainer, "a schedule needs", "train without a schedule: --lr_scheduler=null")
    if trainer.train_dataloader is None:
        load_training_batches(trainer)
    if math.isinf(trainer.num_training_batches):
        raise ValueError(
            "a schedule needs the length of an epoch, and the training images come as a stream; give the number of its "
            "batches, Trainer(limit_train_batches=100), or train without a schedule: --lr_scheduler=null"
        )
    steps, epochs, factors = trainer.global_step, trainer.current_epoch, accumulation(trainer)
    if done := batches_of_epoch(trainer):
        factor = [factor for first, factor in factors.items() if first <= epochs][-1]
        if done < trainer.num_training_batches:  # its rest comes first; a validation after its end has none
            steps += math.ceil(trainer.num_training_batches / factor) - done // factor
        epochs += 1
    for factor, end in zip(factors.values(), [*list(factors)[1:], math.inf], strict=True):
        each = max(1, math.ceil(trainer.num_training_batches / factor))
        more = max(0, min(end, max(last, 1)) - epochs)
        if each * more > most - steps:  # the steps end it first
            more = max(0, math.ceil((most - steps) / each))
        steps, epochs = steps + each * int(more), epochs + int(more)
    return int(min(steps, most)), epochs


def end_of(trainer: Trainer, needs: str, otherwise: str) -> tuple[float, float]:
    """Return max_epochs and max_steps of a training run, one of which may be infinite.

    Raises ValueError if it has no end; the message begins with who `needs` one, and ends with what to do `otherwise`.
    """
    most = trainer.max_steps if trainer.max_steps != -1 else math.inf
    epochs = training_epochs(trainer)
    last = epochs if epochs != -1 else math.inf
    if last is None or (math.isinf(last) and math.isinf(most)) or most < 1:
        raise ValueError(
            f"{needs} the length of the training run: set --trainer.max_epochs=... or --trainer.max_steps=... (also if "
            f"you set max_time: the run ends at whichever comes first), or {otherwise}"
        )
    return last, most


def accumulation(trainer: Trainer) -> dict[int, int]:
    """Return how many batches are accumulated per step, by the epoch from which this holds; the first is 0."""
    for callback in callbacks_of(trainer):
        if isinstance(callback, GradientAccumulationScheduler):
            return dict(sorted(callback.scheduling.items()))
    return {0: trainer.accumulate_grad_batches}


def limited(batches: int, limit: float) -> int:
    """Return how many of the `batches` of an epoch are used: `limit` is a number if it is an int, or else a share.

    This is the rule of Lightning's `limit_train_batches`, which `overfit_batches` sets too.
    """
    return min(batches, limit) if isinstance(limit, int) else int(batches * limit)


def images_of_batch(trainer: Trainer, batch: Any) -> int:
    """Return how many images a training batch has in all processes, of which this one has its share (images, labels).

    Only shares of our own loader may differ in size. Images of other batches than pairs are not counted.
    """
    loader = trainer.train_dataloader
    if isinstance(loader, TensorLoader) and loader.sampler is not None:
        return loader.batch_size
    pair = isinstance(batch, list | tuple) and len(batch) > 0  # batches of several loaders are a dict
    return len(batch[0]) * trainer.world_size if pair else 0


def steps_between_rows(trainer: Trainer, batches: int, rows: int) -> int:
    """Return the optimizer steps between two rows of metrics, for at least that many `rows` an epoch if possible.

    `batches` is the length of the loader; the trainer limits how many an epoch has, and how many steps there are.
    """
    steps = limited(batches, trainer.limit_train_batches) // max(accumulation(trainer).values())
    if trainer.max_steps > 0:
        steps = min(steps, trainer.max_steps)
    return int(max(1, min(log_every_n_steps(trainer), steps // rows)))
