"""`cvcc-zoo predict NAME IMAGE_OR_FOLDER...`: the most probable classes of image files.

Files become pixels as those of a folder do in training: turned upright by their EXIF orientation, made colour or grey,
and squashed to a square of the model's size. Transparency is dropped, 16-bit grey images are refused.
"""

import csv
import io
import os
import textwrap
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import UnidentifiedImageError
from rich.console import Console
from rich.table import Table
from rich.text import Text
from torch import Tensor

from cvcc_zoo.data.decode import Decoding, UnreadableImageError, open_image
from cvcc_zoo.files import file_to_write, json_text, shown, write_whole
from cvcc_zoo.parsing import ZooParser, install_yaml
from cvcc_zoo.trained import Trained, find_trained

BATCH = 256
ON_SHEET = 64
TOP = 5


@dataclass(frozen=True)
class Prediction:
    """The most probable classes of a file, best first, with their probabilities in [0, 1]."""

    file: Path
    top: list[tuple[str, float]]


@dataclass(frozen=True)
class Found:
    """Image files, how many of them have not the model's size, and files in folders that are no images."""

    files: list[Path]
    resized: int
    skipped: list[Path]


def main(args: Sequence[str]) -> int:
    """Run the command: nothing is written unless every image could be read."""
    install_yaml()
    parser = ZooParser(
        prog="cvcc-zoo predict",
        usage="cvcc-zoo predict NAME IMAGE_OR_FOLDER... [options]",
        description="Show the most probable classes of image files.",
    )
    parser.add_argument("name", type=str, help="Published weights, the path of a card, a run folder or a checkpoint.")
    parser.add_argument("images", type=str, nargs="+", help="Image files, and folders of them.")
    parser.add_argument("--top", type=int, default=None, help=f"How many classes; by default {TOP}, or all if fewer.")
    parser.add_argument("--output", type=str, default="", help="A .csv or .json file for the predictions.")
    parser.add_argument("--sheet", type=str, default="", help=f"A .png file for the first {ON_SHEET} images.")
    config = parser.parse_args(list(args))
    output = file_to_write(config.output, ".csv", ".json") if config.output else None
    sheet = file_to_write(config.sheet, ".png") if config.sheet else None
    trained = find_trained(config.name)
    classes = len(trained.classes)
    top = min(TOP, classes) if config.top is None else config.top
    if not 1 <= top <= classes:
        raise ValueError(f"{trained.name} has {classes} classes; choose --top=1 to {classes}, not {top}")
    size, channels = trained.model.image_size, trained.model.in_channels
    if channels not in (1, 3):
        raise ValueError(f"image files have 1 or 3 channels, and {trained.name} takes {channels}; call it in Python")
    decoding = Decoding(size, channels, same_size=False, grey_only=False)
    found = find_images([Path(given).expanduser() for given in config.images], size)
    predictions = predict(trained, found.files, decoding, top)
    console = Console(highlight=False, markup=False)
    console.print(_table(predictions, f"{trained.name}: classes and their probabilities"))
    if output:
        write_whole(output, (_json if output.suffix == ".json" else _csv)(predictions))
    if sheet:
        write_whole(sheet, _draw(predictions[:ON_SHEET], _pixels(found.files[:ON_SHEET], decoding)))
    for line in _remarks(found, size, sheet):
        console.print(line, soft_wrap=True)
    for written in filter(None, (output, sheet)):
        console.print(f"written to {written}", soft_wrap=True)
    return 0


def find_images(given: Sequence[Path], size: int) -> Found:
    """The image files among those given and below the folders given, sorted there; hidden ones are not looked at.

    Only headers are read. Raises FileNotFoundError or ValueError for what is missing, broken, or given as an image
    and none, and if there are no images at all.
    """
    files, skipped, resized = [], [], 0
    for place in given:
        if not place.exists():
            raise FileNotFoundError(f"there is no image or folder {shown(place)}")
        for path in _below(place) if place.is_dir() else [place]:
            try:
                with open_image(path) as image:
                    resized += image.size != (size, size)
            except UnreadableImageError as error:
                if path == place or not isinstance(error.__cause__, UnidentifiedImageError):
                    raise
                skipped.append(path)
                continue
            files.append(path)
    if not files:
        raise ValueError(f"there are no images in {', '.join(map(shown, given))}")
    return Found(files, resized, skipped)


