"""`cvcc-zoo describe MODEL...`: the layers of models, or with --statistics the signal through their blocks."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from cvcc_zoo.cli.parsing import ZooParser, command_parser
from cvcc_zoo.files.own import file_to_write, write_picture
from cvcc_zoo.inspection.batches import images_for, whitened_batch
from cvcc_zoo.inspection.layers import Layer, inventory, pixels, stride
from cvcc_zoo.inspection.records import Row, write_rows
from cvcc_zoo.inspection.statistics import Signal, signals
from cvcc_zoo.inspection.subjects import NAMES, Subject, find_subjects, split_options
from cvcc_zoo.plots import plot_depth
from cvcc_zoo.printing.console import PlainConsole

PANELS: dict[str, Callable[[Signal], float]] = {
    "variance of the output": lambda signal: signal.deviation**2,
    "gradient norm, output": lambda signal: signal.gradient,
    "gradient norm, weights": lambda signal: signal.weight_gradient,
}


def parser() -> ZooParser:
    """Return the parser of the command."""
    parser = command_parser(
        "describe",
        "MODEL... [--model.OPTION=VALUE...] [options]",
        "Options such as --model.init=lsuv apply to all models.",
    )
    parser.add_argument("models", type=str, nargs="+", help=NAMES)
    parser.add_argument("--statistics", action="store_true", help="Show the signal through the blocks.")
    parser.add_argument(
        "--output", type=str, default="", help="With --statistics: a .png file for the signal by depth."
    )
    parser.add_argument("--json", type=str, default="", help="A .json file for the rows.")
    parser.add_argument("--csv", type=str, default="", help="A .csv file for the rows.")
    parser.add_argument("--images", type=int, default=64, help="With --statistics: the number of training images.")
    parser.add_argument("--seed", type=int, default=0, help="Seed of the initial weights.")
    parser.add_argument(
        "--data.dataset",
        type=str | None,
        default=None,
        help="With --statistics: their data set; by default that of the model's run, or fashion-mini.",
    )
    parser.add_argument("--data.root", type=str, default=None, help="Its folder.")
    return parser


def main(args: Sequence[str]) -> int:
    """Run the command."""
    options, words = split_options(args)
    config = parser().parse_args(words)
    picture = file_to_write(config.output, ".png") if config.output else None
    files = [file_to_write(path, ending) for path, ending in ((config.json, ".json"), (config.csv, ".csv")) if path]
    if picture and not config.statistics:
        raise ValueError("--output draws the signal through the blocks; add --statistics, or leave it out")
    subjects = find_subjects(config.models, options, config.seed)
    tables: list[Table] = []
    rows: list[Row] = []
    found: dict[str, list[Signal]] = {}
    for subject in subjects:
        if config.statistics:
            found[subject.name] = measured(subject, config.data.dataset, config.data.root, config.images)
            rows += [{"model": subject.name, **dataclasses.asdict(signal)} for signal in found[subject.name]]
            tables.append(signal_table(subject, found[subject.name]))
        else:
            layers = inventory(subject.network, subject.shape)
            total = Layer("total", "", (), layers.parameters, layers.macs, layers.layers[-1].field)
            mine = [layer_row(subject, layer) for layer in (*layers.layers, total)]
            tables.append(layer_table(subject, mine))
            rows += mine
    for file in files:
        write_rows(file, rows)
    if picture:
        panels = {
            title: {name: [value(signal) for signal in through[:-1] or through] for name, through in found.items()}
            for title, value in PANELS.items()
        }
        asked = (config.data.dataset, config.data.root)
        titles = dict.fromkeys(images_for(subject, *asked).dataset.title for subject in subjects)
        write_picture(picture, plot_depth(panels, f"{config.images} images of {', '.join(titles)}, in training mode"))
    console = PlainConsole()
    for table in tables:
        console.print(table)
    for written in filter(None, [*files, picture]):
        console.print(f"written to {written}", soft_wrap=True)
    return 0


def measured(subject: Subject, dataset: str, root: str | None, images: int) -> list[Signal]:
    """Return the signal through a model, with gradients of its own loss."""
    x, labels = whitened_batch(subject, dataset, root, images)
    loss = subject.model.loss
    return signals(subject.network, x, lambda logits: loss(logits, labels))


def layer_row(subject: Subject, layer: Layer) -> dict[str, Any]:
    """Return a layer as plain data."""
    return {
        "model": subject.name,
        "layer": layer.name,
        "type": layer.kind,
        "output": "x".join(map(str, layer.output)),
        "parameters": layer.parameters,
        "macs": layer.macs,
        "field": pixels(layer.field),
        "stride": stride(layer.field),
    }


def layer_table(subject: Subject, rows: Sequence[Row]) -> Table:
    """Return a table with a row for each layer, and the totals."""
    caption = "MACs of one image; field: pixels of the image that a value sees /pixels to the next value's"
    table = Table(title=title(subject), caption=caption, box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for column in ("layer", "type"):
        table.add_column(column, overflow="fold")
    table.add_column("output", no_wrap=True)
    for column in ("parameters", "MACs", "field"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        total = row["layer"] == "total"
        if total:
            table.add_section()
        parameters = f"{row['parameters']:,}" if row["parameters"] or total else ""
        macs = f"{row['macs'] / 1e6:,.2f} M" if row["macs"] or total else ""
        apart = "" if row["stride"] is None else f" /{row['stride']}"
        field = "-" if row["field"] is None else f"{row['field']}{apart}"
        table.add_row(row["layer"], row["type"], row["output"], parameters, macs, field)
    return table


def signal_table(subject: Subject, through: Sequence[Signal]) -> Table:
    """Return a table with a row for each block."""
    caption = "norms of the gradients of the loss with respect to a block's output and its weights"
    table = Table(title=title(subject), caption=caption)
    table.add_column("block", no_wrap=True)
    for column in ("mean", "deviation", "zeros", "gradient", "weight gradient"):
        table.add_column(column, justify="right", no_wrap=True)
    for signal in through:
        numbers = (signal.mean, signal.deviation, signal.gradient, signal.weight_gradient)
        mean, deviation, *gradients = (f"{number:.3g}" for number in numbers)
        table.add_row(signal.block, mean, deviation, f"{100 * signal.zeros:.1f} %", *gradients)
    return table


def title(subject: Subject) -> str:
    """Return the name of a network and the shape of its images."""
    kind = "" if subject.trained else ", freshly initialised"
    return f"{subject.name}{kind}, images {'x'.join(map(str, subject.shape))}"
