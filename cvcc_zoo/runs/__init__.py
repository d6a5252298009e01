"""What a training leaves behind: one folder with its config, metrics, checkpoints, pictures and summary."""

from cvcc_zoo.runs.callback import ProgressBar, RunFolder
from cvcc_zoo.runs.checkpoints import WholeCheckpoints
from cvcc_zoo.runs.compiled import Compile
from cvcc_zoo.runs.ema import EMA
from cvcc_zoo.runs.folder import folder_to_resume, new_folder
from cvcc_zoo.runs.monitor import OptimizerMonitor
from cvcc_zoo.runs.stopping import Deadline, StopAtSignal, StoppedError
from cvcc_zoo.runs.summary import print_summary, write_predictions

__all__ = [
    "EMA",
    "Compile",
    "Deadline",
    "OptimizerMonitor",
    "ProgressBar",
    "RunFolder",
    "StopAtSignal",
    "StoppedError",
    "WholeCheckpoints",
    "folder_to_resume",
    "new_folder",
    "print_summary",
    "write_predictions",
]
