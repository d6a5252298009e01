"""What a training leaves behind: one folder with its config, metrics, checkpoints, pictures and summary."""

import json
import os
import platform
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint, RichProgressBar
from lightning.pytorch.loggers import CSVLogger
from rich.console import Console
from rich.table import Table

from cvcc_zoo.classifier import ImageClassifier
from cvcc_zoo.data import ImageDataModule
from cvcc_zoo.plots import plot_confusion, plot_curves, read_metrics
from cvcc_zoo.zoo import complexity, name_of

PACKAGES = ("cvcc_zoo", "torch", "torchvision", "lightning", "torchmetrics")


def reserve_folder(name: str, parent: Path = Path("runs")) -> Path:
    """Make `runs/<name>`, or `runs/<name>-2`, `-3`, ... if it exists: never a folder that another run has."""
    number = 1
    while True:
        folder = parent / (name if number == 1 else f"{name}-{number}")
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:
            number += 1


def new_folder(folder: Path) -> Path:
    """Make the folder that was asked for. Raises FileExistsError if it is there already."""
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        raise FileExistsError(
            f"the run folder {folder} exists, and nothing of it will be overwritten; "
            "choose another --run=..., or leave --run out to get a numbered one"
        ) from None
    return folder


def write_text(path: Path, text: str) -> None:
    """Write a file under a temporary name and rename it, so that it is never half there."""
    unfinished = path.with_name(f".{path.name}-{os.getpid()}")
    unfinished.write_text(text)
    unfinished.replace(path)


class ProgressBar(RichProgressBar):
    """Lightning's progress bar without the number of the logger's version."""

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """What is shown beside the bar."""
        shown: dict[str, Any] = super().get_metrics(trainer, pl_module)
        return {name: value for name, value in shown.items() if name != "v_num"}


