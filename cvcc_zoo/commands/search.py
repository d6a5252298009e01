"""`cvcc-zoo search`: train with many values of some options, and find the best on the validation images."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from cvcc_zoo.cli.imports import program
from cvcc_zoo.cli.lightning import ZooCLI, build
from cvcc_zoo.cli.parsing import ZooParser, call_with, function_parser
from cvcc_zoo.cli.passing import split
from cvcc_zoo.files.own import expanded, write_picture
from cvcc_zoo.internals.lightning import callbacks_of
from cvcc_zoo.plots import Figure, plot_search
from cvcc_zoo.plots.trials import LINEAR, LOGARITHMIC, Axis
from cvcc_zoo.printing.console import PlainConsole
from cvcc_zoo.printing.notices import only_warnings
from cvcc_zoo.search.goal import Goal
from cvcc_zoo.search.methods import make_method, number_of_trials
from cvcc_zoo.search.record import Trial, own_folder, read_trials
from cvcc_zoo.search.running import Searched, cell, deadline_after, run_trials
from cvcc_zoo.search.space import OWN, Choice, Space, flags, parse_space, plain, text_of

BEST = 10
KIND = "search"


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

    Other options of `cvcc-zoo fit` can be given, too; they apply to every trial. The same command resumes a search that
    was stopped. The test images are never used.

    Args:
        folder: The folder of the search, with a run folder for each trial, and their results in trials.jsonl.
        space: The options to search, as YAML or as the path of a YAML file: names of options of `cvcc-zoo fit`, each
            with values or a range, such as {optimizer.lr: {from: 1e-4, to: 1e-1, log: true}, model: [linear, cnn]}.
            A range from 1 to 8 has whole numbers only, one from 1.0 to 8.0 all numbers; steps: 4 makes it a list.
        method: random, grid (all values; ranges need steps) or optuna (near the best earlier trials).
        trials: Number of training runs; by default 20, or all of a grid.
        minutes: The time limit in minutes, by default none. A step that has begun is finished.
        measure: The metric that decides: val/accuracy, val/loss, val/f1 (macro), val/balanced_accuracy, val/log_loss,
            val/brier_score, val/calibration_error, or from 20 classes on val/top5_accuracy.
        epoch: The epoch of a training run that counts: best or last.
        seed: The seed of the values; that of training is --seed_everything.
        options: Options of `cvcc-zoo fit` as a list; equivalent to giving them directly.

    """
    deadline = deadline_after(minutes)
    target, found, goal = expanded(folder), parse_space(space), Goal(measure, epoch)
    chosen = make_method(method, found, seed, goal, target)
    count = number_of_trials(chosen, trials)
    fixed, console = options or [], PlainConsole(soft_wrap=True)
    with own_folder(target, KIND), only_warnings():
        how = {"space": plain(found), "method": method, "seed": seed, "measure": measure, "epoch": epoch}
        searched = Searched(KIND, target, found, how, goal, count, fixed)
        code = run_trials(searched, chosen, deadline, console)
        done = read_trials(target)
        best = goal.ranked(done)
        console.print(overview(best, done, count, goal, target))
        if best:
            write_picture(target / "search.png", picture(found, best, goal))
            given = [*fixed, *flags(best[0].values)]
            fit = shlex.join([*program(), "fit", *given])
            if watches_validation(build(given)):
                console.print(f"the best values, with the validation images that they watch:\n{fit}")
            else:
                console.print(f"the best values on all training images:\n{fit} --data.validation=0")
    return code if best or code else int(len(done) == count)


def watches_validation(built: ZooCLI) -> bool:
    """Return whether a training run depends on its validation images, beyond the choice of the best weights."""
    schedule, solver = built.model.hparams["lr_scheduler"] or {}, getattr(built.model, "solver", None)
    watched = [getattr(each, "monitor", None) for each in callbacks_of(built.trainer)]
    if schedule.get("name") == "ReduceLROnPlateau":
        watched.append(schedule.get("monitor", "val/loss"))
    chosen = solver is not None and solver.ridge.by == "validation"
    return chosen or any(str(name).startswith("val/") for name in watched)


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
    scores = [(100 if goal.percent else 1) * trial.measure for trial in trials if trial.measure is not None]
    return plot_search(values, axes, scores, f"{goal.measure} (%)" if goal.percent else goal.measure)


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


def parser() -> ZooParser:
    """Return the parser of the command."""
    return function_parser("search", "--folder=FOLDER --space=SPACE [options]", search, config=False)


def main(args: Sequence[str]) -> int:
    """Run the command; options that are not its own are those of `cvcc-zoo fit`."""
    refused = [name for name in OWN if name != "config"]
    own, passed = split(args, "search", search, refused, "a search sets this option for each of its trials")
    return int(call_with(parser(), search, own, passed))
