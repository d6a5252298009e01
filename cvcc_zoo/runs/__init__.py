"""Training runs: each writes one folder with its config, metrics, checkpoints, figures and summary."""

from cvcc_zoo.runs.callback import RunFolder
from cvcc_zoo.runs.changes import UseChanges, changed_options, check_unchanged
from cvcc_zoo.runs.checkpoints import MINUTES, WholeCheckpoints, best_so_far, with_whole_checkpoints
from cvcc_zoo.runs.compiled import Compile
from cvcc_zoo.runs.determinism import determinism_restored
from cvcc_zoo.runs.ema import EMA
from cvcc_zoo.runs.metrics_file import NAME as METRICS
from cvcc_zoo.runs.metrics_file import check_metrics, loggers
from cvcc_zoo.runs.monitor import OptimizerMonitor
from cvcc_zoo.runs.progress import ProgressBar, users_callbacks
from cvcc_zoo.runs.run_folder import HEADER, folder_to_resume, has_ended, last_of, new_folder, saved_config
from cvcc_zoo.runs.step_graph import StepGraph
from cvcc_zoo.runs.stopping import Deadline, StopAtSignal, StoppedError, stopped_by_signals
from cvcc_zoo.runs.summary import print_summary, write_predictions
from cvcc_zoo.runs.winograd import Winograd

__all__ = [
    "EMA",
    "HEADER",
    "METRICS",
    "MINUTES",
    "Compile",
    "Deadline",
    "OptimizerMonitor",
    "ProgressBar",
    "RunFolder",
    "StepGraph",
    "StopAtSignal",
    "StoppedError",
    "UseChanges",
    "WholeCheckpoints",
    "Winograd",
    "best_so_far",
    "changed_options",
    "check_metrics",
    "check_unchanged",
    "determinism_restored",
    "folder_to_resume",
    "has_ended",
    "last_of",
    "loggers",
    "new_folder",
    "print_summary",
    "saved_config",
    "stopped_by_signals",
    "users_callbacks",
    "with_whole_checkpoints",
    "write_predictions",
]
