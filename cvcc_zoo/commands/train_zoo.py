"""`cvcc-zoo train-zoo`: train a folder of recipes within a time limit, resume them, and publish their weights."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.table import Table

from cvcc_zoo.cli.arguments import parse, rewrite
from cvcc_zoo.cli.imports import program
from cvcc_zoo.cli.lightning import ZooCLI, build
from cvcc_zoo.cli.lightning import main as lightning
from cvcc_zoo.cli.options import parser as parser_of
from cvcc_zoo.cli.parsing import ZooParser, call_with, function_parser
from cvcc_zoo.cli.recipes import recipe_folder
from cvcc_zoo.commands.publish import publish
from cvcc_zoo.files.own import expanded, home, in_command, shown
from cvcc_zoo.printing import say
from cvcc_zoo.printing.console import PlainConsole
from cvcc_zoo.printing.progress import duration
from cvcc_zoo.registry import check_known
from cvcc_zoo.runs import Compile, Deadline, StoppedError, changed_options
from cvcc_zoo.runs.intervals import with_interval
from cvcc_zoo.runs.run_folder import CONFIG
from cvcc_zoo.runs.written import SUMMARY, read_config, read_summary
from cvcc_zoo.timing import fast_precision
from cvcc_zoo.weights.card import Card, read_card
from cvcc_zoo.zoo.catalogue import name_of, operations

PASSED = ("--data.", "--trainer.", "--allow_changes")


@dataclass(frozen=True)
class Job:
    """A recipe with a seed, and its run folder; the weights of the first seed are published."""

    recipe: Path
    model: str
    tag: str
    seed: int
    run: Path

    @property
    def finished(self) -> bool:
        """True if training has ended."""
        return (self.run / SUMMARY).is_file()

    def precision(self) -> str:
        """Return the precision of the recipe, or of a run that has begun, or the one that is fast on this machine."""
        named = parse(parser_of("fit"), rewrite([f"--config={self.recipe}"], "fit")).trainer.precision
        if named is not None:
            return str(named)
        if not (self.run / CONFIG).is_file():
            return fast_precision()
        return str(read_config(self.run)["trainer"].get("precision") or "null")

    def path(self, folder: Path) -> Path:
        """Return the path of the card of these weights in a folder."""
        return folder / f"{self.model}.{self.tag}.json"

    def card(self, folder: Path) -> Card | None:
        """Return the card in a folder that has the name of these weights; None unless it is that of this run."""
        path = self.path(folder)
        if not (self.finished and path.is_file()):
            return None
        card = read_card(path)
        return card if card.training.get("finished") == read_summary(self.run).get("finished") else None


def train_zoo(
    minutes: float = 60,
    recipes: str = "configs/cifar10",
    only: list[str] | None = None,
    seeds: int = 1,
    dataset: str = "",
    runs: str = "runs/zoo",
    folder: str = "",
    precision: str = "",
    compile: bool | None = None,
    options: list[str] | None = None,
) -> int:
    """Train recipes one after the other within a time limit, and publish the weights of each that is finished.

    They are trained on all training images, unless --data.validation says otherwise. Training that does not finish
    stops with a checkpoint, and the same command resumes it, bit for bit. With several seeds the weights of the
    first one are published, and the card has the test accuracies of all.

    Args:
        minutes: The time limit in minutes; a step or test that has begun is finished.
        recipes: A folder of recipes, your own or one of the package (cifar10); each has the name of its model, and the
            names of the weights end with that of the folder, the data set.
        only: Models to train, in this order; by default all in the folder, those with the fewest operations first.
        seeds: Train each recipe with the seeds 0, 1, ...
        dataset: The data set in words for the cards, such as "my photographs of birds"; the default is that of publish.
        runs: The folder of the run folders.
        folder: The folder for weights and cards; by default $CVCC_ZOO_HOME.
        precision: 32-true or bf16-mixed; by default that of the recipe or of a run that has begun, and otherwise
            bf16-mixed if a measurement shows that it is faster.
        compile: Compile the networks; by default on a GPU, where their kernels are replayed as CUDA graphs.
        options: More options of `cvcc-zoo fit`, such as data.root=...; --data.root=... does the same. A run that has
            begun or is finished refuses other options than before, or takes them with --allow_changes=true.

    """
    if minutes <= 0 or seeds < 1:
        raise ValueError(f"give minutes above 0 and at least one seed, not {minutes:g} and {seeds}")
    deadline = time.monotonic() + 60 * minutes
    given = [f"--{option}" for option in options or []]
    if precision:
        given.append(f"--trainer.precision={precision}")
    place = recipe_folder(recipes)
    found, tag = models(place, only, given), place.resolve().name  # a folder such as . has no name of its own
    jobs = {
        model: [Job(path, model, tag, seed, expanded(runs) / f"{model}-{tag}-{seed}") for seed in range(seeds)]
        for model, path in found.items()
    }
    root = next((option.partition("=")[2] for option in reversed(given) if option.startswith("--data.root=")), "")
    code = 0
    target = expanded(folder) if folder else home("CVCC_ZOO_HOME")
    try:
        for mine in jobs.values():
            first, *others = mine
            for job in mine:
                train(job, given, deadline, torch.cuda.is_available() if compile is None else compile)
            card = first.card(target)
            if card is None:
                again = [str(job.run) for job in others]
                publish(str(first.run), tag=first.tag, dataset=dataset, folder=str(target), repeats=again, root=root)
            elif new := [str(job.run) for job in mine if str(job.seed) not in seeds_in(card)]:
                publish(str(first.path(target)), repeats=new)
    except StoppedError as over:
        PlainConsole(soft_wrap=True).print(str(over))
        code = over.code
    PlainConsole().print(overview(jobs, target))
    return code


def models(recipes: Path, only: Sequence[str] | None, options: Sequence[str]) -> dict[str, Path]:
    """Return the recipes of a folder by model, in the order of `only`, or by multiply-accumulate operations.

    `options` are those of `cvcc-zoo fit`. Raises ValueError for a name without a recipe, and as `checked_model` does.
    """
    found = {path.stem: path for path in sorted(recipes.glob("*.yaml"))}
    check_known(f"recipe in {recipes}", found, *(only or []))
    built = {name: checked_model(found[name], options) for name in only or found}
    return {name: found[name] for name in only or sorted(found, key=lambda name: operations(*built[name]))}


def checked_model(recipe: Path, options: Sequence[str]) -> tuple[str, dict[str, Any]]:
    """Return the family and the options of a recipe's model.

    Raises ValueError unless the recipe has the name of its model, after which its weights are named.
    """
    model = parse(parser_of("fit"), rewrite([f"--config={recipe}", *options], "fit")).model
    family, given = model.class_path.rpartition(".")[2], model.init_args.as_dict()
    name = name_of(family, given)
    if name != recipe.stem:
        raise ValueError(
            f"{shown(recipe)} trains the model {name}, and its weights would be named so; leave it out "
            f"(--only='[...]'), or train it with `{' '.join(program())} fit --config={in_command(recipe)}` and publish "
            "its run with --tag=..."
        )
    return family, given


class Options(ZooCLI):
    """The options of a command alone: no model, data or trainer is built, and no checkpoint or weights are read."""

    def _read_checkpoint(self) -> None:
        pass

    def instantiate_classes(self) -> None:
        """Build nothing."""

    def after_instantiate_classes(self) -> None:
        """Load no weights."""


def train(job: Job, given: Sequence[str], deadline: float, compile: bool) -> None:
    """Start or resume training, with the `given` options of `cvcc-zoo fit`, unless it is finished with the same ones.

    Raises StoppedError once the time limit is reached, and ValueError for options that differ from those before or that
    start several processes, of which each would publish.
    """
    args = [f"--config={job.recipe}", "--data.validation=0", f"--trainer.precision={job.precision()}", *given]
    args += [f"--seed_everything={job.seed}", f"--run={job.run}", "--ckpt_path=last"]
    written = (job.run / CONFIG).read_text(encoding="utf-8") if job.finished else ""
    if job.finished and not changed_options(written, Options("fit", args).config_text()):
        return
    if time.monotonic() > deadline:
        raise StoppedError(f"the time limit is reached before {job.run.name}")
    say(f"{job.run}: {duration(deadline - time.monotonic())} of the time left")
    if (processes := build(args).trainer.world_size) > 1:
        raise ValueError(f"each recipe is trained by one process, not by {processes}: --trainer.devices=1")
    callbacks = [Deadline(deadline), *([Compile()] if compile else [])]
    lightning(["fit", *args], callbacks=callbacks)


def seeds_in(card: Card) -> set[str]:
    """Return the seeds whose test accuracies a card has."""
    return {str(card.training["seed"]), *card.training.get("test_accuracy_of_seeds", {})}


def overview(jobs: dict[str, list[Job]], target: Path) -> Table:
    """Return a table with the state and the accuracies of each model."""
    table = Table(title=f"weights in {target}", caption="in parentheses: 95 % interval")
    for column in ("model", "state", "test accuracy", "seeds", "epochs", "training"):
        table.add_column(column, overflow="fold")
    for model, mine in jobs.items():
        summaries = [read_summary(job.run) for job in mine if job.finished]
        card = mine[0].card(target)
        state = "published" if card else "trained" if len(summaries) == len(mine) else "waiting"
        if state == "waiting" and any((job.run / "last.ckpt").is_file() for job in mine):
            state = "begun"
        measured = card.measured if card else None
        accuracy = with_interval(measured["correct"], measured["test_images"]) if measured else "-"
        found = [summary["test_accuracy"] for summary in summaries]
        spread = "not tested" if None in found else "-"
        if len(found) > 1 and None not in found:
            scores = torch.tensor(found, dtype=torch.float64)
            spread = f"{100 * scores.mean():.2f} ± {100 * scores.std():.2f} %"
        epochs = ", ".join(dict.fromkeys(str(summary["epochs"]) for summary in summaries)) or "-"
        seconds = sum(summary["train_seconds"] for summary in summaries)
        table.add_row(model, state, accuracy, spread, epochs, f"{seconds / 60:.1f} min")
    return table


def parser() -> ZooParser:
    """Return the parser of the command."""
    return function_parser("train-zoo", "[options]", train_zoo)


def main(args: Sequence[str]) -> int:
    """Run the command; options of data and trainer go to `cvcc-zoo fit`."""
    own: list[str] = []
    passed: list[str] = []
    for before, word in zip(["", *args], args, strict=False):
        if word.startswith(PASSED):
            passed.append(word.removeprefix("--"))
        elif before.startswith(PASSED) and "=" not in before and not word.startswith("--"):
            passed[-1] += f"={word}"
        else:
            own.append(word)
    return int(call_with(parser(), train_zoo, own, passed))