class RunFolder(Callback):
    """Fills a run's folder: `config.yaml` when the training starts, pictures and `summary.json` at its end."""

    def __init__(self, folder: Path, config: str) -> None:
        self.folder = folder
        self.config = config
        self.started = False
        self.seconds = 0.0
        self.images = 0
        self._since: float | None = None

    def callbacks(self, *, validation: bool, checkpoints: bool) -> list[Callback]:
        """The callbacks of a run: this one, the learning rate, and checkpoints `best` (by val/accuracy) and `last`."""
        chosen: list[Callback] = [self, LearningRateMonitor("step")]
        if checkpoints and validation:
            chosen.append(
                ModelCheckpoint(
                    self.folder,
                    "best",
                    monitor="val/accuracy",
                    mode="max",
                    save_last=True,
                    enable_version_counter=False,
                )
            )
        elif checkpoints:
            chosen.append(ModelCheckpoint(self.folder, "last", enable_version_counter=False))
        return chosen

    def logger(self) -> CSVLogger:
        """Writes `metrics.csv` into the folder."""
        return CSVLogger(self.folder.parent, name="", version=self.folder.name, flush_logs_every_n_steps=100)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Log at least ten times an epoch, so that a short run has curves too."""
        data = getattr(trainer, "datamodule", None)
        if stage == "fit" and isinstance(data, ImageDataModule):
            every = min(vars(trainer)["log_every_n_steps"], len(data.train_dataloader()) // 10)
            vars(trainer)["log_every_n_steps"] = max(1, every)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the config: from here on the folder holds something."""
        self.started = True
        if trainer.is_global_zero:
            write_text(self.folder / "config.yaml", self.config)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The clock of the training runs only between batches of training."""
        self._since = time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count images."""
        self.images += len(batch[0]) * trainer.world_size

    def _stop_clock(self) -> None:
        if self._since is not None:
            self.seconds += time.perf_counter() - self._since
            self._since = None

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Validation is not training time."""
        self._stop_clock()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Go on."""
        if trainer.training:
            self._since = time.perf_counter()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop."""
        self._stop_clock()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw the curves."""
        self._draw_curves(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Draw the curves up to here."""
        if self.started:
            self._draw_curves(trainer)

    def discard_if_empty(self) -> None:
        """Remove the folder if the training never started."""
        if not self.started:
            for name in ("metrics.csv", "hparams.yaml"):
                (self.folder / name).unlink(missing_ok=True)
            self.folder.rmdir()

    def _draw_curves(self, trainer: Trainer) -> None:
        if not trainer.is_global_zero:
            return
        for logger in trainer.loggers:
            logger.save()
        metrics = self.folder / "metrics.csv"
        if metrics.is_file():
            plot_curves(read_metrics(metrics), self.folder.name).savefig(self.folder / "curves.png", dpi=120)

    def finish(self, trainer: Trainer, model: ImageClassifier, data: ImageDataModule) -> dict[str, Any]:
        """Test the chosen checkpoint, write pictures and summary, and return what the summary holds.

        The checkpoint is `best` where there are validation images, else the weights of the last step.
        """
        trained = {name: float(value) for name, value in trainer.callback_metrics.items()}
        best = trainer.checkpoint_callback
        chosen = best.best_model_path if isinstance(best, ModelCheckpoint) and best.monitor else None
        val_accuracy = best.best_model_score if isinstance(best, ModelCheckpoint) and best.monitor else None
        epochs, steps = trainer.current_epoch, trainer.global_step
        tested = trainer.test(model, data, ckpt_path=chosen or None, weights_only=True, verbose=False)[0]
        counts = complexity(model)
        summary = {
            "model": name_of(type(model).__name__, model.hparams),
            "dataset": data.dataset.title,
            "test_accuracy": tested["test/accuracy"],
            "test_loss": tested["test/loss"],
            "val_accuracy": None if val_accuracy is None else float(val_accuracy),
            "last_epoch": {k: v for k, v in trained.items() if k.startswith(("train/", "val/")) and "batch" not in k},
            "tested": Path(chosen).name if chosen else "the weights of the last step",
            "images": {"train": len(data.training_images()[2]), "test": int(model.confusion.confmat.sum())},
            "epochs": epochs,
            "steps": steps,
            "train_seconds": round(self.seconds, 2),
            "images_per_second": round(self.images / self.seconds, 1) if self.seconds else None,
            "parameters": counts.parameters,
            "macs": counts.macs,
            "seed": int(os.environ.get("PL_GLOBAL_SEED", data.seed)),
            "split_seed": data.split_seed,
            "precision": str(trainer.precision),
            "hardware": hardware(),
            "versions": {name: version(name) for name in PACKAGES} | {"python": platform.python_version()},
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        if trainer.is_global_zero:
            self._draw_curves(trainer)
            confusion = model.confusion.confmat.cpu().numpy()
            title = f"{self.folder.name}: test accuracy {100 * tested['test/accuracy']:.2f} %"
            plot_confusion(confusion, data.classes, title).savefig(self.folder / "confusion.png", dpi=120)
            write_text(self.folder / "summary.json", json.dumps(summary, indent=2) + "\n")
            (self.folder / "hparams.yaml").unlink(missing_ok=True)  # config.yaml holds everything
        return summary


def hardware() -> str:
    """The device in words: the GPU's name, or the CPU's with the threads that torch uses."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        models = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if "model name" in line]
        name = models[0] if models else name
    return f"{name}, {torch.get_num_threads()} threads"


def print_summary(summary: dict[str, Any], folder: Path) -> None:
    """One table: what was trained, how good it is, how long it took, where it lies."""
    table = Table(title=f"{summary['model']} on {summary['dataset']}", show_header=False)
    val = summary["val_accuracy"]
    rows = {
        "test accuracy": f"[bold]{100 * summary['test_accuracy']:.2f} %[/] of {summary['images']['test']:,} images",
        "test loss": f"{summary['test_loss']:.4f}",
        "validation accuracy": "-" if val is None else f"{100 * val:.2f} %",
        "tested": summary["tested"],
        "epochs": f"{summary['epochs']} ({summary['steps']:,} steps)",
        "training": f"{summary['train_seconds']:.1f} s, {summary['images_per_second'] or 0:,.0f} images/s",
        "parameters": f"{summary['parameters']:,}",
        "folder": str(folder),
    }
    for name, value in rows.items():
        table.add_row(name, value)
    Console().print(table)
