"""`cvcc-zoo predict NAME IMAGE_OR_FOLDER...`: the most probable classes of image files.

Files are decoded as those of a folder in the model's training: turned upright by their EXIF orientation, laid on its
background if they are transparent, converted to colour or grey, and made square by the same method.
"""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich.table import Table
from rich.text import Text
from torch import Tensor

from cvcc_zoo.classifier.prediction import BATCH, Ranking, ranked, read_pixels
from cvcc_zoo.cli.parsing import ZooParser, command_parser
from cvcc_zoo.data.decode import Decoding, Tally
from cvcc_zoo.data.decoded import raise_all
from cvcc_zoo.data.finding import find_files
from cvcc_zoo.data.opening import MAX_PIXELS, UnknownFormatError
from cvcc_zoo.files.own import csv_text, expanded, file_to_write, json_text, shown, write_picture, write_whole
from cvcc_zoo.plots import Figure
from cvcc_zoo.printing import say
from cvcc_zoo.printing.console import PlainConsole
from cvcc_zoo.printing.progress import tracked
from cvcc_zoo.runs.written import not_ended
from cvcc_zoo.zoo.averaging import Average, find_average

ON_SHEET = 64
TOP = 5


@dataclass(frozen=True)
class Prediction:
    """The most probable classes of a file, best first, with their probabilities in [0, 1]."""

    file: Path
    top: Ranking


def parser() -> ZooParser:
    """Return the parser of the command."""
    parser = command_parser("predict", "NAME IMAGE_OR_FOLDER... [options]")
    parser.add_argument(
        "name",
        type=str,
        help="Published weights, the path of a card, a run folder or a checkpoint; or several, A+B, to average their "
        "probabilities.",
    )
    parser.add_argument("images", type=str, nargs="+", help="Image files, and folders of them.")
    parser.add_argument("--top", type=int, default=None, help=f"Number of classes; by default {TOP}, or all if fewer.")
    parser.add_argument(
        "--test_time_flip",
        type=bool,
        default=False,
        help="Use the mean of the logits of each image and its mirror image.",
    )
    parser.add_argument("--output", type=str, default="", help="A .csv or .json file for the predictions.")
    parser.add_argument("--sheet", type=str, default="", help=f"A .png file for the first {ON_SHEET} images.")
    parser.add_argument("--data.max_pixels", type=int, default=MAX_PIXELS, help="Refuse images with more pixels.")
    return parser


def main(args: Sequence[str]) -> int:
    """Run the command; return 0, or 1 if some images cannot be read, and the others are predicted.

    Nothing is written if no image can be read.
    """
    config = parser().parse_args(list(args))
    output = file_to_write(config.output, ".csv", ".json") if config.output else None
    sheet = file_to_write(config.sheet, ".png") if config.sheet else None
    trained = find_average(config.name, flip=config.test_time_flip)
    classes = len(trained.classes)
    top = min(TOP, classes) if config.top is None else config.top
    if not 1 <= top <= classes:
        raise ValueError(f"{trained.name} has {classes} classes; choose --top=1 to {classes}, not {top}")
    decoding = replace(trained.decoding(), max_pixels=config.data.max_pixels)
    size, channels = decoding.image_size, decoding.in_channels
    if channels not in (1, 3):
        raise ValueError(f"image files have 1 or 3 channels, and {trained.name} takes {channels}; call it in Python")
    given = [expanded(image) for image in config.images]
    tally, broken = Tally(), dict[Path, ValueError]()
    predictions = predict(trained, find_files(given), decoding, top, tally, broken)
    named = set(given)
    skipped = [file for file, error in broken.items() if isinstance(error, UnknownFormatError) and file not in named]
    for file in skipped:
        del broken[file]
    if not predictions:
        raise_all(list(broken.values()))
        raise ValueError(f"there are no images in {', '.join(map(shown, given))}")
    if output:
        write_whole(output, (_json if output.suffix == ".json" else _csv)(predictions))
    if sheet:
        on_sheet = predictions[:ON_SHEET]
        images = read_pixels([each.file for each in on_sheet], decoding, Tally(), {})
        write_picture(sheet, _draw(on_sheet, images))
    console = PlainConsole()
    console.print(_table(predictions, f"{trained.name}: classes and their probabilities"))
    begun = filter(None, (not_ended(member.file.parent) for member in trained.members))
    for line in [*begun, *_remarks(tally, size, skipped, sheet), *tally.lines(advice=False)]:
        console.print(line, soft_wrap=True)
    for written in filter(None, (output, sheet)):
        console.print(f"written to {written}", soft_wrap=True)
    for error in broken.values():
        say(f"cvcc-zoo: not predicted: {error}", error=True)
    return 1 if broken else 0


