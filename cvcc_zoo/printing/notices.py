"""Which notices of Lightning a user does not see."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from cvcc_zoo.printing import harmless

NOISE = (
    "💡",  # advertises other products
    "Trainer already configured with model summary callbacks",  # by us
    "TPU available: False",
    "Loading `train_dataloader` to estimate",  # the length of the schedule
    "Restoring states from the checkpoint path",  # of `best.ckpt`, before the test
    "Loaded model weights from the checkpoint",
    "`Trainer.fit` stopped: `max_",  # as it was asked to
)
"""How notices begin that tell a user of `cvcc-zoo` nothing."""


def _is_told(record: logging.LogRecord) -> bool:
    message = record.getMessage()
    record.msg, record.args = harmless(message), None  # it may hold names of classes and files
    return not message.startswith(NOISE)


def quiet() -> None:
    """Keep what a user can do nothing about out of the terminal; all other notices stay."""
    log = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    log.addFilter(_is_told)
    # https://github.com/Lightning-AI/pytorch-lightning/issues/21326
    warnings.filterwarnings("ignore", ".*LeafSpec.*", FutureWarning, "lightning.pytorch.utilities._pytree")
    # https://github.com/Lightning-AI/pytorch-lightning/pull/21408
    warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"lightning\.pytorch\.cli")
    warnings.filterwarnings("ignore", "Starting from v1.9.0, `tensorboardX`")  # advertises a logger
    # that our `optimizer_step` is called once a step, which is what it is for
    warnings.filterwarnings("ignore", r"When using `Trainer\(accumulate_grad_batches != 1\)`")
    warnings.filterwarnings("ignore", r"\s*Unable to serialize instance")  # which is refused
    warnings.filterwarnings("ignore", "Checkpoint directory .* exists and is not empty")  # a resumed run
    # one without validation or without checkpoints, whose best weights so far are not among its own
    warnings.filterwarnings("ignore", r"Be aware that when using `ckpt_path`.* callbacks: \[\"BestCheckpoint[^\"]*\"\]")
    # of the gradients of 1x1 convolutions in channels_last, which DDP copies
    warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")


@contextmanager
def only_warnings() -> Iterator[None]:
    """Silence what Lightning prints before and after every training, for commands that train many times."""
    logs = [logging.getLogger(f"lightning.{part}") for part in ("pytorch", "fabric")]
    levels = [log.level for log in logs]
    for log in logs:
        log.setLevel(logging.WARNING)
    try:
        yield
    finally:
        for log, level in zip(logs, levels, strict=True):
            log.setLevel(level)
