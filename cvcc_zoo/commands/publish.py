"""`cvcc-zoo publish RUN`: write the weights of a run to a file, and a card with numbers measured from that file."""

import dataclasses
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal

import torch

from cvcc_zoo.classifier.compatibility import check_classes
from cvcc_zoo.classifier.metrics import MONITORED
from cvcc_zoo.cli.parsing import ZooParser, call_with, function_parser
from cvcc_zoo.data import ImageDataModule
from cvcc_zoo.data.identity import find_known, identity_of
from cvcc_zoo.data.known import KNOWN, Known
from cvcc_zoo.printing.console import PlainConsole
from cvcc_zoo.runs.calibration import fit_temperature
from cvcc_zoo.runs.intervals import with_interval
from cvcc_zoo.runs.measure import correct, measure
from cvcc_zoo.runs.scores import scores
from cvcc_zoo.runs.written import read_config, read_summary
from cvcc_zoo.weights.card import folders, read, write
from cvcc_zoo.weights.checkpoint import read_checkpoint
from cvcc_zoo.zoo.creation import load
from cvcc_zoo.zoo.published import make_card

TRAINING = ("epochs", "steps", "train_seconds", "images_per_second", "hardware", "precision", "seed", "split_seed",
            "val_accuracy", "last_epoch", "tested", "commit", "versions", "finished")  # fmt: skip
DTYPES = {"float16": torch.float16, "float32": torch.float32}
MAY_DIFFER = ("validation", "split_seed", "max_epochs", "precision", "enable_progress_bar", "dataset")
"""Options that may differ between a run and the run on whose validation images its temperature is fitted."""
ALLOWED = 1  # number of correct test images that half precision may lose


def publish(
    run: str,
    tag: str = "",
    dataset: str = "",
    license: str = "MIT",
    folder: str = "",
    repeats: list[str] | None = None,
    calibrate: str = "",
    root: str = "",
    dtype: Literal["auto", "float16", "float32"] = "auto",
) -> None:
    """Publish the weights of a run: the best by validation, or the last if there were no validation images.

    The numbers of the card are measured from the published file.

    Args:
        run: The run folder.
        tag: The name of the data set in the name of the weights, such as cifar10; by default that of the images if the
            package knows them, or that of the run.
        dataset: The data set in words, such as "my photographs of birds"; by default `tag`, and CIFAR-10 only for the
            original images.
        license: License of the weights.
        folder: The folder for file and card; by default $CVCC_ZOO_HOME, where create() finds them.
        repeats: Folders of runs of the same recipe with other seeds; their test accuracies are added to the card.
        calibrate: Folder of a run of the same recipe with validation images: the temperature that fits them best is
            added to the card. By default it is that of the run, if `cvcc-zoo calibrate` fitted one.
        root: The folder of the data set, if it is no longer where the run's config.yaml says.
        dtype: float16, float32, or auto, which is float16 unless that loses more than one correct test image.

    """
    source = Path(run).expanduser()
    config, summary = run_of(source)
    data, weights = ImageDataModule(**{**config["data"], **({"root": root} if root else {})}), read_checkpoint(source)
    model = weights.model
    check_classes(model, data)
    train = identity_of(data, "train")
    check_unchanged(source, summary, train.sha256)
    known = find_known(train.sha256, identity_of(data, "test").sha256)
    tag = tag or (known.tag if known else summary["dataset"])
    training = {"recipe": recipe(config), "images": summary["images"]["train"], "train_set": train.plain()}
    training |= {name: summary.get(name) for name in TRAINING}
    if repeats:
        training["test_accuracy_of_seeds"] = of_seeds(config, summary, [Path(path).expanduser() for path in repeats])
    fitted = temperature_of(Path(calibrate).expanduser(), config) if calibrate else weights.calibration
    calibration = {"calibration": dict(fitted)} if fitted else {}
    card = make_card(
        model,
        tag,
        data.classes,
        dataset=in_words(dataset, tag, known),
        measured=calibration,
        training=training,
        license=license,
    )
    tensors = model.state_dict()
    with tempfile.TemporaryDirectory() as trial:
        models = {name: load(write(Path(trial), card, tensors, dtype=each)) for name, each in DTYPES.items()}
    half, full = (correct(*scores(each, data)) for each in models.values())
    if dtype == "auto":
        dtype = "float16" if half >= full - ALLOWED else "float32"
    measured = measure(models[dtype], data, mirrored=data.dataset.mirror)
    card = dataclasses.replace(card, measured=measured | calibration)
    target = write(Path(folder).expanduser() if folder else folders()[1], card, tensors, dtype=DTYPES[dtype])
    kept, _ = read(target)
    PlainConsole(soft_wrap=True).print(
        f"{kept.name}: test accuracy {with_interval(kept.measured['correct'], kept.measured['test_images'])} of "
        f"{kept.measured['test_images']:,} images, {kept.size / 1e6:.2f} MB as {dtype} "
        f"(correct in half precision: {half:,}, in full: {full:,})\nwritten to {target}"
    )
    if summary["test_accuracy"] is None:
        PlainConsole(soft_wrap=True).print(
            f"{source} was trained with --test=false: the test images were first used now"
        )


