"""All measurements of speed: `python -m benchmarks.run --only=training,startup --dataset=folder --root=IMAGE_FOLDER`.

This package and the alternative take turns in one run. The numbers are written to a JSON file, beside those of topics
that were measured before, and the page and its figures are made from this file. Needs `pip install -e '.[bench]'`.
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
INTRODUCTION = """# Speed

Each number is compared with the alternative that a user would pick, or with a limit. Both were measured in one run,
taking turns, by `python -m benchmarks.run --dataset=folder --root=IMAGES`, which writes this page, its figures and
[performance.json](performance.json); `--only=startup,memory` repeats some of the measurements. Absolute times depend on
the machine and on its other work, so compare the ratios.

These make the difference, and are on by default:

- Images stay bytes in one tensor, mapped from a file. A whole batch is gathered, augmented and whitened at once in the
  training process; there are no worker processes that decode or copy.
- Convolutional networks get their images in channels_last.
- The program keeps the memory that it frees. By default glibc returns blocks of megabytes to the system and requests
  them again in every step, and the system fills them with zeros. In Python, call
  `cvcc_zoo.cli.allocation.keep_freed_memory()`. If you have set `MALLOC_TRIM_THRESHOLD_`, `MALLOC_MMAP_THRESHOLD_`,
  `GLIBC_TUNABLES` or `LD_PRELOAD`, they are not changed.
- Without an accelerator, the program does not import triton, a compiler for accelerators that torch looks for. This
  saves half a second and 77 MB.
- The program starts and ends without garbage collection, and lists the files of an image folder without an object for
  each: a run of five batches of CIFAR-10 took 5.4 s from start to end instead of 7.2 (medians of three runs that took
  turns, on the Intel Xeon below).
- Gradients are freed after a step, not after the next forward pass. Otherwise their small blocks would fragment the
  freed memory, which costs resnet20 60 MB in training.
- Optimizers use torch's fused kernels, or are as fast ([optimizers](optimizers.md)).
- Metrics are summed on the device, a row is logged only every few steps, and a step sets the seeds of one device.
- Evaluation folds norms into convolutions.
- On a GPU, several batches are augmented at once, with as many kernels as one batch, and Muon's Newton-Schulz steps are
  one CUDA graph, which does not change a bit. With both, and a graph of its network, airbench94's method takes 1.58 s
  instead of 2.32 (6 and 11 runs, each on an H200).
- On a GPU, `cvcc-zoo train-zoo` compiles the network and replays its kernels as CUDA graphs. A step of wrn16_4 with 128
  images in bfloat16 (forward and backward pass) took 22.7 ms, 9.3 compiled, and 4.9 with graphs (an H200 with eight
  other processes). On a CPU, compile with `--trainer.callbacks+=Compile`: a step of resnet20 takes 118 ms instead of
  153, after 20 s of compilation, which 570 steps make up for. This is not the default on a CPU, because it needs a C++
  compiler, rounds differently, and does not pay off for every network and precision. Validation and test are not
  compiled.
- Everything is computed in float32 unless you choose `--trainer.precision=bf16-mixed`, which pays off on a GPU and on
  some processors with bfloat16 instructions, such as an AMD EPYC or an Intel Xeon with a matrix unit. A Xeon in a
  virtual machine that hides this unit has bfloat16 instructions too, but its convolutions take 1.7 times as long as in
  float32, so `cvcc-zoo train-zoo` times one before it chooses.

The figure shows a CPU, and so do the tables that name no GPU. `train-zoo` with all recipes was not measured on a GPU.

![Ratios](pictures/performance.png)"""


def texts() -> dict[str, str]:
    """Return the title and description of each topic: the docstring of its module."""
    return {topic: importlib.import_module(f"benchmarks.{topic}").__doc__ or "" for topic in TOPICS}


def write_page(content: dict[str, Any], docs: Path) -> None:
    """Write the page and its figures, from the numbers alone."""
    pictures = docs / "pictures"
    pictures.mkdir(exist_ok=True)
    (docs / "performance.md").write_text(page(content, texts(), INTRODUCTION))
    draw_ratios({topic: content[topic] for topic in TOPICS if topic in content}, pictures / "performance.png")
    for topic, found in content.items():
        if found["curves"]:
            draw_curves(found["curves"], pictures / f"{topic}.png")


def main(args: Sequence[str] | None = None) -> int:
    """Measure topics, and write the results after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(TOPICS), help=f"some of {', '.join(TOPICS)}")
    parser.add_argument("--dataset", default="cifar10")
    parser.add_argument("--root")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--small", action="store_true", help="a few batches of each, only to see that everything runs")
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
