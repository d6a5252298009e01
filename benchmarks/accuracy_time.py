"""Time to accuracy.

`configs/cifar10/cnn_fast.yaml` through `cvcc-zoo fit` against the method of airbench94 with Muon, 8 epochs of the same
network (`benchmarks/airbench.py`), both in the precision that the processor is fastest in, with all training images and
tested once. Seconds are those of the training. Means over runs with seeds of their own that take turns. Accuracies are
without test-time augmentation; the table has them with it, too.
"""

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.report import Found, Row
from benchmarks.sides import Settings, run
from cvcc_zoo.commands.train_zoo import own_precision
from cvcc_zoo.data import ImageDataModule
from cvcc_zoo.scores import scores
from cvcc_zoo.zoo import load

RECIPE = Path(__file__).parents[1] / "configs" / "cifar10" / "cnn_fast.yaml"
ACCURACY, MINUTES = 90.0, 20.0
LEAST = 1 / 0.8  # of its time at most


def ours(settings: Settings, seed: int) -> dict[str, float]:
    """A run of the recipe."""
    more = ["--trainer.limit_train_batches=2", "--trainer.max_epochs=2"] if settings.small else []
    with tempfile.TemporaryDirectory() as folder:
        words = ["cvcc_zoo", "fit", f"--config={RECIPE}", *settings.options(), "--data.validation=0", *more]
        precision = f"--trainer.precision={own_precision()}"
        run([*words, precision, f"--seed_everything={seed}", f"--run={folder}/run"], settings.threads)
        summary = json.loads((Path(folder) / "run" / "summary.json").read_text())
        data = ImageDataModule(settings.dataset, settings.root)
        logits, labels = scores(load(f"{folder}/run"), data, mirrored=True)
    mirrored = float((logits.argmax(1) == labels).float().mean())
    return {"seconds": summary["train_seconds"], "plain": summary["test_accuracy"], "mirrored": mirrored}


def theirs(settings: Settings, seed: int) -> dict[str, float]:
    """A run of the other method, in a process of its own."""
    words = [sys.executable, "-m", "benchmarks.airbench", *settings.data(), f"--seed={seed}"]
    words += [f"--precision={own_precision()}", *(["--batches=1"] if settings.small else [])]
    shown = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    found: dict[str, float] = json.loads(shown.splitlines()[-1])
    return found


def spread(values: list[float], factor: float, unit: str) -> str:
    """Mean and, of several, standard deviation."""
    more = f" ± {factor * statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{factor * statistics.mean(values):.2f}{more}{unit}"


def measure(settings: Settings) -> Found:
    """Rows for time and accuracy, and the table of all runs."""
    found: dict[str, list[dict[str, Any]]] = {"cvcc_zoo, cnn_fast": [], "airbench94's method": []}
    for seed in range(settings.repeats):
        for side, work in zip(found, (ours, theirs), strict=True):
            found[side].append(work(settings, seed))
            print(f"  {side}, seed {seed}: {found[side][-1]}", flush=True)
    mean = {
        side: {key: statistics.mean(each[key] for each in runs) for key in ("seconds", "plain")}
        for side, runs in found.items()
    }
    mine, other = mean.values()
    what, against = f"cnn_fast, mean of {settings.repeats}", "airbench94's method"
    rows = [
        Row(f"{what}: training", "s", mine["seconds"], against, other["seconds"], least=LEAST),
        Row(f"{what}: test accuracy", "%", 100 * mine["plain"], against, 100 * other["plain"], least=1.0),
        Row(f"{what}: test accuracy", "%", 100 * mine["plain"], limit=ACCURACY),
        Row(f"{what}: training", "minutes", mine["seconds"] / 60, limit=MINUTES),
    ]
    header = ["", "runs", "seconds", "test accuracy", "with mirror images", "with six views"]
    table = [header]
    for side, runs in found.items():
        columns = {key: [each[key] for each in runs if key in each] for key in ("plain", "mirrored", "six_views")}
        shown = [spread(values, 100, " %") if values else "" for values in columns.values()]
        table.append([side, str(len(runs)), spread([each["seconds"] for each in runs], 1, ""), *shown])
    return Found(rows, [table])
