"""`cvcc-zoo calibrate NAME`: fit a temperature to the validation images of a model, and save it with the weights."""

import dataclasses
import io
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from rich.table import Table
from torch import Tensor

from cvcc_zoo.classifier.compatibility import check_classes
from cvcc_zoo.classifier.quality import quality_of
from cvcc_zoo.classifier.training_images import check_held_out, check_trained_on
from cvcc_zoo.cli.arguments import with_its_images
from cvcc_zoo.cli.images import MODEL, add_images
from cvcc_zoo.cli.imports import program
from cvcc_zoo.cli.parsing import ZooParser, command_parser
from cvcc_zoo.data import ImageDataModule
from cvcc_zoo.data.identity import TRAINED_ON, is_identity, title_of_test
from cvcc_zoo.data.images import Split
from cvcc_zoo.files.download import digest
from cvcc_zoo.files.own import locked, write_whole
from cvcc_zoo.files.plain import load_plain
from cvcc_zoo.printing.console import PlainConsole
from cvcc_zoo.runs.calibration import cross_fitted, fit_temperature
from cvcc_zoo.runs.run_folder import is_run
from cvcc_zoo.runs.scores import scores
from cvcc_zoo.weights.card import Card, change_card
from cvcc_zoo.zoo.averaging import names_in
from cvcc_zoo.zoo.trained import Trained, find_trained

SPLIT = ("validation", "split_seed", "test")
"""Options of the data that decide which images were held out for validation."""
OPTIONS = "and give the options of the training: --data.validation=... and --data.split_seed=..."


def parser() -> ZooParser:
    """Return the parser of the command."""
    parser = command_parser(
        "calibrate",
        "NAME [options]",
        "From then on the logits are divided by the temperature: in predict, evaluate, export, publish, the demo and "
        "in Python. No predicted class changes. The images are those that the model's run held out for validation.",
    )
    parser.add_argument("name", type=str, help="A run folder, a checkpoint, published weights or the path of a card.")
    parser.add_argument(
        "--test",
        type=bool,
        default=False,
        help="Show what it improves on the test images; by default on the validation images, each fifth of them with "
        "a temperature that is fitted to the other four.",
    )
    add_images(parser, MODEL)
    return parser


def main(args: Sequence[str]) -> int:
    """Run the command. Raises ValueError for a model without validation images of its own."""
    made = parser()
    config, trained = with_its_images(made, args, find_one)
    origin = origin_of(trained)
    check_split(trained.name, origin, config.data)
    data = made.instantiate(config).data
    folder = trained.file.parent
    with locked(folder, "training", "run") if is_run(folder) else nullcontext():
        check_classes(trained.model, data)  # the labels in the model's order, because the identity depends on them
        check_held_out(trained.name, origin.images, data, OPTIONS)
        if config.test:  # whose images may be held out of the same folder
            check_trained_on(trained.name, origin.images, data)
        before, labels = scores(trained.model, data, split="val")
        temperature, count = round(fit_temperature(before, labels), 4), len(labels)
        where = f"the {count:,} validation images, each fifth with a temperature fitted to the other four"
        try:
            compared = quality_of(before, labels), quality_of(cross_fitted(before, labels), labels)
        except ValueError:
            compared = None
        improves = compared is None or bool(compared[1]["log_loss"] < compared[0]["log_loss"])
        if config.test:
            before, labels = scores(trained.model, data)
            where = f"the test images of {title_of_test(data)}"
            compared = quality_of(before, labels), quality_of(before / temperature, labels)
        if improves:
            save(trained.file, trained.sha256, temperature, f"{count:,} validation images of its own")
    console = PlainConsole(soft_wrap=True)
    console.print(f"{trained.name}: temperature {temperature:.4f}, fitted to {count:,} validation images")
    if compared is None:
        console.print("these are too few images to show what it improves; give --test=true for the test images")
    else:
        console.print(table(where, *compared))
    if improves:
        console.print(f"written to {trained.file}")
    else:
        console.print(
            "the log loss on the validation images is not lower: one temperature does not improve these probabilities, "
            f"and {trained.file} stays as it is"
        )
    return 0


