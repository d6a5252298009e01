"""What a run asks of torch for its whole process, by `--trainer.deterministic` and `benchmark`, ends with the run."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

CUBLAS = "CUBLAS_WORKSPACE_CONFIG"


@contextmanager
def determinism_restored() -> Iterator[None]:
    """Restore at the end which algorithms torch may use: a Trainer chooses them and does not restore them."""
    mode, benchmark, workspace = (
        torch.get_deterministic_debug_mode(),
        torch.backends.cudnn.benchmark,
        os.environ.get(CUBLAS),
    )
    try:
        yield
    finally:
        if torch.get_deterministic_debug_mode() != mode:  # this one also tells torch's compiler
            torch.use_deterministic_algorithms(mode > 0, warn_only=mode == 1)
        if torch.backends.cudnn.benchmark != benchmark:  # else torch may have been told to let nobody set it
            torch.backends.cudnn.benchmark = benchmark
        if workspace is None:
            os.environ.pop(CUBLAS, None)
        else:
            os.environ[CUBLAS] = workspace
