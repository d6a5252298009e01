"""`cvcc-zoo split FOLDER --output=NEW`: divide an image folder into train, val and test, and find duplicates."""

import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from rich.table import Table
from rich.text import Text

from cvcc_zoo.cli.parsing import ZooParser, command_parser
from cvcc_zoo.data.decoded import raise_all
from cvcc_zoo.data.duplicates import Numbers, duplicates, joined, members, several
from cvcc_zoo.data.finding import Links
from cvcc_zoo.data.layout import check_several, find_classes, find_splits, labelled
from cvcc_zoo.data.looks import Looks, look_at
from cvcc_zoo.data.opening import MAX_PIXELS
from cvcc_zoo.data.partition import partition
from cvcc_zoo.data.workers import read_each
from cvcc_zoo.files.own import UNFINISHED, UNLOCKABLE, check_new_folder, csv_text, expanded, in_command, locked, shown
from cvcc_zoo.files.signals import ended_by_signals
from cvcc_zoo.printing import say
from cvcc_zoo.printing.console import PlainConsole
from cvcc_zoo.printing.progress import tracked
from cvcc_zoo.registry import pick

DUPLICATES = "duplicates.csv"
TREATMENTS = ("list", "together")
LEFT_BEHIND = (".DS_Store", "Thumbs.db", "desktop.ini")
"""Files that macOS and Windows write into a folder that somebody opened; they may be replaced."""


def parser() -> ZooParser:
    """Return the parser of the command."""
    parser = command_parser("split", "FOLDER --output=NEW [options]", "The originals are not changed.")
    parser.add_argument("folder", type=str, help="A folder with a folder of images for each class.")
    parser.add_argument("--output", type=str, required=True, help="The new folder with train, val and test.")
    parser.add_argument("--val", type=float, default=0.1, help="Share of each class for validation, in [0, 1).")
    parser.add_argument("--test", type=float, default=0.1, help="Share of each class for the test, in [0, 1).")
    parser.add_argument("--seed", type=int, default=0, help="Seed for the choice of images.")
    parser.add_argument(
        "--group",
        type=str | None,
        default=None,
        help="A regular expression; images in whose file names its first group is the same stay in one split.",
    )
    parser.add_argument("--copy", action="store_true", help="Copy the files; otherwise the new folder has links.")
    parser.add_argument(
        "--duplicates",
        type=str,
        default="list",
        help=f"list writes exact and near duplicates to {DUPLICATES}; together also keeps them in one split.",
    )
    parser.add_argument("--data.max_pixels", type=int, default=MAX_PIXELS, help="Refuse images with more pixels.")
    return parser


def main(args: Sequence[str]) -> int:
    """Run the command. Nothing is written if an image cannot be read."""
    options = parser().parse_args(list(args))
    root, output = expanded(options.folder), expanded(options.output)
    shares, treatment = shares_of(options.val, options.test), pick("treatment", options.duplicates, TREATMENTS)
    check_output(root, output)
    files, classes = images_of(root)
    groups = groups_of(files, options.group)
    exact, near = duplicates(looks_of([path for path, _ in files], options.data.max_pixels))
    labels = np.array([label for _, label in files])
    together = joined(groups, near) if treatment == "together" else groups
    splits = partition(labels, together, shares, options.seed, classes)
    places = [
        Path(list(shares)[split], classes[label], *Path(path).relative_to(root).parts[1:])
        for (path, label), split in zip(files, splits, strict=True)
    ]
    sets = [images for images in members(near) if len(images) > 1]
    with ended_by_signals(), written(output.resolve()) as folder:
        for (path, _), place in zip(files, places, strict=True):
            put(Path(path), folder / place, copy=options.copy)
        if sets:
            rows = rows_of(places, exact, sets, splits)
            (folder / DUPLICATES).write_text(csv_text(rows), encoding="utf-8", errors="surrogateescape")
    PlainConsole().print(table_of(labels, splits, classes, list(shares), str(output)))
    for line in remarks(exact, sets, splits, labels, output / DUPLICATES):
        say(line)
    more = " --data.follow_links=true" * (not options.copy) + " --test=false" * ("test" not in shares)
    if "val" not in shares and np.bincount(labels[splits == 0]).min() < 2:
        more += " --data.validation=0"  # of one training image none can be held out
    say(f"Train on it: cvcc-zoo fit --data.root={in_command(output)}{more} (--data.image_size=32 if the sizes differ)")
    return 0


def shares_of(val: float, test: float) -> dict[str, float]:
    """Return the share of each split that is wanted. Raises ValueError if they are not shares of a whole."""
    if not (0 <= val < 1 and 0 <= test < 1 and 0 < val + test < 1):
        raise ValueError(
            f"--val and --test are shares of the images, together above 0 and below 1, not {val} and {test}"
        )
    return {name: share for name, share in {"train": 1 - val - test, "val": val, "test": test}.items() if share}


def check_output(root: Path, output: Path) -> None:
    """Raise OSError or ValueError unless the images are a folder, and the output is new or empty and not inside it."""
    if not root.is_dir():
        raise FileNotFoundError(
            f"there is no folder {shown(root)}; give a folder with a folder of images for each class"
        )
    if output.exists() and not (output.is_dir() and {path.name for path in output.iterdir()} <= {*LEFT_BEHIND}):
        raise FileExistsError(f"{shown(output)} exists and is not an empty folder; choose another --output")
    target = output.resolve()  # a link to it stays
    if Path.cwd().is_relative_to(target) or os.path.ismount(target):
        raise ValueError(f"{shown(output)} would be replaced while it is in use; give a new folder in it as --output")
    if target.is_relative_to(root.resolve()):
        raise ValueError(f"{shown(output)} would be inside the originals; choose an --output elsewhere")
    check_new_folder(target)