def predict(
    trained: Average,
    files: Sequence[Path],
    decoding: Decoding,
    top: int,
    tally: Tally,
    broken: dict[Path, ValueError],
) -> list[Prediction]:
    """Return the `top` most probable classes of each file.

    Notes about the images are added to `tally`, and errors of files that cannot be read to `broken`.
    """
    predictions = []
    parts = [files[start : start + BATCH] for start in range(0, len(files), BATCH)]
    for part in tracked(parts, "prediction: images", len(files), len):
        images = read_pixels(part, decoding, tally, broken)
        batch = [file for file in part if file not in broken]
        if batch:
            rankings = ranked(trained.probabilities(images), trained.classes, top)
            predictions += [Prediction(file, ranking) for file, ranking in zip(batch, rankings, strict=True)]
    return predictions


def _table(predictions: Sequence[Prediction], title: str) -> Table:
    """Return a table with the best class of each file, and the next ones in the order of their probability."""
    table = Table(title=title)
    table.add_column("file", overflow="fold")
    table.add_column("best", overflow="fold")
    if len(predictions[0].top) > 1:
        table.add_column("next", overflow="fold")
    for prediction in predictions:
        best, *others = [f"{name} {share:.3f}" for name, share in prediction.top]
        cells = [shown(prediction.file), best, *([", ".join(others)] if others else [])]
        table.add_row(*map(Text, cells))  # Text, as rich would interpret a name such as [red]
    return table


def _csv(predictions: Sequence[Prediction]) -> bytes:
    ranks = range(1, len(predictions[0].top) + 1)
    rows = [["file", *(f"{column}_{rank}" for rank in ranks for column in ("class", "probability"))]]
    for prediction in predictions:
        cells = [cell for name, share in prediction.top for cell in (name, f"{share:.6f}")]
        rows.append([str(prediction.file), *cells])
    return csv_text(rows).encode(errors="surrogateescape")


def _json(predictions: Sequence[Prediction]) -> bytes:
    rows = [
        {"file": str(p.file), "top": [{"class": name, "probability": round(share, 6)} for name, share in p.top]}
        for p in predictions
    ]
    return json_text(rows).encode()


def _draw(predictions: Sequence[Prediction], images: Tensor) -> Figure:
    """Return a figure of images (N, C, H, W) as the model sees them, with the best class and its probability below."""
    columns = min(8, len(images))
    rows = -(-len(images) // columns)
    figure = Figure(figsize=(1.35 * columns, 1.65 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis in axes:
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
    for axis, prediction, image in zip(axes, predictions, images, strict=False):
        pixels = image.permute(1, 2, 0).expand(-1, -1, 3).numpy()
        name, share = prediction.top[0]
        axis.imshow(pixels, interpolation="nearest")
        text = f"{textwrap.fill(name, 16)}\n{100 * share:.1f} %"
        axis.set_xlabel(text, fontsize=8, parse_math=False)  # a name may contain dollar signs
    return figure


def _remarks(tally: Tally, size: int, skipped: Sequence[Path], sheet: Path | None) -> list[str]:
    remarks, count = [], tally.images
    if tally.resized:
        remarks.append(f"{tally.resized} of {count} images were resized to {size}x{size}")
    if skipped:
        some = ", ".join(map(shown, skipped[:3])) + (", ..." if len(skipped) > 3 else "")
        remarks.append(f"{len(skipped)} of {count + len(skipped)} files are not images and were skipped: {some}")
    if sheet and count > ON_SHEET:
        remarks.append(f"the sheet has the first {ON_SHEET} of {count} images")
    return remarks
