"""All measurements of speed: `python -m benchmarks.run --only=training,startup --dataset=folder --root=IMAGE_FOLDER`.

Ours and the alternative take turns in one run. The numbers go into a JSON file, beside those of topics that were
measured before, and from them the page and its pictures are made. Needs `pip install -e '.[bench]'`.
"""

import argparse
import importlib
import logging
import sys
import warnings
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from benchmarks.measure import limits, machine
from benchmarks.report import GPU, draw_curves, draw_ratios, page, save
from benchmarks.sides import Settings

TOPICS = ("training", "lightning_cost", "network_share", "accuracy_time", "inference", "startup", "memory", "growth")
DOCS = Path(__file__).parents[1] / "docs"
INTRODUCTION = """# How fast it is

Each number stands beside that of what a user would pick instead, or beside a limit. Both were measured in one run,
taking turns, by `python -m benchmarks.run --dataset=folder --root=IMAGES`, which writes this page, its pictures and
[performance.json](performance.json); `--only=startup,memory` measures some of it again. Absolute times depend on the
machine and on who else uses it: the ratios are what counts.

What makes the difference, without being asked for:

- Images stay bytes in one tensor, mapped from a file. A batch is gathered, augmented and whitened as a whole, in the
  process that trains: no worker decodes, no worker copies.
- Convolutional networks are given their images in channels_last.
- The program keeps the memory that it frees. By default glibc gives blocks of megabytes back and asks for them again in
  every step, and the system fills them with zeros. In Python: `cvcc_zoo.cli.allocation.keep_freed_memory()`; the user's
  `MALLOC_TRIM_THRESHOLD_`, `MALLOC_MMAP_THRESHOLD_`, `GLIBC_TUNABLES` or `LD_PRELOAD` are left alone.
- Without an accelerator the program does not import triton, the compiler for one, which torch looks for: half a second
  and 77 MB.
- The program imports and ends without a search for garbage among its objects, and lists the files of an image folder
  without an object for each: a training of five batches of CIFAR-10 took 5.4 s, from start to end, in place of 7.2
  (medians of three that took turns, on the Intel Xeon below).
- Gradients are let go after a step, not after the next forward pass: their small blocks would break up the memory that
  it wants back, which costs a training of resnet20 60 MB.
- Optimizers run by torch's fused kernels, or are as fast ([optimizers](optimizers.md)).
- Metrics add up on the device; a row is logged every few steps; the seeds of a step are set for one device.
- An evaluation folds norms into convolutions.
- On a GPU several batches are augmented at once, with as many kernels as one, and Muon's Newton-Schulz steps are one
  CUDA graph, which changes no bit. airbench94's method, given both and a graph of its network, takes 1.58 s in place of
  2.32 (6 and 11 runs, each on an H200).
- On a GPU `cvcc-zoo train-zoo` compiles, and replays the kernels as CUDA graphs: a step of wrn16_4 with 128 images in
  bfloat16, forward and backward pass, took 22.7 ms without, 9.3 compiled and 4.9 with graphs (an H200, eight other
  processes beside it). On a CPU `--trainer.callbacks+=Compile` compiles: a step of resnet20 takes 118 ms in place of
  153, after 20 s, which are spared again within 570 steps. It is not chosen for you there, because it needs a C++
  compiler, rounds otherwise, and does not pay for every network and precision. Validation and test stay uncompiled.
- Nothing is computed in less than float32 unless you ask: `--trainer.precision=bf16-mixed`, which pays on a GPU and on
  some processors with instructions for bfloat16, an AMD EPYC and an Intel Xeon with its matrix unit among them. A Xeon
  in a virtual machine that hides the unit has instructions too, and its convolutions take 1.7 times as long as in
  float32: `cvcc-zoo train-zoo` times one to choose.

The picture is of a CPU, and so are the tables that name no GPU. `train-zoo` for all recipes was not measured on one.

![Ratios](pictures/performance.png)"""


def texts() -> dict[str, str]:
    """Title and description of each topic: the docstring of its module."""
    return {topic: importlib.import_module(f"benchmarks.{topic}").__doc__ or "" for topic in TOPICS}


def write_page(content: dict[str, Any], docs: Path) -> None:
    """The page and its pictures, from the numbers alone."""
    pictures = docs / "pictures"
    pictures.mkdir(exist_ok=True)
    (docs / "performance.md").write_text(page(content, texts(), INTRODUCTION))
    draw_ratios({topic: content[topic] for topic in TOPICS if topic in content}, pictures / "performance.png")
    for topic, found in content.items():
        if found["curves"]:
            draw_curves(found["curves"], pictures / f"{topic}.png")


def main(args: Sequence[str] | None = None) -> int:
    """Measure topics, and write what was found after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(TOPICS), help=f"some of {', '.join(TOPICS)}")
    parser.add_argument("--dataset", default="cifar10")
    parser.add_argument("--root")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--small", action="store_true", help="a few batches of each: only whether everything runs")
    parser.add_argument("--docs", type=Path, default=DOCS, help="folder of the page")
    parser.add_argument("--json", type=Path, help="file of the numbers; by default beside the page")
    options = parser.parse_args(args)
    chosen = options.only.split(",")
    if unknown := [topic for topic in chosen if topic not in TOPICS]:
        parser.error(f"there is no topic {', '.join(unknown)}; choose from {', '.join(TOPICS)}")
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    settings = Settings(options.dataset, options.root, options.repeats, options.threads, options.small)
    file = options.json or options.docs / "performance.json"
    for topic in chosen:
        about = f"{machine()}, {options.threads} threads; {limits()}; {datetime.now(UTC):%Y-%m-%d}"
        print(f"{topic}: {about}", flush=True)
        found = importlib.import_module(f"benchmarks.{topic}").measure(settings)
        for row in found.rows:
            print("  " + " | ".join(row.cells()), flush=True)
        place = topic + GPU if torch.cuda.is_available() else topic
        write_page(save(file, place, {"about": about}, found), options.docs)
    return 0


if __name__ == "__main__":
    sys.exit(main())