def _below(folder: Path) -> list[Path]:
    paths = []
    for place, folders, names in os.walk(folder, onerror=_cannot_list):
        folders[:] = [name for name in folders if not name.startswith(".")]
        paths += [Path(place, name) for name in names if not name.startswith(".")]
    return sorted(paths)


def _cannot_list(error: OSError) -> None:
    raise ValueError(f"the folder {shown(error.filename)} cannot be listed ({error.strerror})") from error


def predict(trained: Trained, files: Sequence[Path], decoding: Decoding, top: int) -> list[Prediction]:
    """The `top` most probable classes of each file, on a GPU if there is one."""
    model = trained.model.to("cuda" if torch.cuda.is_available() else "cpu")
    predictions = []
    for start in range(0, len(files), BATCH):
        batch = files[start : start + BATCH]
        with torch.inference_mode():
            best = model(_pixels(batch, decoding).to(model.device)).float().softmax(1).topk(top)
        for file, shares, indices in zip(batch, best.values.tolist(), best.indices.tolist(), strict=True):
            names = [trained.classes[index] for index in indices]
            predictions.append(Prediction(file, list(zip(names, shares, strict=True))))
    return predictions


def _pixels(files: Sequence[Path], decoding: Decoding) -> Tensor:
    """Decoded images, uint8 (N, C, H, W)."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return torch.from_numpy(np.stack(list(pool.map(decoding, files))))


def _table(predictions: Sequence[Prediction], title: str) -> Table:
    """The best class of each file, and the next ones, in the order of their probability."""
    table = Table(title=title)
    table.add_column("file", overflow="fold")
    table.add_column("best", overflow="fold")
    if len(predictions[0].top) > 1:
        table.add_column("next", overflow="fold")
    for prediction in predictions:
        best, *others = [f"{name} {share:.3f}" for name, share in prediction.top]
        cells = [shown(prediction.file), best, *([", ".join(others)] if others else [])]
        table.add_row(*map(Text, cells))  # a name may hold what rich takes for a colour
    return table


def _csv(predictions: Sequence[Prediction]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    ranks = range(1, len(predictions[0].top) + 1)
    writer.writerow(["file", *(f"{column}_{rank}" for rank in ranks for column in ("class", "probability"))])
    for prediction in predictions:
        cells = [cell for name, share in prediction.top for cell in (name, f"{share:.6f}")]
        writer.writerow([prediction.file, *cells])
    return text.getvalue().encode(errors="surrogateescape")


def _json(predictions: Sequence[Prediction]) -> bytes:
    rows = [
        {"file": str(p.file), "top": [{"class": name, "probability": round(share, 6)} for name, share in p.top]}
        for p in predictions
    ]
    return json_text(rows).encode()


def _draw(predictions: Sequence[Prediction], images: Tensor) -> bytes:
    """A PNG of images (N, C, H, W) as the model sees them, the best class and its probability beneath each."""
    from matplotlib.figure import Figure  # takes half a second

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
        axis.set_xlabel(text, fontsize=8, parse_math=False)  # a name may hold dollars
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=120)
    return file.getvalue()


def _remarks(found: Found, size: int, sheet: Path | None) -> list[str]:
    count = len(found.files)
    remarks = []
    if found.resized:
        remarks.append(f"{found.resized} of {count} images were resized to {size}x{size}")
    if found.skipped:
        some = ", ".join(map(shown, found.skipped[:3])) + (", ..." if len(found.skipped) > 3 else "")
        remarks.append(f"{len(found.skipped)} of {count + len(found.skipped)} files are no images and skipped: {some}")
    if sheet and count > ON_SHEET:
        remarks.append(f"the sheet has the first {ON_SHEET} of {count} images")
    return remarks
