"""`cvcc-zoo cross-validate`: train on all but each fold of the training images in turn, and predict the fold.

Every training image is predicted by the one model that was not trained on it. Kohavi 1995,
https://www.ijcai.org/Proceedings/95-2/Papers/016.pdf, recommends stratified folds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.table import Table
from torch import Tensor

from cvcc_zoo.classifier.quality import quality_of
from cvcc_zoo.cli.lightning import build
from cvcc_zoo.cli.parsing import ZooParser, call_with, function_parser
from cvcc_zoo.cli.passing import split
from cvcc_zoo.data import ImageDataModule
from cvcc_zoo.data.folder import file_of
from cvcc_zoo.data.identity import identity_of
from cvcc_zoo.files.own import csv_text, expanded, in_command, json_text, write_picture, write_whole
from cvcc_zoo.plots import plot_confusion
from cvcc_zoo.printing.console import PlainConsole
from cvcc_zoo.printing.notices import only_warnings
from cvcc_zoo.runs.figures import draw_reliability
from cvcc_zoo.runs.measure import confusion_of, correct
from cvcc_zoo.runs.scores import scores
from cvcc_zoo.runs.written import read_config
from cvcc_zoo.search.goal import Goal
from cvcc_zoo.search.methods import GridSearch
from cvcc_zoo.search.record import own_folder, read_trials
from cvcc_zoo.search.running import Searched, deadline_after, run_trials
from cvcc_zoo.search.space import OWN, Choice, Space
from cvcc_zoo.weights.checkpoint import read_checkpoint

KIND = "cross-validation"
FOLD = "data.validation"
CHECKPOINTS = {"best": "best.ckpt", "last": "last.ckpt"}


def cross_validate(
    folder: str,
    folds: int = 5,
    minutes: float | None = None,
    epoch: str = "last",
    options: list[str] | None = None,
) -> int:
    """Train on all but each fold of the training images in turn, and predict the fold with the model.

    Other options of `cvcc-zoo fit` can be given, too; they apply to every fold. The same command resumes a
    cross-validation that was stopped. The test images, and a folder's val/, are never used.

    Args:
        folder: The folder of the cross-validation, with a run folder for each fold, `predictions.csv` with the
            prediction of each training image, `summary.json`, `confusion.png` and `calibration.png`.
        folds: Number of folds, at least 2. Each has the same share of every class, chosen by --data.split_seed.
        minutes: The time limit in minutes, by default none. A step that has begun is finished.
        epoch: The weights that predict a fold: last (last.ckpt of its run) or best (best.ckpt). The best epoch is
            chosen on the fold itself, which makes its accuracy a little too high.
        options: Options of `cvcc-zoo fit` as a list; equivalent to giving them directly.

    """
    if folds < 2:
        raise ValueError(f"a cross-validation has at least 2 folds, not {folds}; choose --folds=5")
    target, goal = expanded(folder), Goal("val/accuracy", epoch)
    if any(word.partition("=")[0] == f"--{FOLD}" for word in options or []):
        raise ValueError(f"each fold is held out in turn: leave --{FOLD} out, and choose their number: --folds={folds}")
    space: Space = {FOLD: Choice(tuple(f"{number}/{folds}" for number in range(1, folds + 1)))}
    console = PlainConsole(soft_wrap=True)
    with own_folder(target, KIND), only_warnings():
        check_folds([*(options or []), f"--{FOLD}=1/{folds}"])
        searched = Searched(KIND, target, space, {"folds": folds, "epoch": epoch}, goal, folds, options or [])
        code = run_trials(searched, GridSearch(space), deadline_after(minutes), console)
        done = read_trials(target)
        if failed := [trial for trial in done if trial.measure is None]:
            console.print(
                f"fold {failed[0].number + 1} failed, so there is no result: {failed[0].message}; the same "
                "command tries it again, and other options need another --folder"
            )
            return code or 1
        if len(done) < folds:
            return code
        found = [predict_fold(target / f"{number:03}", CHECKPOINTS[epoch]) for number in range(folds)]
        quality = quality_of(torch.cat([fold.logits for fold in found]), torch.cat([fold.labels for fold in found]))
        summary = summarise(found, quality)
        title = f"{target.resolve().name}: accuracy {100 * summary['accuracy']:.2f} % of {summary['images']:,} images"
        confusion = plot_confusion(np.array(summary["confusion"]), found[0].data.classes, title)
        write_whole(target / "predictions.csv", predictions(found).encode(errors="surrogateescape"))
        write_picture(target / "confusion.png", confusion)
        draw_reliability(target, quality, title)
        write_whole(target / "summary.json", json_text(summary).encode())
        console.print(overview(summary, target))
        console.print(f"written to {target}: predictions.csv, confusion.png, calibration.png, summary.json")
        if epoch == "last":
            console.print(
                "last.ckpt of each run predicted its fold; other commands take best.ckpt of a run folder, so give them "
                f"the file: {in_command(target / '000' / CHECKPOINTS[epoch])}"
            )
    return 0


def check_folds(options: Sequence[str]) -> None:
    """Load the training images. Raises ValueError if they cannot be read or divided, before a run folder is made."""
    built = build(options)
    if built.config.trainer.enable_checkpointing is False:
        raise ValueError("the saved weights of each fold predict it; leave out --trainer.enable_checkpointing=false")
    data = built.datamodule
    data.prepare_data()
    data.setup("validate")


@dataclass(frozen=True)
class Fold:
    """The images of a fold, and what the model that was trained on the others gives them."""

    data: ImageDataModule
    positions: Tensor
    """(M,) among the training images."""
    logits: Tensor
    """(M, num_classes)"""
    labels: Tensor
    """(M,)"""

    @property
    def accuracy(self) -> float:
        """The share of images that are classified correctly, in [0, 1]."""
        return correct(self.logits, self.labels) / len(self.labels)


def predict_fold(run: Path, checkpoint: str) -> Fold:
    """Predict the images that a run held out.

    Raises FileNotFoundError if it has no such checkpoint, and ValueError if others would be held out now.
    """
    data, weights = ImageDataModule(**read_config(run)["data"]), read_checkpoint(run / checkpoint)
    logits, labels = scores(weights.model, data, split="val")
    if any(identity_of(data, part).sha256 != its["sha256"] for part, its in weights.images.items()):
        raise ValueError(
            f"the training images or their names have changed since {run} was trained, so it would be tested on images "
            "that it was trained on; restore them, or choose another --folder"
        )
    return Fold(data, data.val_dataloader().samples, logits, labels)


def summarise(folds: Sequence[Fold], quality: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return plain data: accuracies, fractions in [0, 1], of the folds and of all images, and results of all images.

    `accuracy_std` is the standard deviation of the folds with n - 1. Log loss (nats), calibration error (15 bins) and
    `confusion` (true class, predicted class) are those of the predictions of all images; `quality` is what `quality_of`
    returns for them.
    """
    logits, labels = torch.cat([fold.logits for fold in folds]), torch.cat([fold.labels for fold in folds])
    found = torch.tensor([fold.accuracy for fold in folds], dtype=torch.float64)
    confusion = confusion_of(logits.argmax(1), labels, logits.shape[1])
    return {
        "folds": len(folds),
        "images": len(labels),
        "accuracy": correct(logits, labels) / len(labels),
        "accuracy_of_folds": found.tolist(),
        "accuracy_mean": float(found.mean()),
        "accuracy_std": float(found.std()),
        "accuracy_range": [float(found.min()), float(found.max())],
        "log_loss": float(quality["log_loss"]),
        "calibration_error": float(quality["calibration_error"]),
        "classes": list(folds[0].data.classes),
        "confusion": confusion.tolist(),
    }


