"""`cvcc-zoo evaluate NAME --data...`: measure published weights again, and say whether their card holds."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from cvcc_zoo.data import ImageDataModule
from cvcc_zoo.parsing import ZooParser, expand_args, install_yaml
from cvcc_zoo.runs.measure import measure
from cvcc_zoo.scores import scores
from cvcc_zoo.weights import find_card, read_card
from cvcc_zoo.zoo import load


def main(args: Sequence[str]) -> int:
    """Run the command: 0 if the card holds or the images are others than the card's, 1 if it does not hold."""
    install_yaml()
    parser = ZooParser(
        prog="cvcc-zoo evaluate",
        usage="cvcc-zoo evaluate NAME [options]",
        description="Measure published weights again, and compare with their card.",
    )
    parser.add_argument("--name", type=str, required=True, help="Name of the weights, or the path of their card.")
    parser.add_argument(
        "--test_time_flip", type=bool, default=False, help="Also say what the mean with each mirror image gives."
    )
    parser.add_class_arguments(ImageDataModule, "data")
    words = list(args)
    if words and not words[0].startswith("-"):
        words[0] = f"--name={words[0]}"
    config = parser.parse_args(expand_args(words))
    path = Path(config.name).expanduser() if config.name.endswith(".json") else find_card(config.name)
    card = read_card(path)
    data = parser.instantiate(config).data
    console = Console(soft_wrap=True, markup=False)  # a card may hold what rich takes for a colour
    if [name.lower() for name in card.classes] != [name.lower() for name in data.classes]:
        console.print(
            f"the classes differ: {card.classes} in the card, {list(data.classes)} in {data.dataset.title}",
            style="yellow",
        )
    model = load(path)
    found = measure(model, data)
    console.print(
        f"{card.name}, trained on {card.dataset}, on {data.dataset.title}: "
        f"{found['correct']:,} of {found['test_images']:,} images correct, "
        f"{100 * found['test_accuracy']:.2f} %, loss {found['test_loss']:.4f}, "
        f"calibration error {found['calibration_error']:.4f}"
    )
    if config.test_time_flip:
        logits, labels = scores(model, data, mirrored=True)
        correct = int((logits.argmax(1) == labels).sum())
        console.print(f"with test-time flip: {correct:,} correct, {100 * correct / len(labels):.2f} %")
    there = card.measured
    if not {"test_sha256", "correct", "test_accuracy"} <= there.keys():
        console.print(f"the card has no measured numbers to compare with: {path}", style="yellow")
        return 1
    if found["test_sha256"] != there["test_sha256"]:
        console.print(
            f"these are other images than the card's, where {100 * there['test_accuracy']:.2f} % were correct"
        )
        return 0
    if found["correct"] == there["correct"]:
        console.print("the card holds: the same images, and as many correct")
        return 0
    console.print(f"the card does not hold: it has {there['correct']:,} correct of the same images", style="red")
    return 1
