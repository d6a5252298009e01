"""Start-up.

Seconds of whole processes, medians of runs that take turns. `cvcc_zoo.list_models()` and `fit` import Lightning, which
takes most of their time.
"""

import subprocess
import sys
from collections.abc import Callable
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
        "lightning": [python, "-c", "import lightning"],
        "models": [python, "-c", "import cvcc_zoo; cvcc_zoo.list_models()"],
        "fit": [python, "-m", "cvcc_zoo", "fit", "--help"],
    }

    def side(command: list[str]) -> float:
        return seconds(lambda: subprocess.run(command, check=True, capture_output=True))

    def beyond_torch() -> float:
        code = "import time, torch; start = time.perf_counter(); import cvcc_zoo; print(time.perf_counter() - start)"
        return float(subprocess.run([python, "-c", code], check=True, capture_output=True, text=True).stdout)

    sides: dict[str, Callable[[], float]] = {"package": beyond_torch}
    sides |= {name: partial(side, command) for name, command in commands.items()}
    sides["models"]()  # reads the files that all of them import, if the system has not cached them
    took = alternate(sides, max(3, settings.repeats))
    of_torch = f"import torch: {took['torch']:.2f}"
    lightning = f"import lightning: {took['lightning']:.2f}"
    return Found(
        [
            Row("cvcc-zoo --help", "s", took["help"], limit=HELP_LIMIT),
            Row("import cvcc_zoo, beyond torch", "s", took["package"], of_torch, limit=IMPORT_LIMIT),
            Row("cvcc_zoo.list_models()", "s", took["models"], lightning),
            Row("cvcc-zoo fit --help", "s", took["fit"], lightning),
        ]
    )