def find_one(name: str) -> Trained:
    """Return a trained model. Raises ValueError for several, and as `find_trained` does."""
    if len(names_in(name)) > 1:
        raise ValueError(f"a temperature is fitted to one model; calibrate each of {name} by itself")
    return find_trained(name)


@dataclass(frozen=True)
class Origin:
    """What trained weights say about the images that they were trained on."""

    images: Mapping[Split, Mapping[str, Any]]
    """The identities of the training images and of those held out, as far as they are known."""
    split: dict[str, Any]
    """The options SPLIT of their data; empty if unknown."""


def origin_of(trained: Trained) -> Origin:
    """Return the origin of trained weights.

    Raises ValueError for a checkpoint that does not say which images were held out.
    """
    options, images = trained.data, trained.images
    if trained.card is not None:
        training = trained.card.training
        recipe, sets = training.get("recipe"), trained.card.images
        found = recipe.get("data") if isinstance(recipe, dict) else None
        options = found if isinstance(found, dict) else {}
        images = {split: said for split in TRAINED_ON if is_identity(said := sets[split])}
    elif "val" not in images and options.get("validation") != 0:  # without any, `check_split` says so
        raise ValueError(
            f"{trained.file} does not say which images its training held out, so none are known that a temperature can "
            "be fitted to: it is of a training without an ImageDataModule; train it again, such as by `cvcc-zoo fit`"
        )
    defaults = signature(ImageDataModule).parameters
    split = {option: options.get(option, defaults[option].default) for option in SPLIT} if options else {}
    return Origin(images, split)


def check_split(name: str, origin: Origin, options: Any) -> None:
    """Raise ValueError unless the options of the data hold out the images that the training held out."""
    split, held_out = origin.split, origin.images.get("val", {}).get("images")
    if held_out == 0 or (split and not split["validation"]):
        raise ValueError(
            f"{name} was trained on all of its images, and a temperature that is fitted to training images makes a "
            "model too confident; train the recipe with --data.validation=0.1, and give these weights the temperature "
            f"of that run: {' '.join(program())} publish {name} --calibrate=RUN_WITH_VALIDATION"
        )
    if not options.validation:
        raise ValueError("a temperature is fitted to validation images; leave out --data.validation=0")
    for option, value in split.items():
        if (given := getattr(options, option)) != value:
            raise ValueError(
                f"with --data.{option}={given} the temperature would be fitted to images that {name} was trained on; "
                f"leave it out, or give that of the training: --data.{option}={value}"
            )


def save(file: Path, sha256: str, temperature: float, fitted_on: str) -> None:
    """Save a temperature in a card or a checkpoint; the rest of the file stays.

    Raises ValueError if it has other weights now than those with this `sha256`: of the card's file, or the checkpoint.
    """
    calibration = {"temperature": temperature, "fitted_on": fitted_on}
    if file.suffix == ".json":
        change_card(file, sha256, lambda card: _calibrated(card, calibration))
        return
    if digest(file) != sha256:
        raise ValueError(f"{file} was written anew in the meantime and is not changed; calibrate it again")
    content = load_plain(file)
    content["cvcc_zoo"] |= calibration
    data = io.BytesIO()
    torch.save(content, data)
    write_whole(file, data.getbuffer())


def _calibrated(card: Card, calibration: Mapping[str, Any]) -> Card:
    measured = {name: value for name, value in card.measured.items() if not name.endswith("_with_temperature")}
    return dataclasses.replace(card, measured=measured | {"calibration": dict(calibration)})


def table(where: str, before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> Table:
    """Return a table of both numbers before and after the calibration."""
    made = Table(title=f"on {where}", title_justify="left")
    for column in ("", "before", "after"):
        made.add_column(column, justify="right" if column else "left")
    for name in ("log_loss", "calibration_error"):
        made.add_row(name.replace("_", " "), f"{before[name]:.4f}", f"{after[name]:.4f}")
    return made
