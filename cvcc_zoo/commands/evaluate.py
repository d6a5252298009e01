"""`cvcc-zoo evaluate NAME --data...`: measure trained weights, and compare published ones with their card."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cvcc_zoo.classifier.metrics import TOP5
from cvcc_zoo.cli.arguments import with_its_images
from cvcc_zoo.cli.parsing import ZooParser, command_parser
from cvcc_zoo.data import ImageDataModule
from cvcc_zoo.data.identity import identity_of, in_common, title_of_test
from cvcc_zoo.files.own import file_to_write, write_picture
from cvcc_zoo.printing.console import PlainConsole
from cvcc_zoo.runs.measure import measure
from cvcc_zoo.runs.robustness import corruption_table, measure_corruptions
from cvcc_zoo.weights.card import Card, read_card, write_card
from cvcc_zoo.zoo.trained import Trained

NAMES = "Published weights, the path of their card, a run folder or a checkpoint."


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
        "--update_card", type=bool, default=False, help="Replace the numbers of the card by the measured ones."
    )
    parser.add_argument(
        "--corruptions",
        type=str,
        default="",
        help="A .png file: also measure the accuracy under 12 corruptions in 5 strengths, and draw it. It takes the "
        "time of 60 evaluations.",
    )
    parser.add_class_arguments(ImageDataModule, "data")
    return parser


def main(args: Sequence[str]) -> int:
    """Run the command; return 1 if published weights do not reach the numbers of their card on its images, else 0."""
    made = parser()
    config, trained = with_its_images(made, args)
    path = trained.card
    if config.update_card and path is None:
        raise ValueError(f"{config.name} has no card; `cvcc-zoo publish` makes one of a run")
    picture = file_to_write(config.corruptions, ".png") if config.corruptions else None
    data = made.instantiate(config).data
    console = PlainConsole(soft_wrap=True)
    if path is None:
        found = measure(trained.model, data, mirrored=config.test_time_flip)
        _say(console, trained, data, found)
        _corrupted(console, trained, data, found, picture)
        return 0
    card = read_card(path)
    calibration = card.measured.get("calibration", {})
    mirrored = config.test_time_flip or (config.update_card and data.dataset.mirror)
    found = measure(trained.model, data, temperature=calibration.get("temperature"), mirrored=mirrored)
    _say(console, trained, data, found, flip=config.test_time_flip)
    corrupted = _corrupted(console, trained, data, found, picture)
    if config.update_card:
        kept = {name: value for name, value in card.measured.items() if name in ("calibration", "corruptions")}
        write_card(path, dataclasses.replace(card, measured={**found, **kept, **corrupted}))
        console.print(f"written to {path}")
        return 0
    code, verdict = compare(card, found, data, path)
    console.print(verdict, style="red" if code else "")
    return code


def _say(
    console: PlainConsole, trained: Trained, data: ImageDataModule, found: Mapping[str, Any], *, flip: bool = True
) -> None:
    title = title_of_test(data, found["test_set"]["sha256"])
    trained_on = f", trained on {trained.dataset}" if trained.dataset else ""
    console.print(f"{trained.name}{trained_on}, on {title}: {in_words(found)}")
    if flip and "mirrored_accuracy" in found:
        console.print(f"with test-time flip: {100 * found['mirrored_accuracy']:.2f} % correct")


def _corrupted(
    console: PlainConsole, trained: Trained, data: ImageDataModule, found: Mapping[str, Any], picture: Path | None
) -> dict[str, Any]:
    """Measure, print and draw the accuracy under corruptions if there is a picture to write; return it for the card."""
    if picture is None:
        return {}
    from cvcc_zoo.plots.corruptions import plot_corruptions  # takes half a second

    corrupted, clean = measure_corruptions(trained.model, data), found["test_accuracy"]
    console.print(corruption_table(corrupted, clean))
    title = f"{trained.name} on {title_of_test(data, found['test_set']['sha256'])}"
    write_picture(picture, plot_corruptions(corrupted["accuracy"], clean, title))
    console.print(f"written to {picture}")
    return {"corruptions": corrupted}


def in_words(found: Mapping[str, Any]) -> str:
    """Return the measured numbers as one line of text."""
    top5 = f"{100 * found[TOP5]:.2f} % among the first five, " if TOP5 in found else ""
    error = f"calibration error {found['calibration_error']:.4f}"
    if (with_temperature := found.get("calibration_error_with_temperature")) is not None:
        error += f" ({with_temperature:.4f} with the card's temperature)"
    return (
        f"{found['correct']:,} of {found['test_images']:,} images correct, {100 * found['test_accuracy']:.2f} %, {top5}"
        f"loss {found['test_loss']:.4f}, {error}"
    )


def compare(card: Card, found: Mapping[str, Any], data: ImageDataModule, path: Path) -> tuple[int, str]:
    """Compare the measured numbers with those of the card; return the exit code and the verdict."""
    there = card.measured
    again = f"measure it again: cvcc-zoo evaluate {path} --data... --update_card=true"
    if not {"correct", "test_accuracy"} <= there.keys():
        return 1, f"the card has no measured numbers to compare with; {again}"
    if "test_set" not in there:
        return 1, f"the card has an older format, which does not say on which test images it was measured; {again}"
    images = there["test_set"]
    if found["test_set"]["sha256"] != images["sha256"]:
        common = in_common(identity_of(data, "test"), images)
        same = "" if common is None else f": {common:,} of {images['images']:,} are the same"
        of = f" ({images['name']})" if images["name"] else ""
        return 0, f"other images than the card's{of}, where {100 * there['test_accuracy']:.2f} % were correct{same}"
    if found["correct"] == there["correct"]:
        return 0, "the card holds: the same images, and as many correct"
    return 1, f"the card does not hold: it has {there['correct']:,} correct of the same images"
