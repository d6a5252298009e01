"""What a training leaves behind: one folder with its config, metrics, checkpoints, pictures and summary."""

from cvcc_zoo.runs.callback import ProgressBar, RunFolder
from cvcc_zoo.runs.folder import new_folder, reserve_folder
from cvcc_zoo.runs.monitor import OptimizerMonitor
from cvcc_zoo.runs.summary import print_summary, write_predictions

__all__ = [
    "OptimizerMonitor",
    "ProgressBar",
    "RunFolder",
    "new_folder",
    "print_summary",
    "reserve_folder",
    "write_predictions",
]
