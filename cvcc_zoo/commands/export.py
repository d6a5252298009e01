"""`cvcc-zoo export NAME`: write a trained model as a file that runs without this package, and check it on images.

session = onnxruntime.InferenceSession("resnet20.cifar10.onnx")
classes = json.loads(session.get_modelmeta().custom_metadata_map["classes"])
logits = session.run(["logits"], {"images": images})[0]  # uint8 (N, 3, 32, 32), for any N

With `--dynamic_size=true`, for networks with global pooling, it takes images of any height and width without resizing
them.

about = {"classes": ""}  # or name, model, dataset, sha256, input, output
model = torch.export.load("resnet20.cifar10.pt2", extra_files=about).module()  # takes up to --max_batch images
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from cvcc_zoo.cli.parsing import ZooParser, command_parser
from cvcc_zoo.data.finding import is_junk
from cvcc_zoo.export.images import images_to_check
from cvcc_zoo.export.program import BATCHES, ENDINGS, MAX_BATCH, export
from cvcc_zoo.export.web import PACKAGE, PAGE, PROGRAM, find_runtime, write_page
from cvcc_zoo.files.own import expanded, write_whole
from cvcc_zoo.printing.console import PlainConsole
from cvcc_zoo.runs.written import not_ended
from cvcc_zoo.zoo.averaging import find_average, names_in


def parser() -> ZooParser:
    """Return the parser of the command."""
    parser = command_parser("export", "NAME [options]", "It takes raw uint8 images and returns logits.")
    parser.add_argument("name", type=str, help="Published weights, the path of a card, a run folder or a checkpoint.")
    parser.add_argument(
        "--format",
        type=Literal["onnx", "torch_export", "web"],
        default="onnx",
        help="An .onnx file, a .pt2 file, or a folder with a page that classifies images in the browser.",
    )
    parser.add_argument(
        "--max_batch", type=int, default=None, help=f"torch_export: the largest batch; by default {MAX_BATCH}."
    )
    parser.add_argument("--dynamic_size", type=bool, default=False, help="onnx: take images of any height and width.")
    parser.add_argument(
        "--test_time_flip",
        type=bool,
        default=False,
        help="Let the program return the mean of the logits of each image and its mirror image.",
    )
    parser.add_argument(
        "--output",
        type=str,
        default="",
        help="The file; by default NAME with the ending of the format, in this folder. web: the folder, NAME-web.",
    )
    parser.add_argument(
        "--runtime",
        type=str,
        default="",
        help=f"web: the folder or the .tgz file of the npm package {PACKAGE}; by default npm gets it.",
    )
    parser.add_argument(
        "--data.dataset",
        type=str | None,
        default=None,
        help="The data set whose test images check the file; by default that of the run.",
    )
    parser.add_argument("--data.root", type=str, default=None, help="Their folder.")
    return parser


def main(args: Sequence[str]) -> int:
    """Run the command."""
    config = parser().parse_args(list(args))
    page, target = config.format == "web", expanded(config.output) if config.output else None
    if page and target:
        _check_folder(target)
    elif target and target.suffix != (ending := ENDINGS[config.format]):
        raise ValueError(f"a file of --format={config.format} ends in {ending}; choose another --output than {target}")
    if target and not target.parent.is_dir():
        raise ValueError(f"the folder {target.parent} does not exist; make it, or choose another --output=...")
    if config.dynamic_size and config.format != "onnx":
        raise ValueError("--dynamic_size=true is for --format=onnx; leave it out, or choose that format")
    if config.max_batch is not None and (config.format != "torch_export" or config.max_batch < 2):
        raise ValueError("--max_batch is for --format=torch_export, and at least 2; ONNX takes any number of images")
    if config.runtime and not page:
        raise ValueError("--runtime is for --format=web; leave it out, or choose that format")
    if len(names_in(config.name)) > 1:
        raise ValueError(f"a program holds one model; export each of {config.name} by itself")
    (trained,) = find_average(config.name, flip=config.test_time_flip).members
    size, channels = trained.model.image_size, trained.model.in_channels
    if page:
        folder = target or Path(f"{trained.name}-web")
        _check_folder(folder)
        if channels not in (1, 3):
            raise ValueError(f"images in a browser have 1 or 3 channels, and {trained.name} takes {channels}")
        runtime = find_runtime(config.runtime)
        written = folder / PAGE
    else:
        written = target or Path(trained.name + ENDINGS[config.format])
    replaced = "; it replaces the file that was there" if written.exists() else ""
    checked = images_to_check(trained, config.data.dataset, config.data.root)
    how = {
        "max_batch": config.max_batch or MAX_BATCH,
        "dynamic_size": config.dynamic_size,
        "flip": config.test_time_flip,
    }
    if page:
        with TemporaryDirectory() as place, _made(folder):
            file = Path(place) / PROGRAM
            agreement = export(trained, file, "onnx", checked.images, **how)
            write_page(trained, file.read_bytes(), folder, runtime)
            write_whole(folder / PROGRAM, file.read_bytes())
    else:
        agreement = export(trained, written, config.format, checked.images, **how)
    console = PlainConsole(soft_wrap=True)
    if begun := not_ended(trained.file.parent):
        console.print(begun)
    console.print(
        f"{trained.name}: {', '.join(map(str, BATCHES[:-1]))} and {BATCHES[-1]} {checked.title} as "
        f"{channels}x{size}x{size}: the same classes, and logits that differ by at most "
        f"{agreement.difference:.1e} (the largest is {agreement.largest:.3g})"
        f"{'; ' + checked.note if checked.note else ''}\n"
        f"written to {written} ({written.stat().st_size / 1e6:.2f} MB){replaced}"
    )
    return 0


def _check_folder(folder: Path) -> None:
    """Raise ValueError for a folder with files that are not those of a page, such as a model.onnx alone."""
    files = _files(folder) if folder.is_dir() else set()
    if (folder.exists() and not folder.is_dir()) or files - {PAGE, PROGRAM} or files == {PROGRAM}:
        raise ValueError(f"{folder} exists and is not the folder of a page; choose another --output=FOLDER")


def _files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if not is_junk(path.name)}


@contextmanager
def _made(folder: Path) -> Iterator[None]:
    """Make a folder if there is none, and remove it if it stays empty because of an error."""
    folder.mkdir(exist_ok=True)
    try:
        yield
    finally:
        with suppress(OSError):  # it is not empty
            folder.rmdir()
