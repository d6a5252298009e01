"""Time to accuracy.

`configs/cifar10/cnn_fast.yaml` through `cvcc-zoo fit`, as it is and with `--trainer.max_epochs=8`, against the method
of airbench94 with Muon, 8 epochs of the same network (`benchmarks/airbench.py`). All compute in the precision that the
processor is fastest in, train on all training images and are tested once. Seconds are those of the training. Means over
runs with seeds of their own that take turns. Accuracies are without test-time augmentation; the table has them with it,
too.
"""

import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
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
SHORT = "--trainer.max_epochs=8"


def ours(settings: Settings, seed: int, *more: str) -> dict[str, float]:
    """A run of the recipe, with options of its own."""
    if settings.small:
        more = ("--trainer.limit_train_batches=2", "--trainer.max_epochs=2")
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
    against = "airbench94's method"
    sides: dict[str, Callable[[Settings, int], dict[str, Any]]] = {
        "cnn_fast, 8 epochs": lambda settings, seed: ours(settings, seed, SHORT),
        against: theirs,
        "cnn_fast": ours,
    }
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in sides}
    for seed in range(settings.repeats):
        for side, work in sides.items():
            found[side].append(work(settings, seed))
            print(f"  {side}, seed {seed}: {found[side][-1]}", flush=True)
    mean = {
        side: {key: statistics.mean(each[key] for each in runs) for key in ("seconds", "plain")}
        for side, runs in found.items()
    }
    short, other, whole = mean.values()
    eight, whole_recipe = (f"{name}, mean of {settings.repeats}" for name in ("cnn_fast, 8 epochs", "cnn_fast"))
    rows = [
        Row(f"{eight}: training", "s", short["seconds"], against, other["seconds"], least=LEAST),
        Row(f"{eight}: test accuracy", "%", 100 * short["plain"], against, 100 * other["plain"], least=1.0),
        Row(f"{whole_recipe}: test accuracy", "%", 100 * whole["plain"], limit=ACCURACY),
        Row(f"{whole_recipe}: training", "minutes", whole["seconds"] / 60, limit=MINUTES),
    ]
    header = ["", "runs", "seconds", "test accuracy", "with mirror images", "with six views"]
    table = [header]
    for side, runs in found.items():
        columns = {key: [each[key] for each in runs if key in each] for key in ("plain", "mirrored", "six_views")}
        shown = [spread(values, 100, " %") if values else "" for values in columns.values()]
        table.append([side, str(len(runs)), spread([each["seconds"] for each in runs], 1, ""), *shown])
    return Found(rows, [table])
