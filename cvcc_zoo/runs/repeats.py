"""Runs of one recipe: whether they repeat each other, their accuracies by seed, and the temperature of one of them."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cvcc_zoo.classifier.compatibility import check_classes
from cvcc_zoo.classifier.metrics import MONITORED
from cvcc_zoo.classifier.training_images import check_held_out
from cvcc_zoo.data import ImageDataModule
from cvcc_zoo.runs.calibration import fit_temperature
from cvcc_zoo.runs.changes import ELSEWHERE, OF_RECORDS, compare, flat
from cvcc_zoo.runs.scores import scores
from cvcc_zoo.runs.written import left_out, read_config, read_summary
from cvcc_zoo.weights.card import Card
from cvcc_zoo.weights.checkpoint import read_checkpoint
from cvcc_zoo.zoo.published import knows_its_training

OF_SEEDS = ("test_accuracy_of_seeds", "precision_of_seeds")
"""Entries of a card about runs with several seeds."""
HELD_OUT = (*ELSEWHERE, "data.validation", "data.split_seed", "trainer.max_epochs")
"""Options that may differ between a run and the run on whose validation images its temperature is fitted."""


def run_of(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return config and summary of a run. Raises FileNotFoundError if it has not ended, ValueError for broken files."""
    return read_config(folder), read_summary(folder)


