"""All measurements of speed: `python -m benchmarks.run --only=training,startup --dataset=folder --root=IMAGE_FOLDER`.

This package and the alternative take turns in one run. The numbers are added to docs/performance.json, and
docs/performance.md and its figures are made from this file. `--only=inference` needs `pip install -e '.[bench]'`.
`--quick` takes a few minutes, and only prints the numbers.
"""

import argparse
import importlib
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path

import torch

from benchmarks import quick
from benchmarks.measure import limits, name_of, versions
from benchmarks.page import CPU, CUDA, TOPICS, lines, place, write_page
from benchmarks.report import Row, save
from benchmarks.sides import Settings, without_gpu
from benchmarks.timm_script import REPOSITORY, source
from cvcc_zoo.cli.allocation import keep_freed_memory
from cvcc_zoo.data import ImageDataModule
from cvcc_zoo.printing.notices import only_warnings

DOCS = Path(__file__).parents[1] / "docs"
NEED_TESTS, NEED_NO_IMAGES = {"inference", "accuracy_time"}, {"startup", "growth", "step_parts", "winograd"}


def measure_all(chosen: Sequence[str], settings: Settings, docs: Path, file: Path) -> None:
    """Measure topics, and write the results after each, and after each of their lines."""
    for topic in chosen:
        device = CUDA if CUDA in TOPICS[topic] and torch.cuda.is_available() else TOPICS[topic][0]
        for line in lines(topic):
            if line and settings.lines and line not in settings.lines:
                continue
            here = device if torch.cuda.is_available() else CPU  # a small run on a CPU may try what is for a GPU
            about = {"machine": name_of(here), "versions": versions(), "limits": limits(here)}
            about["date"] = f"{datetime.now(UTC):%Y-%m-%d}"
            print(f"{topic} {line}: {about}", flush=True)
            with without_gpu() if device == CPU else nullcontext():
                found = importlib.import_module(f"benchmarks.{topic}").measure(replace(settings, lines=(line,)))
            show(found.rows)
            write_page(save(file, place(topic, device, line), about, found), docs)


def measure_quickly(settings: Settings) -> None:
    """Print each topic as it is measured, and a table of all."""
    machines = [name_of(CPU), *([name_of(CUDA)] if torch.cuda.is_available() else [])]
    about, start, rows = "; ".join([*machines, versions()]), time.perf_counter(), list[Row]()
    print(f"{about}; images: {settings.root or settings.dataset}", flush=True)
    busy = ""
    if (others := os.getloadavg()[0]) > 1:
        busy = f"Other programs had {others:.0f} busy threads in the last minute, which distorts the ratios"
        print(f"{busy}; stop them first.", flush=True)
    for found in quick.measure(settings):
        show(found)
        rows += found
    quick.show(rows, about)
    if busy:
        print(f"{busy.replace('in the last minute', 'at the start')}: measure again without them.")
    print(f"It took {(time.perf_counter() - start) / 60:.1f} minutes.")


def show(rows: Sequence[Row]) -> None:
    """Print rows at once."""
    for row in rows:
        print("  " + " | ".join(row.cells()), flush=True)