def predictions(folds: Sequence[Fold]) -> str:
    """Return a CSV with a row for each training image: its file or position, fold, classes and probabilities."""
    classes = folds[0].data.classes
    rows = {}
    for number, fold in enumerate(folds, start=1):
        shares = fold.logits.double().softmax(1)
        columns = (fold.positions, fold.labels, shares.argmax(1), shares)
        for position, label, best, row in zip(*(column.tolist() for column in columns), strict=True):
            image = file_of(fold.data.dataset, "train", position) or position
            rows[position] = [image, number, classes[label], classes[best], *(f"{share:.6f}" for share in row)]
    header = ["image", "fold", "label", "predicted", *(f"p_{name}" for name in classes)]  # a class may be named label
    return csv_text([header, *(rows[position] for position in sorted(rows))])


def overview(summary: dict[str, Any], folder: Path) -> Table:
    """Return a table of the results."""
    found, (low, high) = [100 * each for each in summary["accuracy_of_folds"]], summary["accuracy_range"]
    mean, spread = 100 * summary["accuracy_mean"], 100 * summary["accuracy_std"]
    table = Table(
        title=f"{folder}: {summary['folds']} folds of {summary['images']:,} training images", show_header=False
    )
    table.add_row("accuracy", f"{mean:.2f} ± {spread:.2f} % (standard deviation of the folds)")
    table.add_row("range", f"{100 * low:.2f} to {100 * high:.2f} %")
    table.add_row("folds", ", ".join(f"{each:.2f}" for each in found) + " %")
    table.add_row("log loss", f"{summary['log_loss']:.4f}")
    table.add_row("calibration error", f"{summary['calibration_error']:.4f}")
    return table


def parser() -> ZooParser:
    """Return the parser of the command."""
    return function_parser("cross-validate", "--folder=FOLDER [options]", cross_validate, config=False)


def main(args: Sequence[str]) -> int:
    """Run the command; options that are not its own are those of `cvcc-zoo fit`."""
    refused = [name for name in OWN if name != "config"]
    why = "a cross-validation sets this option for each of its folds"
    own, passed = split(args, "cross-validate", cross_validate, refused, why)
    return int(call_with(parser(), cross_validate, own, passed))
