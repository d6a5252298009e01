"""Start-up.

Seconds of whole processes, medians of runs that take turns. `cvcc_zoo.list_models()` and `fit` import Lightning, which
takes most of their time.
"""

import subprocess
import sys
from functools import partial

from benchmarks.report import Found, Row
from benchmarks.sides import Settings
from cvcc_zoo.timing import alternate, seconds

HELP_LIMIT, IMPORT_LIMIT = 1.5, 0.3  # seconds


def measure(settings: Settings) -> Found:
    """Return the rows for the command, and for the import without that of torch."""
    python = sys.executable
    commands = {
        "help": [python, "-m", "cvcc_zoo", "--help"],
        "torch": [python, "-c", "import torch"],
        "package": [python, "-c", "import torch, cvcc_zoo"],
        "lightning": [python, "-c", "import lightning"],
        "models": [python, "-c", "import cvcc_zoo; cvcc_zoo.list_models()"],
        "fit": [python, "-m", "cvcc_zoo", "fit", "--help"],
    }

    def side(command: list[str]) -> float:
        return seconds(lambda: subprocess.run(command, check=True, capture_output=True))

    sides = {name: partial(side, command) for name, command in commands.items()}
    sides["models"]()  # reads the files that all of them import, if the system has not cached them
    took = alternate(sides, max(3, settings.repeats))
    extra = max(0.0, took["package"] - took["torch"])
    lightning = f"import lightning: {took['lightning']:.2f}"
    return Found(
        [
            Row("cvcc-zoo --help", "s", took["help"], limit=HELP_LIMIT),
            Row("import cvcc_zoo, beyond torch", "s", extra, f"import torch: {took['torch']:.2f}", limit=IMPORT_LIMIT),
            Row("cvcc_zoo.list_models()", "s", took["models"], lightning),
            Row("cvcc-zoo fit --help", "s", took["fit"], lightning),
        ]
    )