def main(args: Sequence[str] | None = None) -> int:
    """Measure what is chosen."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="print the ratios of this machine in five minutes")
    parser.add_argument("--only", help=f"some topics of {', '.join(TOPICS)}, separated by commas; all by default")
    parser.add_argument("--lines", default="", help=f"lines of gpu_training: {', '.join(lines('gpu_training'))}")
    parser.add_argument("--dataset", help="cifar10 by default; with --root folder, with --quick fashion-mini")
    parser.add_argument("--root", help="folder of the images")
    parser.add_argument("--repeats", type=int, help="runs of each side; 3 by default, with --quick 1")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of torch, for each process")
    parser.add_argument("--small", action="store_true", help="a few batches of each, to check that everything runs")
    parser.add_argument("--timm_train", type=Path, metavar="PATH", help=f"train.py in a checkout of {REPOSITORY}")
    parser.add_argument("--docs", type=Path, help="folder of the page; docs by default")
    parser.add_argument("--json", type=Path, help="file of the numbers; by default beside the page")
    options = parser.parse_args(args)
    try:
        chosen, settings = check(options)
        docs = options.docs or DOCS
        file = options.json or docs / "performance.json"
        if not options.quick:
            check_writable(docs, file)
        read_images(settings, NEED_TESTS if options.quick else set(chosen))
    except (ValueError, OSError) as error:
        parser.error(str(error).replace("--data.", "--"))
    threads = torch.get_num_threads()
    torch.set_num_threads(settings.threads)
    keep_freed_memory()  # as the command does
    try:
        with warnings.catch_warnings(action="ignore"), only_warnings():
            if options.quick:
                measure_quickly(settings)
            else:
                measure_all(chosen, settings, docs, file)
    finally:
        torch.set_num_threads(threads)
    return 0


def check(options: argparse.Namespace) -> tuple[list[str], Settings]:
    """Return the topics and the settings. Raises ValueError for options that are wrong or do not belong together."""
    gpu, known = torch.cuda.is_available(), lines("gpu_training")
    chosen = options.only.split(",") if options.only else [each for each in TOPICS if gpu or CPU in TOPICS[each]]
    if unknown := [topic for topic in chosen if topic not in TOPICS]:
        raise ValueError(f"there is no topic {', '.join(unknown)}; choose from {', '.join(TOPICS)}")
    names = tuple(options.lines.split(",")) if options.lines else ()
    if unknown := [line for line in names if line not in known]:
        raise ValueError(f"there is no line {', '.join(unknown)}; choose from {', '.join(known)}")
    if options.quick and (options.only or options.docs or options.json):
        raise ValueError("--quick chooses its own topics and only prints them; leave out --only, --docs and --json")
    if "gpu_training" in chosen and not gpu and not options.small:
        raise ValueError("gpu_training needs a GPU that torch can use; add --small to try it on the CPU")
    if options.timm_train and not options.timm_train.is_file():
        raise ValueError(f"there is no file {options.timm_train}; `git clone {REPOSITORY}` brings timm's train.py")
    on_gpu = gpu if options.quick else "gpu_training" in chosen
    if (names or options.timm_train) and not on_gpu:
        why = "and torch finds none" if options.quick else "which --only leaves out"
        raise ValueError(f"--lines and --timm_train belong to training on a GPU, {why}; leave them out")
    if options.small and not options.quick and not options.docs:
        raise ValueError("the numbers of --small mean nothing; name another folder for them with --docs=FOLDER")
    if "inference" in chosen and not options.quick and find_spec("onnxruntime") is None:
        raise ValueError("inference needs ONNX Runtime: pip install -e '.[bench]'")
    repeats = (1 if options.quick else 3) if options.repeats is None else options.repeats
    if repeats < 1 or options.threads < 1:
        raise ValueError("--repeats and --threads must be at least 1")
    if on_gpu and not options.timm_train:
        print(f"timm's train.py is left out; after `git clone {REPOSITORY}` name it with --timm_train=PATH", flush=True)
    dataset = options.dataset or ("folder" if options.root else "fashion-mini" if options.quick else "cifar10")
    if options.timm_train:
        source(dataset, options.root)
    return chosen, Settings(dataset, options.root, repeats, options.threads, options.small, names, options.timm_train)


def check_writable(docs: Path, file: Path) -> None:
    """Create the folders of the results. Raises ValueError if nothing can be written there."""
    for folder in (docs, file.parent):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            raise ValueError(f"cannot write to {folder} ({error.strerror}); choose a folder with --docs") from None


def read_images(settings: Settings, topics: set[str]) -> None:
    """Read the images that the topics need, so that wrong ones are found before anything is measured."""
    data = ImageDataModule(settings.dataset, settings.root, validation=0)
    if topics - NEED_NO_IMAGES:
        data.training_images()
    if topics & NEED_TESTS:
        data.setup("test")


if __name__ == "__main__":
    sys.exit(main())
