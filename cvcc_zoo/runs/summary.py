"""The results of a run: the test, `summary.json`, the predictions, and the table that is printed."""

import platform
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from lightning import Trainer
from lightning.pytorch.accelerators import CPUAccelerator, MPSAccelerator
from lightning.pytorch.utilities import rank_zero_info
from rich.table import Table

from cvcc_zoo.classifier import ImageClassifier
from cvcc_zoo.classifier.metrics import TOP5
from cvcc_zoo.classifier.quality import plain_quality
from cvcc_zoo.data import ImageDataModule
from cvcc_zoo.data.folder import file_of
from cvcc_zoo.data.identity import find_known, identity_of, pixels_of, repeated
from cvcc_zoo.files.own import csv_text, in_command, write_whole
from cvcc_zoo.internals.lightning import remove_hpc_checkpoints
from cvcc_zoo.printing import say
from cvcc_zoo.printing.console import PlainConsole
from cvcc_zoo.runs.checkpoints import BestCheckpoint
from cvcc_zoo.runs.intervals import with_interval
from cvcc_zoo.runs.run_folder import CONFIG
from cvcc_zoo.zoo.catalogue import complexity, name_of

FEW = 5  # classes without test images that are named
PACKAGES = ("cvcc_zoo", "torch", "torchvision", "lightning", "torchmetrics")
THEN = "; then "  # between the precisions, hardware, or numbers of processes, of a run that was resumed with others


@dataclass(frozen=True)
class Training:
    """The training part of a run."""

    seconds: float
    """Time spent in training batches."""
    images: int
    """Number of images in these batches."""
    last_epoch: Mapping[str, float]
    """Metrics of the last epoch."""
    conditions: Mapping[str, Any]
    """Those of `conditions`, and whether a step used Winograd's algorithm."""


