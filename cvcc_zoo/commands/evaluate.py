"""`cvcc-zoo evaluate NAME --data...`: measure trained weights, and compare published ones with their card."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from cvcc_zoo.classifier.compatibility import check_classes
from cvcc_zoo.classifier.metrics import TOP5
from cvcc_zoo.classifier.training_images import other_images
from cvcc_zoo.cli.arguments import with_its_images
from cvcc_zoo.cli.images import MODEL, add_images
from cvcc_zoo.cli.imports import program
from cvcc_zoo.cli.parsing import ZooParser, command_parser
from cvcc_zoo.data import ImageDataModule
from cvcc_zoo.data.corruptions import title_of
from cvcc_zoo.data.identity import find_known, identity_of, in_common, title_of_test
from cvcc_zoo.files.own import expanded, file_to_write, in_command, write_picture
from cvcc_zoo.plots.corruptions import plot_corruptions
from cvcc_zoo.printing import first_line
from cvcc_zoo.printing.console import PlainConsole
from cvcc_zoo.runs.intervals import with_interval
from cvcc_zoo.runs.measure import measure, measure_average, unlike_summary
from cvcc_zoo.runs.repeats import OF_SEEDS
from cvcc_zoo.runs.robustness import corruption_table, measure_corruptions
from cvcc_zoo.runs.summary import in_digits, without_images
from cvcc_zoo.runs.written import SUMMARY, not_ended, read_summary
from cvcc_zoo.weights.card import Card, change_card
from cvcc_zoo.zoo.averaging import Average, find_average
from cvcc_zoo.zoo.trained import Trained

NAMES = "Published weights, the path of their card, a run folder or a checkpoint; or several, A+B, to average them."


def parser() -> ZooParser:
    """Return the parser of the command."""
    parser = command_parser("evaluate", "NAME [options]", "The images are by default those of the model's run.")
    parser.add_argument("name", type=str, help=NAMES)
    parser.add_argument(
        "--test_time_flip",
        type=bool,
        default=False,
        help="Also measure the mean of the logits of each image and its mirror image.",
    )
    parser.add_argument(
        "--per_class", type=bool, default=False, help="Print precision, recall, F1 and support of each class."
    )
    parser.add_argument(
        "--update_card", type=bool, default=False, help="Replace the numbers of the card by the measured ones."
    )
    parser.add_argument(
        "--corruptions",
        type=str,
        default="",
        help="A .png file: also measure the accuracy under 12 corruptions in 5 strengths, and draw it. It takes the "
        "time of 60 evaluations.",
    )
    add_images(parser, MODEL)
    return parser


def main(args: Sequence[str]) -> int:
    """Run the command; return 1 if published weights do not reach the numbers of their card on its images, else 0."""
    made = parser()
    config, average = with_its_images(made, args, find_average)
    trained, *others = average.members
    card = None if others else trained.card
    if config.update_card and card is None:
        raise ValueError(f"{config.name} has no card; `cvcc-zoo publish` makes one of a run")
    picture = file_to_write(config.corruptions, ".png") if config.corruptions else None
    if picture and others:
        raise ValueError(f"corruptions are measured for one model; leave --corruptions out, or evaluate {trained.name}")
    data = made.instantiate(config).data
    console = PlainConsole(soft_wrap=True)
    for member in average.members:
        warning = other_images(member.name, member.model, data, member.data, member.images)
        if member.card is not None:
            warning = other_than_of_card(member, member.card, data, update=config.update_card)
        if warning and config.update_card:
            raise ValueError(f"the card is not changed: {warning}; restore the images, or leave out --update_card")
        for remark in filter(None, (warning, not_ended(member.file.parent))):
            console.print(remark)
    if others:
        found = measure_average(average, data, mirrored=config.test_time_flip)
        _say(console, average, data, found, per_class=config.per_class)
        alone = (f"{name} {100 * share:.2f} %" for name, share in found["test_accuracy_alone"].items())
        console.print(f"alone: {', '.join(alone)}")
        return 0
    if card is None:
        found = measure(trained.model, data, mirrored=config.test_time_flip)
        _say(console, trained, data, found, per_class=config.per_class)
        _corrupted(console, trained, data, found, picture)
        if ((run := expanded(config.name)) / SUMMARY).is_file():
            test = (found["correct"], found["test_images"], found["test_set"]["sha256"])
            try:
                remark = unlike_summary(read_summary(run), *test)
            except (OSError, ValueError) as error:  # the test is complete without it
                remark = f"not compared with its summary: {first_line(error)}"
            if remark:
                console.print(f"{trained.name}: {remark}")
        return 0
    mirrored = config.test_time_flip or (config.update_card and data.dataset.mirror)
    found = measure(trained.model, data, mirrored=mirrored)
    _say(console, trained, data, found, per_class=config.per_class, flip=config.test_time_flip)
    numbers, temperature = found | _corrupted(console, trained, data, found, picture), trained.model.temperature
    if config.update_card:
        change_card(trained.file, trained.sha256, lambda now: measured_again(now, numbers, temperature))
        console.print(f"written to {trained.file}")
        return 0
    code, verdict = compare(card, found, data, trained.file)
    console.print(verdict, style="red" if code else "")
    return code


def other_than_of_card(trained: Trained, card: Card, data: ImageDataModule, *, update: bool) -> str:
    """Return a warning if test images may be training images of published weights: neither split is that of the card.

    There is none if all of them are test images of the card, or, without an `update` of the card, none of them is. The
    test images of the known data sets are no training images.
    """
    train, there = card.training.get("train_set"), card.measured.get("test_set", {})
    before = train.get("sha256") if isinstance(train, dict) else None
    check_classes(trained.model, data)  # the labels in the model's order, because the identity depends on them
    test = identity_of(data, "test")
    if not before or test.sha256 == there.get("sha256") or find_known(None, test.sha256):
        return ""
    same = in_common(test, there) if there else 0
    if same == len(test.hashes) or (not update and same == 0):
        return ""
    if identity_of(data, "train").sha256 == before:
        return ""
    return (
        f"{trained.name} was trained on other images than {data.dataset.title} has now, perhaps also on its test "
        "images; then the accuracy is too high"
    )


def _say(
    console: PlainConsole,
    trained: Trained | Average,
    data: ImageDataModule,
    found: Mapping[str, Any],
    *,
    per_class: bool,
    flip: bool = True,
) -> None:
    title = title_of_test(data, found["test_set"]["sha256"])
    trained_on = f", trained on {trained.dataset}" if trained.dataset else ""
    console.print(f"{trained.name}{trained_on}, on {title}: {in_words(found)}")
    if flip and "mirrored_accuracy" in found:
        console.print(f"with test-time flip: {100 * found['mirrored_accuracy']:.2f} % correct")
    if missing := without_images(found["per_class"]):
        console.print(f"without test images, so without recall: {missing}")
    if per_class:
        PlainConsole().print(table_of_classes(found["per_class"]))


def table_of_classes(per_class: Mapping[str, Mapping[str, Any]]) -> Table:
    """Return a table with precision, recall, F1 and support of each class; "-" is not defined."""
    table = Table("class", box=None)
    for name in ("precision", "recall", "F1", "support"):
        table.add_column(name, justify="right")
    for name, numbers in per_class.items():
        shares = [in_digits(numbers[key]) for key in ("precision", "recall", "f1")]
        table.add_row(name, *shares, f"{numbers['support']:,}")
    return table


def _corrupted(
    console: PlainConsole, trained: Trained, data: ImageDataModule, found: Mapping[str, Any], picture: Path | None
) -> dict[str, Any]:
    """Measure, print and draw the accuracy under corruptions if there is a picture to write; return it for the card."""
    if picture is None:
        return {}
    corrupted, clean = measure_corruptions(trained.model, data), found["test_accuracy"]
    console.print(corruption_table(corrupted, clean))
    title = f"{trained.name} on {title_of_test(data, found['test_set']['sha256'])}"
    panels = {title_of(name): values for name, values in corrupted["accuracy"].items()}
    write_picture(picture, plot_corruptions(panels, clean, title))
    console.print(f"written to {picture}")
    return {"corruptions": corrupted}


def in_words(found: Mapping[str, Any]) -> str:
    """Return the measured numbers as text; the accuracy has its 95 % interval in parentheses."""
    top5 = f"{100 * found[TOP5]:.2f} % among the first five, " if TOP5 in found else ""
    calibrated = ""
    if (error := found.get("calibration_error_with_temperature")) is not None:
        loss = found["test_loss_with_temperature"]
        calibrated = f"; with its temperature log loss {loss:.4f} and calibration error {error:.4f}"
    return (
        f"{found['correct']:,} of {found['test_images']:,} images correct, "
        f"{with_interval(found['correct'], found['test_images'])}, {top5}macro F1 {in_digits(found['f1'])}, "
        f"balanced accuracy {100 * (found['balanced_accuracy'] or 0):.2f} %, Brier score "
        f"{in_digits(found['brier_score'])}, log loss {in_digits(found['log_loss'])} and calibration error "
        f"{in_digits(found['calibration_error'])}{calibrated}"
    )


def measured_again(card: Card, found: Mapping[str, Any], temperature: float) -> Card:
    """Return a card with new numbers of its weights, which were measured with that temperature.

    The card's own temperature stays, and on the same test images the corruptions and the accuracies of seeds do, too.
    """
    same = found["test_set"]["sha256"] == card.measured.get("test_set", {}).get("sha256")
    names = ("calibration", "corruptions") if same else ("calibration",)
    training = {name: value for name, value in card.training.items() if same or name not in OF_SEEDS}
    if card.measured.get("calibration", {}).get("temperature", 1.0) != temperature:  # fitted in the meantime
        found = {name: value for name, value in found.items() if not name.endswith("_with_temperature")}
    kept = {name: card.measured[name] for name in names if name in card.measured and name not in found}
    return dataclasses.replace(card, measured={**found, **kept}, training=training)


def compare(card: Card, found: Mapping[str, Any], data: ImageDataModule, path: Path) -> tuple[int, str]:
    """Compare the measured numbers with those of the card; return the exit code and the verdict."""
    there = card.measured
    again = f"measure it again: {' '.join(program())} evaluate {in_command(path)} --data... --update_card=true"
    if not {"correct", "test_accuracy", "test_set"} <= there.keys():
        return 1, f"the card does not say how many of which test images were correct; {again}"
    images = there["test_set"]
    if found["test_set"]["sha256"] != images["sha256"]:
        common = in_common(identity_of(data, "test"), images)
        same = "" if common is None else f": {common:,} of {images['images']:,} are the same"
        of = f" ({images['name']})" if images["name"] else ""
        return 0, f"other images than the card's{of}, where {100 * there['test_accuracy']:.2f} % were correct{same}"
    if found["correct"] == there["correct"]:
        return 0, "the card holds: the same images, and as many correct"
    return 1, f"the card does not hold: it has {there['correct']:,} correct of the same images"
