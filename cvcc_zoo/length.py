"""How long a training is, in steps and in epochs: whichever ends first."""

import math

from lightning import Trainer


def training_length(trainer: Trainer) -> tuple[int, int]:
    """Optimizer steps and epochs (the last may be cut off) of a training that is set up.

    Raises ValueError for one without an end: neither max_epochs nor max_steps.
    """
    steps, epochs = trainer.estimated_stepping_batches, trainer.max_epochs
    if math.isinf(steps) or epochs is None or steps < 1:
        raise ValueError(
            "a schedule needs to know how long a training is: set --trainer.max_epochs=... or --trainer.max_steps=... "
            "(beside max_time too: whichever comes first ends it), or train without a schedule: --lr_scheduler=null"
        )
    if trainer.train_dataloader is None:
        trainer.fit_loop.setup_data()
    each = math.ceil(trainer.num_training_batches / trainer.accumulate_grad_batches)
    return int(steps), max(1, math.ceil(steps / max(1, each)))


def limited(batches: int, limit: float) -> int:
    """How many of the `batches` of an epoch are trained on: `limit` is a number of batches, or a share if it is no int.

    As Lightning's `limit_train_batches`, into which `overfit_batches` goes too.
    """
    return min(batches, limit) if isinstance(limit, int) else int(batches * limit)


def steps_between_rows(trainer: Trainer, batches: int, rows: int) -> int:
    """After how many optimizer steps metrics are written, so that an epoch has at least that many `rows`, if it can.

    `batches` are those of the loader; the trainer says how many of them an epoch has, and how many steps in all.
    """
    own = vars(trainer)
    steps = limited(batches, own["limit_train_batches"]) // own["accumulate_grad_batches"]
    if trainer.max_steps > 0:
        steps = min(steps, trainer.max_steps)
    return int(max(1, min(own["log_every_n_steps"], steps // rows)))
