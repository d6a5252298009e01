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
