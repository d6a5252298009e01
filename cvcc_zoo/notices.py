"""Which notices of Lightning a user does not see."""

import logging
import warnings


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
