"""Which notices of Lightning a user does not see."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


def _no_advertisement(record: logging.LogRecord) -> bool:
    """Lightning's tips advertise other products."""
    return "💡" not in record.getMessage()


def quiet() -> None:
    """Keep what a user can do nothing about out of the terminal; all other notices stay."""
    log = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    log.addFilter(_no_advertisement)
    # https://github.com/Lightning-AI/pytorch-lightning/issues/21326
    warnings.filterwarnings("ignore", ".*LeafSpec.*", FutureWarning, "lightning.pytorch.utilities._pytree")
    warnings.filterwarnings("ignore", "Checkpoint directory .* exists and is not empty")  # a run that goes on


@contextmanager
def only_warnings() -> Iterator[None]:
    """What Lightning says before and after every training is left out, where there are many."""
    logs = [logging.getLogger(f"lightning.{part}") for part in ("pytorch", "fabric")]
    levels = [log.level for log in logs]
    for log in logs:
        log.setLevel(logging.WARNING)
    try:
        yield
    finally:
        for log, level in zip(logs, levels, strict=True):
            log.setLevel(level)
