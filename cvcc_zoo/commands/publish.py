"""`cvcc-zoo publish RUN`: write the weights of a run to a file, and a card with numbers measured from that file."""

import dataclasses
import tempfile
from collections.abc import Sequence
from inspect import signature
from pathlib import Path
from typing import Any, Literal

import torch

from cvcc_zoo.classifier.compatibility import check_classes
from cvcc_zoo.classifier.training_images import check_trained_on
from cvcc_zoo.cli.parsing import ZooParser, call_with, function_parser
from cvcc_zoo.data.identity import find_known, identity_of
from cvcc_zoo.data.known import KNOWN, Known
from cvcc_zoo.files.own import expanded, home, in_command, one_at_a_time
from cvcc_zoo.printing.console import PlainConsole
from cvcc_zoo.runs.intervals import with_interval
from cvcc_zoo.runs.measure import correct, measure, unlike_summary, with_temperature
from cvcc_zoo.runs.repeats import (
    check_whole,
    data_of,
    of_one_training,
    of_seeds,
    recipe,
    replaced,
    run_of,
    temperature_of,
    with_seeds_of,
)
from cvcc_zoo.runs.run_folder import CONFIG
from cvcc_zoo.runs.scores import scores
from cvcc_zoo.runs.written import SUMMARY, left_out
from cvcc_zoo.weights.card import Card, change_card, list_cards, read, read_card, write
from cvcc_zoo.weights.checkpoint import read_checkpoint
from cvcc_zoo.zoo.creation import load
from cvcc_zoo.zoo.names import resolve_trained
from cvcc_zoo.zoo.published import check_place, knows_its_training, make_card

TRAINING = ("epochs", "steps", "train_seconds", "images_per_second", "hardware", "winograd", "precision", "seed",
            "split_seed", "val_accuracy", "last_epoch", "tested", "commit", "versions", "finished")  # fmt: skip
