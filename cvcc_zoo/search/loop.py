"""One trial after the other: those that are not there yet are trained, and recorded when they end."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from cvcc_zoo.runs import StoppedError
from cvcc_zoo.search.goal import Goal
from cvcc_zoo.search.methods import Method
from cvcc_zoo.search.record import Trial, read_trials, write_trials
from cvcc_zoo.search.space import Values

Train = Callable[[Values, Path], None]
"""Trains with some values in a run folder, or goes on there. Raises StoppedError if it is stopped before the end."""


def search(
    folder: Path, method: Method, goal: Goal, train: Train, count: int, deadline: float
) -> Iterator[tuple[int, Values] | Trial]:
    """Train the trials up to `count` that have not ended: (number, values) when one begins, the trial when it has.

    A trial that was interrupted goes on. One that fails is recorded with its message, and the next one begins; but a
    file that cannot be read or written (OSError) ends the search. Raises StoppedError when a training is stopped, or
    the `deadline` of `time.monotonic()` is over.
    """
    trials = read_trials(folder)
    for trial in trials:
        method.tell(trial)
    for number in range(len(trials), count):
        if time.monotonic() >= deadline:
            raise StoppedError("the time is over")
        values = method.values(number)
        yield number, values
        trial = attempt(number, values, folder / f"{number:03}", goal, train)
        trials.append(trial)
        write_trials(folder, trials)
        method.tell(trial)
        yield trial


def attempt(number: int, values: Values, run: Path, goal: Goal, train: Train) -> Trial:
    """Train one trial to its end, whatever that is."""
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
    except Exception as error:  # whatever such values lead to, also in other libraries
        kind = "" if isinstance(error, ValueError | ArithmeticError) else f"{type(error).__name__}: "
        return Trial(number, values, None, message=f"{kind}{(str(error).splitlines() or [''])[0]}")
    return Trial(number, values, measure, summary["epochs"], summary["train_seconds"])
