"""The loop of a search: train one missing trial after the other, and record each when it ends."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from cvcc_zoo.printing import first_line
from cvcc_zoo.runs import StoppedError
from cvcc_zoo.search.goal import Goal
from cvcc_zoo.search.methods import Method
from cvcc_zoo.search.record import Trial, read_trials, write_trials
from cvcc_zoo.search.space import Values

Train = Callable[[Values, Path], None]
"""Train with some values in a run folder, or resume there. Raises StoppedError if it is stopped before the end."""


def search(
    folder: Path, method: Method, goal: Goal, train: Train, count: int, deadline: float
) -> Iterator[tuple[int, Values] | Trial]:
    """Train the missing ones of `count` trials; yield (number, values) when a trial starts, and the trial when it ends.

    An interrupted trial is resumed. A failed one is recorded with its message, and the search continues; but a file
    that cannot be read or written (OSError) ends the search. Raises StoppedError if training is stopped, or once
    `time.monotonic()` reaches the `deadline`.
    """
    trials = read_trials(folder)
    for trial in trials:
        method.tell(trial)
    for number in range(len(trials), count):
        if time.monotonic() >= deadline:
            raise StoppedError("the time limit is reached")
        values = method.values(number)
        yield number, values
        trial = attempt(number, values, folder / f"{number:03}", goal, train)
        trials.append(trial)
        write_trials(folder, trials)
        method.tell(trial)
        yield trial


def attempt(number: int, values: Values, run: Path, goal: Goal, train: Train) -> Trial:
    """Train one trial, and return it as finished or failed. Raises StoppedError and OSError, which end the search."""
    try:
        train(values, run)
        summary = json.loads((run / "summary.json").read_text())
        measure = goal.of(run / "metrics.csv")
    except (StoppedError, OSError):
        raise
    except SystemExit as refused:
        notes = getattr(refused, "__notes__", [])
        if not notes:
            raise  # Lightning, at a second Ctrl-C
        return Trial(number, values, None, message=notes[0])
    except Exception as error:  # unsuitable values may cause any error, also in other libraries
        kind = "" if isinstance(error, ValueError | ArithmeticError) or not str(error) else f"{type(error).__name__}: "
        return Trial(number, values, None, message=f"{kind}{first_line(error)}")
    return Trial(number, values, measure, summary["epochs"], summary["train_seconds"])