DTYPES = {"float16": torch.float16, "float32": torch.float32}
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
        run: The run folder; or published weights, to whose card `repeats` and `calibrate` add.
        tag: The name of the data set in the name of the weights, such as cifar10; by default that of the images if the
            package knows them, or that of the run.
        dataset: The data set in words, such as "my photographs of birds"; by default `tag`, and CIFAR-10 only for the
            original images.
        license: License of the weights.
        folder: The folder for file and card; by default $CVCC_ZOO_HOME, where create() finds them by a name that no
            weights of the package have. Earlier weights of this name are replaced if they are of the same
            network and images.
        repeats: Folders of runs of the same recipe with other seeds; their test accuracies are added to the card.
        calibrate: Folder of a run of the same recipe with validation images: the temperature that fits them best is
            added to the card. By default it is that of the run, if `cvcc-zoo calibrate` fitted one.
        root: The folder of the data set, if it is no longer where the run's config.yaml says.
        dtype: float16, float32, or auto, which is float16 unless that loses more than one correct test image.

    """
    seeds, validated = [expanded(path) for path in repeats or ()], expanded(calibrate) if calibrate else None
    if (published := card_of(run)) is not None:
        made = {"tag": tag, "dataset": dataset, "license": license, "folder": folder, "dtype": dtype}
        if changed := [name for name, value in made.items() if value != signature(publish).parameters[name].default]:
            raise ValueError(f"--{changed[0]} belongs to new weights, and {run} is published; leave it out")
        return extend(published, seeds, validated, root)
    source = expanded(run)
    config, summary = run_of(source)
    data, weights = data_of(config, root), read_checkpoint(source)
    model = weights.model
    check_classes(model, data)
    check_trained_on(source, summary["data"], data)
    train = identity_of(data, "train")
    test = identity_of(data, "test").sha256
    known = find_known(train.sha256, test)
    tag = tag or (known.tag if known else summary["dataset"])
    training = {"recipe": recipe(config), "images": summary["images"]["train"], "train_set": train.plain()}
    training |= {"val_set": weights.images["val"]} if "val" in weights.images else {}
    training |= {name: summary.get(name) for name in TRAINING}
    training |= {"changed": summary["changed"]} if summary["changed"] else {}
    if seeds:
        if summary["data"].get("test", {}).get("sha256", test) != test:
            raise ValueError(
                f"{source} was tested on other images than {data.dataset.title} has now, so its accuracy is not "
                "compared with theirs; restore the images, or leave out --repeats"
            )
        check_whole(source, summary)
        training |= of_seeds(training, summary["test_accuracy"], test, seeds)
    fitted = temperature_of(validated, training, root) if validated else weights.calibration
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
    target = (expanded(folder) if folder else home("CVCC_ZOO_HOME")) / f"{card.name}.json"
    check_place(target, card)  # before the work of minutes
    tensors = model.state_dict()
    with tempfile.TemporaryDirectory() as trial:
        paths = {name: write(Path(trial, name), card, tensors, dtype=each) for name, each in DTYPES.items()}
        models = {name: load(path) for name, path in paths.items()}
        sums = {name: read_card(path).sha256 for name, path in paths.items()}
    half, full = (correct(*scores(each, data)) for each in models.values())
    if not left_out(summary) and (remark := unlike_summary(summary, full, data.count("test"), test)):
        raise ValueError(
            f"{source}: {remark}; restore it, or remove {source / SUMMARY} and test the run again: `cvcc-zoo fit "
            f"--config={in_command(source / CONFIG)} --ckpt_path=last`"
        )
    if dtype == "auto":
        dtype = "float16" if half >= full - ALLOWED else "float32"
    measured = measure(models[dtype], data, mirrored=data.dataset.mirror)
    target.parent.mkdir(parents=True, exist_ok=True)
    with one_at_a_time(target):
        there = check_place(target, card)  # with what others have added in the meantime
        again = there is not None and of_one_training(there, card, test)
        card = with_seeds_of(there, card) if there and again else card
        if there and again and there.sha256 == sums[dtype] and "corruptions" in there.measured:
            measured["corruptions"] = there.measured["corruptions"]
        card = dataclasses.replace(card, measured=measured | calibration)
        kept = read(write(target.parent, card, tensors, dtype=DTYPES[dtype]))[0]
    console = PlainConsole(soft_wrap=True)
    console.print(
        f"{kept.name}: test accuracy {with_interval(kept.measured['correct'], kept.measured['test_images'])} of "
        f"{kept.measured['test_images']:,} images, {kept.size / 1e6:.2f} MB as {dtype} "
        f"(correct in half precision: {half:,}, in full: {full:,})\nwritten to {target}"
    )
    if there and (lost := replaced(there, kept, same=again)):
        console.print(lost)
    found = target.parent.resolve() == home("CVCC_ZOO_HOME").resolve()
    if found and not (first := list_cards()[kept.name]).samefile(target):
        console.print(
            f"the name {kept.name} means {first}; use the new weights by their path, or publish them with another --tag"
        )
    if summary["test_accuracy"] is None:
        console.print(f"{source} was trained with --test=false: the test images were first used now")


def card_of(name: str) -> Path | None:
    """Return the card of published weights, or None for a run folder. Raises ValueError for a misspelt name."""
    path = expanded(name)
    if (path / CONFIG).is_file() or not ("." in name or path.is_dir()):
        return None
    source = resolve_trained(name if "." in name else path)  # a folder may have the name of a model
    return source.path if source.kind == "card" else None


def extend(path: Path, repeats: Sequence[Path], calibrate: Path | None, root: str) -> None:
    """Add to a card the test accuracies of other seeds, and the temperature of a run with validation images.

    The weights stay as they are. Raises ValueError if there is nothing to add, or a run does not repeat the training.
    """
    card = read_card(path)
    if not repeats and calibrate is None:
        raise ValueError(
            f"{card.name} is published; give a run folder, or add to its card: "
            "--repeats='[RUN, ...]' with other seeds, --calibrate=RUN_WITH_VALIDATION"
        )
    training, added, console = card.training, dict[str, Any](), PlainConsole(soft_wrap=True)
    if not knows_its_training(card):
        raise ValueError(f"{path} does not say how and on which images its weights were trained; publish the run again")
    test = card.measured["test_set"]["sha256"]
    if repeats:
        found = _with_seeds(card, repeats)["test_accuracy_of_seeds"]
        percents = torch.tensor(list(found.values()), dtype=torch.float64) * 100
        console.print(f"{card.name}: {len(found)} seeds, test accuracy {percents.mean():.2f} ± {percents.std():.2f} %")
    if calibrate is not None:
        fitted, data, model = temperature_of(calibrate, training, root), data_of(run_of(calibrate)[0], root), load(path)
        check_classes(model, data)  # the labels in the model's order, because the identity depends on them
        if identity_of(data, "test").sha256 != test:
            raise ValueError(f"the test images of {calibrate} are not those of {path}; give their folder: --root=...")
        logits, labels = scores(model, data)
        added = {"calibration": fitted} | with_temperature(logits, labels, fitted["temperature"])
        after = added["calibration_error_with_temperature"]
        before = with_temperature(logits, labels, 1.0)["calibration_error_with_temperature"]
        console.print(
            f"{card.name}: temperature {fitted['temperature']:.4f}, which changes the calibration error on the test "
            f"images from {before:.4f} to {after:.4f}"
        )

    def extended(now: Card) -> Card:
        if now.measured.get("test_set", {}).get("sha256") != test:
            raise ValueError(f"{path} was measured on other test images in the meantime; start again")
        return dataclasses.replace(now, measured=now.measured | added, training=_with_seeds(now, repeats))

    change_card(path, card.sha256, extended)
    console.print(f"written to {path}")


def _with_seeds(card: Card, repeats: Sequence[Path]) -> dict[str, Any]:
    """Return the entries of a card about its training, with the test accuracies of these runs."""
    if not repeats:
        return card.training
    test, accuracy = card.measured["test_set"]["sha256"], card.measured["test_accuracy"]
    return card.training | of_seeds(card.training, accuracy, test, repeats)


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


def parser() -> ZooParser:
    """Return the parser of the command."""
    return function_parser("publish", "RUN [options]", publish)


def main(args: Sequence[str]) -> int:
    """Run the command."""
    try:
        call_with(parser(), publish, args)
    except (FileNotFoundError, ValueError) as error:
        if "--data.root" not in str(error):
            raise
        raise ValueError(str(error).replace("--data.root", "--root")) from error  # the option of this command
    return 0
