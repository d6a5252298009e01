"""`cvcc-zoo search`: train with many values of some options, and find the best on the validation images."""

import math
import shlex
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from rich.table import Table

from cvcc_zoo.cli.lightning import build
from cvcc_zoo.cli.lightning import main as lightning
from cvcc_zoo.cli.parsing import ZooParser, call_with, function_parser
from cvcc_zoo.cli.passing import split
from cvcc_zoo.files.own import write_picture
from cvcc_zoo.plots import Figure, plot_search
from cvcc_zoo.plots.trials import LINEAR, LOGARITHMIC, Axis
from cvcc_zoo.printing.console import PlainConsole
from cvcc_zoo.printing.notices import only_warnings
from cvcc_zoo.printing.progress import Display
from cvcc_zoo.runs import Deadline, StoppedError, stopped_by_signals
from cvcc_zoo.search import (
    OWN,
    Choice,
    Goal,
    Space,
    Trial,
    Values,
    as_record,
    check_record,
    flags,
    make_method,
    number_of_trials,
    own_folder,
    parse_space,
    plain,
    read_trials,
    text_of,
    unusual,
)
from cvcc_zoo.search import search as trials_of

BEST = 10


def search(
    folder: str,
    space: str,
    method: str = "random",
    trials: int | None = None,
    minutes: float | None = None,
    measure: str = "val/accuracy",
    epoch: str = "best",
    seed: int = 0,
    options: list[str] | None = None,
) -> int:
    """Train with many values of some options, and show which are best on the validation images.

    All options of `cvcc-zoo fit` can be given, too; they apply to every trial. The same command resumes a search that
    was stopped. The test images are never used.

    Args:
        folder: The folder of the search, with a run folder for each trial, and their results in trials.jsonl.
        space: The options to search, as YAML or as the path of a YAML file: names of options of `cvcc-zoo fit`, each
            with values or a range, such as {optimizer.lr: {from: 1e-4, to: 1e-1, log: true}, model: [linear, cnn]}.
            A range from 1 to 8 has whole numbers only, one from 1.0 to 8.0 all numbers; steps: 4 makes it a list.
        method: random, grid (all values; ranges need steps) or optuna (near the best earlier trials).
        trials: Number of training runs; by default 20, or all of a grid.
        minutes: The time limit in minutes, by default none. A step that has begun is finished.
        measure: val/accuracy (higher is better) or val/loss (lower is better).
        epoch: The epoch of a training run that counts: best or last.
        seed: The seed of the values; that of training is --seed_everything.
        options: Options of `cvcc-zoo fit` as a list; equivalent to giving them directly.

    """
    if minutes is not None and not minutes > 0:
        raise ValueError(f"give minutes above 0, not {minutes:g}")
    deadline = math.inf if minutes is None else time.monotonic() + 60 * minutes
    target, found, goal = Path(folder).expanduser(), parse_space(space), Goal(measure, epoch)
    chosen = make_method(method, found, seed, goal, target)
    count = number_of_trials(chosen, trials)
    fixed, code = options or [], 0
    console = PlainConsole(soft_wrap=True)

    def train(values: Values, run: Path) -> None:
        words = ["--trainer.enable_model_summary=false", *fixed, *flags(values)]
        words += [f"--run={run}", "--ckpt_path=last", "--test=false"]
        lightning(["fit", *words], callbacks=[Deadline(deadline)])

    with own_folder(target), only_warnings():
        try:
            with stopped_by_signals():
                configs = [config_of(fixed, values) for values in unusual(found)]
                how = {"space": plain(found), "method": method, "seed": seed, "measure": measure, "epoch": epoch}
                check_record(target, as_record(how, configs[0]))
                whole = Display("trials", count, len(read_trials(target)), until=deadline)
                for event in trials_of(target, chosen, goal, train, count, deadline):
                    left = whole.left(event.number + 1) if isinstance(event, Trial) else ""
                    console.print(told(event, count, goal) + (left and f", {left} left in all"))
        except StoppedError as stop:
            console.print(f"{stop}\nthe same `cvcc-zoo search` resumes")
            code = stop.code
        done = read_trials(target)
        best = goal.ranked(done)
        console.print(overview(best, done, count, goal, target))
        if best:
            write_picture(target / "search.png", picture(found, best, goal))
            again = shlex.join(["cvcc-zoo", "fit", *fixed, *flags(best[0].values), "--data.validation=0"])
            console.print(f"the best values on all training images:\n{again}")
    return code if best or code else int(len(done) == count)


def picture(space: Space, trials: Sequence[Trial], goal: Goal) -> Figure:
    """Return a figure of the measure over each searched option."""
    axes: dict[str, Axis] = {}
    values: dict[str, list[Any]] = {name: [trial.values[name] for trial in trials] for name in space}
    for name, found in space.items():
        if isinstance(found, Choice):
            axes[name] = [cell(value) for value in found.values]
            texts = [text_of(value) for value in found.values]
            values[name] = [texts.index(text_of(value)) for value in values[name]]
        else:
            axes[name] = LOGARITHMIC if found.log else LINEAR
    percent = goal.measure == "val/accuracy"
    scores = [(100 if percent else 1) * trial.measure for trial in trials if trial.measure is not None]
    return plot_search(values, axes, scores, f"{goal.measure} (%)" if percent else goal.measure)


def config_of(options: Sequence[str], values: Values) -> dict[str, Any]:
    """Build a training run and return its config. Raises ValueError for options that a search cannot use."""
    built = build([*options, *flags(values)])
    config: dict[str, Any] = yaml.safe_load(built.config_text())
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


def told(event: tuple[int, Values] | Trial, count: int, goal: Goal) -> str:
    """Return a line about the start or the end of a trial."""
    if isinstance(event, Trial):
        came = f"failed: {event.message}" if event.measure is None else f"{goal.measure} {goal.shown(event.measure)}"
        return f"trial {event.number:03}: {came}"
    number, values = event
    with_values = ", ".join(f"{name} {cell(value)}" for name, value in values.items())
    return f"trial {number:03}, {number + 1} of {count}: {with_values}"


def cell(value: Any) -> str:
    """Return a value as text for a table."""
    return f"{value:.3g}" if isinstance(value, float) else text_of(value)


def overview(best: Sequence[Trial], done: Sequence[Trial], count: int, goal: Goal, folder: Path) -> Table:
    """Return a table of the best trials in order; its title has the number of failed ones."""
    failed = f", {len(done) - len(best)} failed" if len(done) > len(best) else ""
    table = Table(title=f"{folder}: {len(done)} of {count} trials ended{failed}")
    names = list(done[0].values) if done else []
    for column in ("rank", "trial", *names, goal.measure, "epochs", "seconds"):
        heading = column.replace(".", ".\n").replace("/", "/\n")
        table.add_column(heading, justify="left" if column in names else "right", overflow="fold")
    for rank, trial in enumerate(best[:BEST], start=1):
        values = [cell(value) for value in trial.values.values()]
        measured = [goal.shown(trial.measure or 0.0), str(trial.epochs), f"{trial.seconds or 0.0:.1f}"]
        table.add_row(str(rank), f"{trial.number:03}", *values, *measured)
    return table


@cache
def parser() -> ZooParser:
    """Return the parser of the command."""
    return function_parser("search", "--folder=FOLDER --space=SPACE [options]", search, config=False)


def main(args: Sequence[str]) -> int:
    """Run the command; options that are not its own are those of `cvcc-zoo fit`."""
    refused = [name for name in OWN if name != "config"]
    own = split(args, "search", search, refused, "a search sets this option for each of its trials")
    return int(call_with(parser(), search, own))