def run_of(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return config and summary of a run. Raises FileNotFoundError if it has not ended, ValueError for broken files."""
    return read_config(folder), read_summary(folder)


def of_seeds(config: dict[str, Any], summary: dict[str, Any], repeats: Sequence[Path]) -> dict[str, float]:
    """Return the test accuracies by seed, fractions in [0, 1].

    Raises ValueError for runs of another recipe, with the same seed, or without a test.
    """
    found = {str(summary["seed"]): summary["test_accuracy"]}
    for path in repeats:
        other, result = run_of(path)
        if recipe(other) != recipe(config) or str(result["seed"]) in found:
            raise ValueError(f"{path} does not repeat the run: it has another recipe, or the same seed")
        found[str(result["seed"])] = result["test_accuracy"]
    if untested := [seed for seed, accuracy in found.items() if accuracy is None]:
        raise ValueError(
            f"the runs of the seeds {', '.join(untested)} were trained with --test=false and have no test accuracy; "
            "test them: `cvcc-zoo fit --config=RUN/config.yaml --ckpt_path=last --test=true`, or leave out --repeats"
        )
    return found


def check_unchanged(run: Path, summary: dict[str, Any], train: str) -> None:
    """Raise ValueError if the training images are not those that the run was trained on."""
    before = summary.get("data", {}).get("train", {}).get("sha256", train)
    if before != train:
        raise ValueError(
            f"the training images are not those that {run} was trained on (sha256 {train[:12]}..., then "
            f"{before[:12]}...); restore them, or give their folder: --root=..."
        )


def in_words(dataset: str, tag: str, known: Known | None) -> str:
    """Return the data set of a card in words. Raises ValueError for the name of another data set that is known."""
    if known is not None and not dataset:
        return known.title
    for other in KNOWN:
        if other != known and dataset.casefold() == other.title.casefold():
            raise ValueError(f"these are not the images of {other.title}; choose another --dataset=... for them")
        if other != known and not dataset and tag == other.tag:
            return f"{tag} (other images than {other.title})"
    return dataset or tag


def temperature_of(run: Path, config: dict[str, Any]) -> dict[str, Any]:
    """Return the temperature that fits the validation images of a run best, and a description of them.

    Raises ValueError for a run of another recipe or without validation images.
    """
    other, summary = run_of(run)
    if (name := difference(recipe(other), recipe(config))) is not None:
        raise ValueError(f"{run} has another recipe than the published run: its {name} differs")
    if not other["data"]["validation"]:
        raise ValueError(f"{run} has no validation images; train the recipe with --data.validation=0.1")
    logits, labels = scores(load(run), ImageDataModule(**other["data"]), split="val")
    fitted = f"{len(labels):,} validation images of a training of {summary['epochs']} epochs, seed {summary['seed']}"
    return {"temperature": round(fit_temperature(logits, labels), 4), "fitted_on": fitted}


def difference(one: dict[str, Any], other: dict[str, Any]) -> str | None:
    """Return the name of a part in which two recipes differ, apart from MAY_DIFFER, or None."""
    for part in one | other:
        mine, theirs = (
            {k: v for k, v in each.items() if k not in MAY_DIFFER} if isinstance(each, dict) else each
            for each in (one.get(part), other.get(part))
        )
        if mine != theirs:
            return part
    return None


def recipe(config: dict[str, Any]) -> dict[str, Any]:
    """Return the options of a run that determine its weights; folders of this machine are left out."""
    data = {key: value for key, value in config["data"].items() if key != "root"}
    trainer = {k: v for k, v in config["trainer"].items() if v is not None and k != "default_root_dir"}
    keys = ("model", "weights", "optimizer", "lr_scheduler", "monitor")
    chosen = {key: config[key] for key in keys if config.get(key) not in (None, MONITORED[0])}
    return {**chosen, "data": data, "trainer": trainer}  # older configs have no monitor


@cache
def parser() -> ZooParser:
    """Return the parser of the command."""
    return function_parser("publish", "RUN [options]", publish)


def main(args: Sequence[str]) -> int:
    """Run the command."""
    call_with(parser(), publish, args)
    return 0
