"""Run the trials of a search or of a cross-validation: check, train, and print a line about each."""

import json
import math
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

import yaml

from cvcc_zoo.cli.arguments import name_as_option
from cvcc_zoo.cli.lightning import build
from cvcc_zoo.cli.lightning import main as lightning
from cvcc_zoo.data import ImageDataModule
from cvcc_zoo.data.folder import ImageFolder, fingerprint
from cvcc_zoo.data.identity import TRAINED_ON, identity_of
from cvcc_zoo.printing import first_line
from cvcc_zoo.printing.console import PlainConsole
from cvcc_zoo.printing.progress import Display
from cvcc_zoo.runs import Deadline, StoppedError, stopped_by_signals
from cvcc_zoo.runs.run_folder import check_outside
from cvcc_zoo.runs.written import read_config, read_summary
from cvcc_zoo.search.goal import Goal
from cvcc_zoo.search.methods import Method
from cvcc_zoo.search.record import Trial, as_record, check_record, read_trials, write_trials
from cvcc_zoo.search.space import Space, Values, flags, text_of, unusual


@dataclass(frozen=True)
class Searched:
    """What is searched, and where."""

    kind: str
    """search, or cross-validation, which a failed trial ends because it needs all of them."""
    folder: Path
    space: Space
    how: dict[str, Any]
    """Its options as plain data, for its description."""
    goal: Goal
    count: int
    """The number of trials."""
    fixed: Sequence[str]
    """The options of `cvcc-zoo fit` that every trial has."""


def deadline_after(minutes: float | None) -> float:
    """Return the time of `time.monotonic()` after so many minutes; infinite for None. Raises ValueError for others."""
    if minutes is not None and not minutes > 0:
        raise ValueError(f"give minutes above 0, not {minutes:g}")
    return math.inf if minutes is None else time.monotonic() + 60 * minutes


def run_trials(searched: Searched, method: Method, deadline: float, console: PlainConsole) -> int:
    """Train the missing trials; return 0, or the exit code of what stopped them. The folder must be locked.

    An interrupted trial is resumed. A failed one is recorded with its message, and a search continues; a
    cross-validation ends, and tries it again when it is resumed. Raises ValueError if the options cannot be used, the
    folder was made with others, or the training images change, and OSError for a file that cannot be read or written.
    """
    kind, folder, goal, count = searched.kind, searched.folder, searched.goal, searched.count
    fixed = name_as_option("fit", searched.fixed)  # below it is not the first word
    try:
        with stopped_by_signals():
            configs = [config_of(fixed, values, folder) for values in unusual(searched.space)]
            for config in configs:
                goal.check(config["trainer"])
            state = state_of(configs[0]["data"])  # first, so that no change is missed
            images = images_of(configs[0]["data"])
            check_record(folder, kind, as_record(kind, searched.how, configs[0], images))
            trials = read_trials(folder)
            if kind != "search":
                trials = list(takewhile(lambda trial: trial.measure is not None, trials))
            for trial in trials:
                method.tell(trial)
            what, whole = "trial" if kind == "search" else "fold", Display("trials", count, len(trials), until=deadline)
            for number in range(len(trials), count):
                if time.monotonic() >= deadline:
                    raise StoppedError("the time limit is reached")
                values = method.values(number)
                named = ", ".join(f"{name} {cell(value)}" for name, value in values.items())
                console.print(f"{what} {number:03}, {number + 1} of {count}: {named}")
                trial = attempt(number, values, folder / f"{number:03}", goal, fixed, deadline)
                check_images(f"{what} {number:03}", trial, folder / f"{number:03}", configs[0]["data"], images, state)
                trials.append(trial)
                write_trials(folder, trials)
                method.tell(trial)
                score, left = trial.measure, whole.left(number + 1)
                came = f"failed: {trial.message}" if score is None else f"{goal.measure} {goal.shown(score)}"
                console.print(f"{what} {number:03}: {came}" + (left and f", {left} left in all"))
                if score is None and kind != "search":
                    break
    except StoppedError as stop:
        command = kind.replace("validation", "validate")
        console.print(f"{stop}\nthe same `cvcc-zoo {command}` resumes")
        return stop.code
    return 0