def recipe(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a run that determine its weights, without the folders and loggers of this machine."""
    data = {key: value for key, value in config["data"].items() if key != "root"}
    trainer = {k: v for k, v in config["trainer"].items() if v is not None and k not in OF_RECORDS}
    keys = ("model", "weights", "optimizer", "lr_scheduler", "monitor")
    chosen = {key: config[key] for key in keys if config.get(key) not in (None, MONITORED[0])}
    return {**chosen, "data": data, "trainer": trainer}


def difference(run: Mapping[str, Any], card: Mapping[str, Any], may_differ: tuple[str, ...]) -> str | None:
    """Return the options in which the recipe of a run differs from that of a card, such as "data.batch_size", or None.

    An option that is younger than one of them has its default there. Names in `may_differ` also stand for what is
    below them.
    """
    before, now = flat(card), flat(run)
    for options in (before, now):
        options["data.whitening"] = options.get("data.whitening") or "standardize"
    back = compare(now, before)  # fills in the defaults of the run, and the other direction those of the card
    return ", ".join(name for name in compare(before, now) if name in back and not name.startswith(may_differ)) or None


def check_one_recipe(run: Path | str, about: Mapping[str, Any]) -> None:
    """Raise ValueError if a run was resumed with other options, given its summary or what a card says about it."""
    if changed := about.get("changed"):
        raise ValueError(
            f"{run} was resumed with other options ({changed}), so that its recipe alone did not make its weights; "
            "train the recipe in a new run, which may have other seeds and a temperature"
        )


def check_whole(run: Path, summary: Mapping[str, Any]) -> None:
    """Raise ValueError if a run was tested on some of the test images alone."""
    if left_out(summary):
        raise ValueError(
            f"{run} was tested on {summary['images']['test']:,} of {summary['data']['test']['images']:,} test images, "
            "so its accuracy is not compared with those of others; train it without --trainer.limit_test_batches, or "
            "leave out --repeats"
        )


def of_seeds(training: Mapping[str, Any], accuracy: float | None, test: str, runs: Sequence[Path]) -> dict[str, Any]:
    """Return the test accuracies by seed, fractions in [0, 1], and the precisions of the runs if they differ.

    Args:
        training: The entries of a card that say how the first weights were trained; it may already have other seeds.
        accuracy: The test accuracy of the first weights, None if they were not tested.
        test: The identity of the test images (sha256).
        runs: Folders of runs that repeat the training with other seeds.

    Raises ValueError for runs of another recipe, or that were resumed with one, on other images, with the same seed, or
    without a test of all images.

    """
    check_one_recipe("the published run", training)
    seed, precision, images = str(training["seed"]), training.get("precision"), training["train_set"]["sha256"]
    found = dict(training.get("test_accuracy_of_seeds") or {seed: accuracy})
    precisions = dict(training.get("precision_of_seeds") or dict.fromkeys(found, precision))
    for path in runs:
        config, summary = run_of(path)
        check_one_recipe(path, summary)
        check_whole(path, summary)
        sets, mine = summary["data"], str(summary["seed"])
        why = None
        if (name := difference(recipe(config), training["recipe"], ELSEWHERE)) is not None:
            why = f"its recipe has another {name}"
        elif sets["train"]["sha256"] != images:
            why = "it was trained on other images"
        elif sets.get("test", {}).get("sha256", test) != test:
            why = "it was tested on other images"
        elif mine in found:
            why = f"the accuracy of seed {mine} is known already"
        if why is not None:
            raise ValueError(f"{path} does not repeat the training with another seed: {why}")
        found[mine], precisions[mine] = summary["test_accuracy"], summary["precision"]
    if untested := [seed for seed, each in found.items() if each is None]:
        raise ValueError(
            f"the runs of the seeds {', '.join(untested)} were trained with --test=false and have no test accuracy; "
            "test them: `cvcc-zoo fit --config=RUN/config.yaml --ckpt_path=last --test=true`, or leave out --repeats"
        )
    differ = len(set(precisions.values())) > 1
    return {"test_accuracy_of_seeds": found, **({"precision_of_seeds": precisions} if differ else {})}


def of_one_training(there: Card, card: Card, test: str) -> bool:
    """Return whether two cards are of the same training, and the first was measured on the test images `test`."""
    same = all(there.training.get(name) == card.training[name] for name in ("finished", "seed"))
    return same and knows_its_training(there) and there.measured["test_set"]["sha256"] == test


def with_seeds_of(there: Card, card: Card) -> Card:
    """Return a card with the accuracies of seeds of an earlier one of its training, unless it has its own."""
    seeds = {name: there.training[name] for name in OF_SEEDS if name in there.training}
    return card if OF_SEEDS[0] in card.training else dataclasses.replace(card, training=card.training | seeds)


def replaced(there: Card, card: Card, *, same: bool) -> str:
    """Return in words what a card does not have of the one that it replaces; `same` if both are of one training."""
    seeds = there.training.get(OF_SEEDS[0]) or {} if knows_its_training(there) else {}
    lost = [] if same else [f"the weights of the training that ended {there.training.get('finished')}"]
    lost += [f"the accuracies of {len(seeds)} seeds"] if set(seeds) - set(card.training.get(OF_SEEDS[0], {})) else []
    words = {"calibration": "the temperature", "corruptions": "the accuracy under corruption"}
    lost += [text for name, text in words.items() if name in there.measured and name not in card.measured]
    return f"this replaces {', '.join(lost)}" if lost else ""


def temperature_of(run: Path, training: Mapping[str, Any], root: str = "") -> dict[str, Any]:
    """Return the temperature that fits the validation images of a run best, and a description of them.

    `training` has the recipe of the weights that take this temperature, and `root` is the folder of the images if it is
    no longer where the run's config.yaml says. Raises ValueError for a run of another recipe, or that was resumed
    with one, of other images, or without validation images.
    """
    config, summary = run_of(run)
    for what, about in (("the published run", training), (run, summary)):
        check_one_recipe(what, about)
    if (name := difference(recipe(config), training["recipe"], HELD_OUT)) is not None:
        raise ValueError(f"{run} has another recipe than the published run: its {name} differs")
    data, images = data_of(config, root), training["train_set"]["sha256"]
    if not data.validation:
        raise ValueError(f"{run} has no validation images; train the recipe with --data.validation=0.1")
    if summary["data"]["train"]["sha256"] != images:
        raise ValueError(f"{run} was trained on other images than the published run; give one that was trained on them")
    weights = read_checkpoint(run)
    model = weights.model
    check_classes(model, data)  # the labels in the model's order, because the identity depends on them
    check_held_out(run, weights.images, data, "or give their folder: --root=...")
    logits, labels = scores(model, data, split="val")
    fitted = f"{len(labels):,} validation images of a training of {summary['epochs']} epochs, seed {summary['seed']}"
    return {"temperature": round(fit_temperature(logits, labels), 4), "fitted_on": fitted}


def data_of(config: Mapping[str, Any], root: str = "") -> ImageDataModule:
    """Return the data of a run; `root` is their folder if it is no longer where the run's config.yaml says."""
    return ImageDataModule(**{**config["data"], **({"root": root} if root else {})})
