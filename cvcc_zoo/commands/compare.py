"""`cvcc-zoo compare MODEL...`: parameters, MACs, memory and measured speed of models side by side."""

from collections.abc import Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from cvcc_zoo.cli.parsing import ZooParser, command_parser
from cvcc_zoo.files.own import file_to_write
from cvcc_zoo.inspection.layers import inventory
from cvcc_zoo.inspection.memory import activation_bytes
from cvcc_zoo.inspection.records import Row, write_rows
from cvcc_zoo.inspection.speed import rates
from cvcc_zoo.inspection.subjects import NAMES, Subject, find_subjects, split_options
from cvcc_zoo.printing.console import PlainConsole
from cvcc_zoo.registry import pick
from cvcc_zoo.runs.summary import hardware

COLUMNS = {
    "model": "model",
    "parameters": "parameters",
    "macs": "MACs\n(M)",
    "activation_bytes": "memory\n(MB)",
    "images_per_second": "images/s",
    "training_images_per_second": "training\nimages/s",
}
ORDERS = {
    "parameters": "parameters",
    "macs": "macs",
    "memory": "activation_bytes",
    "speed": "images_per_second",
    "training_speed": "training_images_per_second",
    "accuracy": "published",
}
"""Names for --sort, and the column that each sorts by."""


def parser() -> ZooParser:
    """Return the parser of the command."""
    parser = command_parser(
        "compare",
        "MODEL... [--model.OPTION=VALUE...] [options]",
        "Memory is for the backward pass of an image. Options such as --model.num_classes=100 apply to all models.",
    )
    parser.add_argument("models", type=str, nargs="+", help=NAMES)
    parser.add_argument("--batch_size", type=int, default=32, help="Images in a batch when speed is measured.")
    parser.add_argument(
        "--repeats", type=int, default=5, help="Number of measurements; models take turns, and the median is shown."
    )
    parser.add_argument("--train", action="store_true", help="Measure training steps, too.")
    parser.add_argument("--sort", type=str, default="", help=f"{', '.join(ORDERS)}; by default in the given order.")
    parser.add_argument("--json", type=str, default="", help="A .json file for the rows.")
    parser.add_argument("--csv", type=str, default="", help="A .csv file for the rows.")
    return parser


def main(args: Sequence[str]) -> int:
    """Run the command."""
    options, words = split_options(args)
    config = parser().parse_args(words)
    if config.sort:
        config.sort = pick("order", config.sort, ORDERS)
    if config.sort == "training_speed" and not config.train:
        raise ValueError("--sort=training_speed needs training steps; add --train")
    files = [file_to_write(path, ending) for path, ending in ((config.json, ".json"), (config.csv, ".csv")) if path]
    subjects = find_subjects(config.models, options)
    rows = [costs(subject) for subject in subjects]
    speeds = {"images_per_second": rates(subjects, config.batch_size, config.repeats, train=False)}
    if config.train:
        speeds["training_images_per_second"] = rates(subjects, config.batch_size, config.repeats, train=True)
    for row, subject in zip(rows, subjects, strict=True):
        row.update({column: found[subject.name] for column, found in speeds.items()}, published=accuracies(subject))
    if config.sort:
        rows.sort(key=lambda row: place(row, config.sort))
    for file in files:
        write_rows(file, rows)
    console = PlainConsole()
    console.print(table(rows, f"{hardware()}, {config.batch_size} images at a time"))
    for row in rows:
        if row["published"]:
            console.print(published(row), soft_wrap=True)
    for file in files:
        console.print(f"written to {file}", soft_wrap=True)
    return 0


def costs(subject: Subject) -> dict[str, Any]:
    """Return the costs of a network that are counted, not measured."""
    counts = inventory(subject.network, subject.shape)
    memory = activation_bytes(subject.network, subject.shape)
    return {
        "model": subject.name,
        "parameters": counts.parameters,
        "macs": counts.macs,
        "activation_bytes": memory,
    }


def accuracies(subject: Subject) -> dict[str, float]:
    """Return the test accuracies of published weights by data set, fractions in [0, 1]."""
    cards = [card for card in subject.cards() if "test_accuracy" in card.measured]
    return {card.tested_on: float(card.measured["test_accuracy"]) for card in cards}


def place(row: Row, order: str) -> float:
    """Return the key to sort rows by: costs from the smallest, speeds and the best accuracy from the largest."""
    value = row[ORDERS[order]]
    if order == "accuracy":
        return -max(value.values(), default=0.0)
    return float(-value if "speed" in order else value)


def table(rows: Sequence[Row], title: str) -> Table:
    """Return a table with a row for each model."""
    shown = Table(title=title, caption="MACs, and memory for the backward pass, of one image", box=SIMPLE_HEAD)
    columns = [column for column in COLUMNS if column in rows[0]]
    for column in columns:
        if column == "model":
            shown.add_column(COLUMNS[column], overflow="fold")
        else:
            shown.add_column(COLUMNS[column], justify="right", no_wrap=True)
    for row in rows:
        shown.add_row(*(cell(column, row[column]) for column in columns))
    return shown


def cell(column: str, value: Any) -> str:
    """Return a value as text for a table."""
    if column == "model":
        return str(value)
    if column == "macs":
        return f"{value / 1e6:,.1f}"
    if column == "activation_bytes":
        return f"{value / 1e6:,.2f}"
    return f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def published(row: Row) -> str:
    """Return the accuracies of a row as text."""
    shares = ", ".join(f"{100 * share:.2f} % on {dataset}" for dataset, share in row["published"].items())
    return f"{row['model']}, published weights: {shares}"