def attempt(number: int, values: Values, run: Path, goal: Goal, fixed: Sequence[str], deadline: float) -> Trial:
    """Train one trial in a run folder, or resume there, and return it as finished or failed.

    Raises StoppedError and OSError, which end the search.
    """
    try:
        words = ["--trainer.enable_model_summary=false", *fixed, *flags(values), f"--run={run}"]
        lightning(["fit", *words, "--ckpt_path=last", "--test=false"], callbacks=[Deadline(deadline)])
        summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
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


def config_of(options: Sequence[str], values: Values, folder: Path) -> dict[str, Any]:
    """Build a training run and return its config.

    Raises ValueError for options with which there are no results, and for a folder among the images.
    """
    words = [*options, *flags(values)]
    check_beside(words, values)
    built = build(words)
    check_outside(folder, built.datamodule.dataset, "--folder")
    config: dict[str, Any] = yaml.safe_load(built.config_text())
    if built.draws_seed:
        raise ValueError("a search that is resumed would draw another seed; give a number: --seed_everything=1")
    if built.datamodule.validation == 0:
        raise ValueError(
            "a search needs validation images, and data.validation is 0: leave it out, or give a share such as 0.1"
        )
    if config["trainer"]["logger"] is False or config["trainer"]["fast_dev_run"]:
        raise ValueError(
            "a search reads the metrics of its runs: leave out --trainer.logger and --trainer.fast_dev_run"
        )
    if built.trainer.world_size > 1:
        raise ValueError(
            f"each trial is trained by one process, not by {built.trainer.world_size}: --trainer.devices=1; several "
            "searches in folders of their own can use several devices"
        )
    return config


def images_of(options: Mapping[str, Any]) -> dict[str, str]:
    """Return the identities of the training images of an ImageDataModule with these options, and of those held out."""
    data = ImageDataModule(**options)
    data.prepare_data()
    data.setup("validate")
    return {split: identity_of(data, split).sha256 for split in TRAINED_ON}


def state_of(options: Mapping[str, Any]) -> object:
    """Return what changes with the training images of a folder, without reading them; None for other data sets."""
    dataset = ImageDataModule(**options).dataset
    if not isinstance(dataset, ImageFolder):
        return None
    found = [dataset.files[split] for split in TRAINED_ON if split in dataset.files]
    return [(files, fingerprint([path for path, _ in files])) for files in found]


def check_images(
    name: str, trial: Trial, run: Path, data: Mapping[str, Any], images: dict[str, str], state: object
) -> None:
    """Raise ValueError unless a trial has ended with the training images of the search, whose identities are `images`.

    `data` are the options that read them; the values of the trial may read others. They are not read again if
    `state_of` still returns `state`. The run is removed if it was trained on images that have changed, but not because
    they cannot be read now.
    """
    trained = None if trial.measure is None else read_summary(run)["data"]["train"]["sha256"]
    known, outcome, problem = trained in (None, images["train"]), "does not count", "have changed"
    try:
        same = (state is not None and state_of(data) == state) or images_of(data) == images
        if same and (known or images_of(read_config(run)["data"])["train"] == trained):
            return
    except (ValueError, OSError) as error:
        problem = f"cannot be read: {first_line(error)}"
    else:
        if not known:
            shutil.rmtree(run)
            outcome = "is removed"
    raise ValueError(
        f"{name} {outcome}, because the training images {problem}; restore them, and the same command goes on"
    )


def check_beside(words: Sequence[str], values: Values) -> None:
    """Raise ValueError if one of the flags in `words` would replace an option within a searched value."""
    given = {word.partition("=")[0].replace(".init_args.", ".") for word in words}
    for name, value in values.items():
        for option in options_within(name, value):
            if f"--{option}" in given:
                raise ValueError(f"a value of {name} in the space has its own {option}; leave --{option} out")


def options_within(name: str, value: Any) -> Iterator[str]:
    """Yield the full names of the options within the value of an option; flags reach into the last item of a list."""
    if isinstance(value, list) and value:
        value = value[-1]
    if isinstance(value, Mapping):
        for option, inner in (value.get("init_args") or value).items():
            yield f"{name}.{option}"
            yield from options_within(f"{name}.{option}", inner)


def cell(value: Any) -> str:
    """Return a value as text for a table."""
    return f"{value:.3g}" if isinstance(value, float) else text_of(value)