def summarise(
    trainer: Trainer, model: ImageClassifier, data: ImageDataModule, training: Training, *, test: bool
) -> dict[str, Any]:
    """Test the chosen weights, and return the content of `summary.json`.

    The weights are those of `best.ckpt` if there are validation images, otherwise those of the last step. Accuracies
    are fractions in [0, 1]. Without `test` no test image is read; then, and if a model
    with a test of its own counts no image, the results of the test are None or missing.
    """
    epochs, steps = trainer.current_epoch, trainer.global_step
    best = next((each for each in trainer.checkpoint_callbacks if isinstance(each, BestCheckpoint)), None)
    chosen, validation = (best.best_model_path, best.validation) if best else ("", {})
    tests: dict[str, Any] = {"test_accuracy": None, "test_loss": None, "tested": None}
    count, sets = 0, {"train": identity_of(data, "train")}
    if test:
        remove_hpc_checkpoints(trainer)
        found = trainer.test(model, data, ckpt_path=chosen or None, weights_only=True, verbose=False)[0]
        count = int(model.test_confusion.sum()) if hasattr(model, "test_confusion") else 0
        if count == 0:
            rank_zero_info(
                f"{type(model).__name__} counted no test image in its confusion matrix, from which the results of a "
                "run are made; call super().test_step(...) in its own test_step, and test the run: "
                f"`cvcc-zoo fit --config={in_command(Path(trainer.default_root_dir) / CONFIG)} "
                "--ckpt_path=last`"
            )
    if count:
        tests = {
            "test_accuracy": int(model.test_confusion.trace()) / count,
            "test_loss": found["test/loss"],
            "tested": Path(chosen).name if chosen else "the weights of the last step",
        }
        tests |= {f"test_{name}": value for name, value in plain_quality(model.test_quality, data.classes).items()}
        if f"test/{TOP5}" in found:
            tests["test_top5_accuracy"] = found[f"test/{TOP5}"]
        sets["test"] = identity_of(data, "test")
    known = find_known(*(sets[split].sha256 if split in sets else None for split in ("train", "test")))
    described = {split: its.plain() for split, its in sets.items()}
    if count:
        described["test"]["in_training"] = again = repeated(sets["test"], pixels_of(data))
        if again and known is None and not data.dataset.public:  # a user cannot change those
            rank_zero_info(
                f"{again:,} of {len(sets['test'].pixels):,} test images are also training or validation images (the "
                "same pixels), so the test accuracy is too high; `cvcc-zoo split --duplicates=together` avoids it: "
                "docs/datasets.md"
            )
    counts = complexity(model)
    return {
        "model": name_of(type(model).__name__, model.hparams),
        "dataset": data.dataset.title,
        "known_as": known and known.title,
        **tests,
        "selected_by": best.monitor if best and chosen else None,
        "val_accuracy": validation.get("val/accuracy"),
        "validation": validation,
        "last_epoch": dict(training.last_epoch),
        "images": {"train": len(data.training_images()[2]), "test": count},
        "data": described,
        "epochs": epochs,
        "steps": steps,
        "train_seconds": round(training.seconds, 2),
        "images_per_second": round(training.images / training.seconds, 1) if training.seconds else None,
        "parameters": counts.parameters,
        "macs": counts.macs,
        "seed": data.seed,
        "split_seed": data.split_seed,
        **training.conditions,
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def conditions(trainer: Trainer, before: Mapping[str, Any]) -> dict[str, Any]:
    """Return how and on what a training runs; `before`, precision, hardware and processes may have been others."""
    now = {"precision": str(trainer.precision), "hardware": trained_on(trainer), "processes": trainer.world_size}
    all_of = {name: dict.fromkeys([*str(before.get(name, it)).split(THEN), str(it)]) for name, it in now.items()}
    return {
        **{name: it if len(all_of[name]) == 1 else THEN.join(all_of[name]) for name, it in now.items()},
        "same_bits": same_bits(trainer),
        "commit": commit(),
        "versions": {"python": platform.python_version()} | {p: str(import_module(p).__version__) for p in PACKAGES},
    }


def write_predictions(folder: Path, batches: Sequence[Any], data: ImageDataModule) -> None:
    """Write `predictions-<dataset>.csv` from batches of probabilities and labels, and print its path.

    It has a row for each test image, in order: its path or number, the label, the predicted class, and its probability.
    """
    probabilities, labels = (torch.cat(parts) for parts in zip(*batches, strict=True))
    best = probabilities.max(1)
    found = zip(labels.tolist(), best.indices.tolist(), best.values.tolist(), strict=True)
    rows = [
        [file_of(data.dataset, "test", number) or number, data.classes[label], data.classes[index], f"{share:.6f}"]
        for number, (label, index, share) in enumerate(found)
    ]
    target = folder / f"predictions-{data.dataset.title}.csv"
    text = csv_text([["image", "label", "predicted", "probability"], *rows])
    write_whole(target, text.encode(errors="surrogateescape"))
    say(f"{len(labels):,} predictions written to {target}")


def hardware() -> str:
    """Return the name of the GPU, or that of the CPU with the number of threads that torch uses."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else processor()


def processor() -> str:
    """Return the name of the CPU, its vector instructions and the number of threads that torch uses.

    Virtual machines may have the same name for processors with different instructions.
    """
    name = platform.processor() or platform.machine()
    if (info := Path("/proc/cpuinfo")).is_file():
        lines = info.read_text(encoding="utf-8").splitlines()
        models = [line.partition(":")[2].strip() for line in lines if "model name" in line]
        name = models[0] if models else name
    threads = torch.get_num_threads()
    instructions = torch.backends.cpu.get_cpu_capability()
    with_them = "" if instructions in ("DEFAULT", "NO AVX") else f" ({instructions})"
    return f"{name}{with_them}, {threads} thread{'' if threads == 1 else 's'}"


def trained_on(trainer: Trainer) -> str:
    """Return the name of the CPU if a trainer trained on it, although there may be a GPU."""
    names: dict[type, Callable[[], str]] = {CPUAccelerator: processor, MPSAccelerator: torch.backends.mps.get_name}
    return names.get(type(trainer.accelerator), hardware)()


def same_bits(trainer: Trainer) -> str:
    """Return, in words, under which conditions the same seed and config give the same bits."""
    if isinstance(trainer.accelerator, CPUAccelerator) or torch.get_deterministic_debug_mode() == 2:  # 1: warns
        return "with the same commit, versions, hardware, threads and number of processes"
    return "not guaranteed; use --trainer.deterministic=true"


def commit() -> str | None:
    """Return the commit of the package's git checkout, with a + if files differ; None for an installed package."""
    folder = Path(__file__).parents[2]
    if not (folder / ".git").exists():
        return None
    command = ["git", "-C", str(folder), "describe", "--always", "--abbrev=40", "--dirty=+", "--exclude=*"]
    try:
        if b'name = "cvcc_zoo"' not in (folder / "pyproject.toml").read_bytes():  # the checkout of a user
            return None
        return subprocess.run(command, capture_output=True, encoding="utf-8", check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):  # no git, or a folder of another user
        return None


def print_summary(summary: dict[str, Any], folder: Path) -> None:
    """Print a table of the results, the training time and the run folder."""
    tested = summary["test_accuracy"] is not None
    table = Table(
        title=f"{summary['model']} on {summary['known_as'] or summary['dataset']}",
        show_header=False,
        caption="in parentheses: 95 % interval" if tested else None,
    )
    val = summary["val_accuracy"]
    rows = {
        **(_tests(summary) if tested else {"test accuracy": "not tested"}),
        "validation accuracy": "-" if val is None else f"{100 * val:.2f} %",
        "epochs": f"{summary['epochs']} ({summary['steps']:,} step{'' if summary['steps'] == 1 else 's'})",
        "training": f"{summary['train_seconds']:.1f} s, {summary['images_per_second'] or 0:,.0f} images/s",
        "parameters": f"{summary['parameters']:,}",
        "folder": str(folder),
    }
    for name, value in rows.items():
        table.add_row(name, value)
    PlainConsole().print(table)


def _tests(summary: Mapping[str, Any]) -> dict[str, str]:
    """Return the rows about the test."""
    count, loss = summary["images"]["test"], in_digits(summary["test_loss"])
    rows = {"test accuracy": f"{with_interval(round(count * summary['test_accuracy']), count)} of {count:,} images"}
    if (top5 := summary.get("test_top5_accuracy")) is not None:
        rows["top-5 accuracy"] = f"{100 * top5:.2f} %"
    rows["macro F1"] = in_digits(summary["test_f1"])
    if (balanced := summary["test_balanced_accuracy"]) is not None:
        rows["balanced accuracy"] = f"{100 * balanced:.2f} %"
    rows["test loss"] = loss
    if (log_loss := in_digits(summary["test_log_loss"])) not in (loss, "-"):  # a loss other than cross-entropy
        rows["log loss"] = log_loss
    rows["calibration error"] = in_digits(summary["test_calibration_error"])
    if missing := without_images(summary["test_per_class"]):
        rows["no test images"] = missing
    by = f", selected by {monitor}" if (monitor := summary["selected_by"]) else ""
    return rows | {"tested": f"{summary['tested']}{by}"}


def in_digits(value: float | None) -> str:
    """Return a number with four digits, or "-" if it is not defined."""
    return "-" if value is None else f"{value:.4f}"


def without_images(per_class: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the names of the classes without test images, the first few of many; empty if there are none."""
    names = [name for name, numbers in per_class.items() if not numbers["support"]]
    more = f" and {len(names) - FEW} more" if len(names) > FEW else ""
    return ", ".join(names[:FEW]) + more