def images_of(root: Path) -> tuple[list[tuple[str, int]], tuple[str, ...]]:
    """Return the (path, label) pairs and the classes of an image folder. Raises ValueError if it has splits already."""
    links = Links(root, follow=True)
    try:
        found = find_splits(root, links)[0]
    except FileNotFoundError:  # neither classes nor a `train`: `find_classes` says what is missing
        found = {}
    if found:
        names = ", ".join(path.name for path in found.values())
        raise ValueError(f"{shown(root)} is divided already ({names}); give one of these folders")
    classes = find_classes(root, links)
    check_several(root, classes)
    return labelled(classes), tuple(sorted(classes))


def groups_of(files: Sequence[tuple[str, int]], pattern: str | None) -> Numbers:
    """Return the number of the group of each image (N,); without a pattern each image is a group of its own.

    Raises ValueError for a pattern that is not a regular expression with a group, or that a file name does not match.
    """
    if pattern is None:
        return np.arange(len(files))
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise ValueError(f"--group={pattern} is not a regular expression: {error}; correct it") from error
    if not expression.groups:
        raise ValueError(f"--group={pattern} has no group; put the part that names the object in parentheses")
    matches = [expression.search(Path(path).name) for path, _ in files]
    missed = [path for (path, _), found in zip(files, matches, strict=True) if found is None or found[1] is None]
    if missed:
        raise ValueError(
            f"{len(missed):,} of {len(files):,} file names do not match --group={pattern}, for example "
            f"{shown(missed[0])}; correct it"
        )
    _, numbers = np.unique([found[1] for found in matches if found is not None], return_inverse=True)
    return numbers.astype(np.int64)


def looks_of(paths: list[str], max_pixels: int) -> Looks:
    """Return the looks of all images. Raises UnreadableImageError, which names every image that cannot be read."""
    images = read_each(paths, partial(look_at, max_pixels=max_pixels))
    found = [each for _, each in tracked(images, "images read", len(paths), lambda _: 1)]
    raise_all([each for each in found if isinstance(each, ValueError)])
    digests, small = zip(*(each for each in found if not isinstance(each, ValueError)), strict=True)
    return np.stack(digests), np.stack(small)


@contextmanager
def written(output: Path) -> Iterator[Path]:
    """Fill a folder in a hidden one, which becomes `output` when it is complete, and is removed otherwise.

    What a killed process left there is removed, too. Raises FileExistsError while another process writes there. On a
    disk that cannot lock files, each process has a hidden folder of its own.
    """
    hidden = output.with_name(f".{output.name}{UNFINISHED}")
    hidden.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(hidden, "writing", "--output"))
        except OSError as error:
            if error.errno not in UNLOCKABLE:
                raise
            hidden = Path(stack.enter_context(TemporaryDirectory(UNFINISHED, f".{output.name}-", output.parent)))
        unfinished = hidden / output.name
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir()
        try:
            yield unfinished
            if output.exists():
                for name in LEFT_BEHIND:
                    (output / name).unlink(missing_ok=True)
                output.rmdir()  # it is empty now
            unfinished.rename(output)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)


def put(source: Path, target: Path, *, copy: bool) -> None:
    """Make a copy of a file, or a link to it. Raises ValueError if the target exists or links cannot be made."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        raise ValueError(f"two files would be {shown('/'.join(target.parts[-2:]))}; rename {shown(source)}")
    if copy:
        shutil.copyfile(source, target)
        return
    try:
        target.symlink_to(source.resolve())
    except OSError as error:
        raise ValueError(f"links cannot be made in {shown(target.parent)} ({error.strerror}); choose --copy") from error


def rows_of(places: Sequence[Path], exact: Numbers, sets: Sequence[Numbers], splits: Numbers) -> list[list[str | int]]:
    """Return the rows of the file of duplicates: each image that has some, set by set."""
    rows: list[list[str | int]] = [["set", "kind", "across_splits", "file"]]
    for number, images in enumerate(sets, start=1):
        kind = "exact" if len(set(exact[images])) == 1 else "near"
        across = "yes" if len(set(splits[images])) > 1 else "no"
        rows += [[number, kind, across, places[image].as_posix()] for image in images]
    return rows


def remarks(exact: Numbers, sets: Sequence[Numbers], splits: Numbers, labels: Numbers, path: Path) -> list[str]:
    """Return lines about the sets of duplicates that were found."""
    if not sets:
        return ["No duplicates were found."]
    same = several(exact).sum()
    across = sum(len(set(splits[images])) > 1 for images in sets)
    mixed = sum(len(set(labels[images])) > 1 for images in sets)
    lines = [
        f"images with exact duplicates: {same:,}, only with near ones: {sum(map(len, sets)) - same:,}, "
        f"sets of duplicates: {len(sets):,}; listed in {shown(path)}"
    ]
    if across:
        lines.append(f"sets that lie across splits: {across:,}; --duplicates=together keeps each in one split")
    if mixed:
        lines.append(f"sets with images of several classes: {mixed:,}; check their labels")
    return lines


def table_of(labels: Numbers, splits: Numbers, classes: Sequence[str], names: Sequence[str], title: str) -> Table:
    """Return a table with the number of images of each class in each split."""
    counts = np.stack([np.bincount(labels[splits == number], minlength=len(classes)) for number in range(len(names))])
    table = Table(title=Text(title), show_footer=True)
    table.add_column("class", footer="all", overflow="fold")
    for name, column in zip((*names, "all"), (*counts, counts.sum(0)), strict=True):
        table.add_column(name, footer=f"{column.sum():,}", justify="right")
    for label, name in enumerate(classes):
        table.add_row(Text(name), *(f"{count:,}" for count in (*counts[:, label], counts[:, label].sum())))
    return table
