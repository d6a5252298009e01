"""Training on a CPU.

`cvcc-zoo fit` with its defaults against the script that one would write without this package (`benchmarks/usual.py`):
torchvision's transforms on PIL images, a DataLoader with two workers, the same network, AdamW, and Lightning with its
defaults. Both train in batches of 128 and print to a terminal. Images per second are the training images divided by the
time of the whole process, with imports, data and checkpoints; medians of runs that take turns. Small models are trained
for few epochs and for more, because the start, 5 s on both sides and mostly imports, is a large part of the short run.
Most of a step of fcnn is spent in the ten matrix products of the network, which both sides compute.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch

from benchmarks.report import Found, Row
from benchmarks.sides import Ended, Settings, fit, usual
from cvcc_zoo.data import ImageDataModule
from cvcc_zoo.timing import alternate, fast_precision

BATCH = 128


@dataclass(frozen=True)
class Case:
    """A model, how long it is trained, and how many times faster it should be."""

    model: str
    epochs: int
    batches: int | None
    least: float | None


CASES = (
    Case("linear", 5, None, None),
    Case("linear", 30, None, 6.0),
    Case("fcnn", 3, None, None),
    Case("fcnn", 12, None, 2.0),
    Case("resnet20", 1, None, 1.4),
    Case("resnext29_32x4d", 1, 20, 1.3),
)


def taken(side: Callable[..., Ended], settings: Settings, options: list[str]) -> float:
    """Return the seconds of a whole process."""
    return side(settings, *options).seconds


def measure(settings: Settings) -> Found:
    """Return a row for each model, and one with bfloat16 if the processor computes in it."""
    images = len(ImageDataModule(settings.dataset, settings.root, validation=0).training_images()[2])
    rows = []
    for case in CASES:
        batches = 2 if settings.small else case.batches
        count = case.epochs * BATCH * (batches or images // BATCH)
        limit = [f"--trainer.limit_train_batches={batches}"] if batches else []
        ours = [f"--model={case.model}", f"--trainer.max_epochs={case.epochs}", *limit]
        theirs = [f"--model={case.model}", f"--epochs={case.epochs}", f"--batches={batches or images // BATCH}"]
        sides = {
            "ours": partial(taken, fit, settings, ours),
            "usual": partial(taken, usual, settings, theirs),
        }
        if not torch.cuda.is_available() and fast_precision() != "32-true" and case.model != "linear":
            sides["bfloat16"] = partial(taken, fit, settings, [*ours, f"--trainer.precision={fast_precision()}"])
        rates = {name: count / seconds for name, seconds in alternate(sides, settings.repeats).items()}
        what = f"{case.model}, {count:,} images"
        rows.append(Row(what, "images/s", rates["ours"], "the usual script", rates["usual"], least=case.least))
        if "bfloat16" in rates:
            rows.append(Row(f"{what}, bf16-mixed", "images/s", rates["bfloat16"], "the usual script", rates["usual"]))
    return Found(rows)
