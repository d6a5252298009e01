"""Progress of training: a line about the model, a line for each epoch, and below them one bar.

The lines are flushed to stdout, even if that is a file; the bar appears on a terminal only.
"""

import math
import time
from collections.abc import Sequence
from typing import Any

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelSummary, Timer
from lightning.pytorch.callbacks import ProgressBar as LightningProgressBar
from lightning.pytorch.utilities import rank_zero_info

from cvcc_zoo.classifier import ImageClassifier
from cvcc_zoo.classifier.metrics import TOP5
from cvcc_zoo.classifier.watching import check_recorded
from cvcc_zoo.data.length import accumulation, images_of_batch, training_length
from cvcc_zoo.internals.lightning import batches_begun, batches_of_epoch, callbacks_of
from cvcc_zoo.printing.progress import Display, duration
from cvcc_zoo.runs.checkpoints import BestCheckpoint
from cvcc_zoo.runs.stopping import Deadline
from cvcc_zoo.runs.winograd import default_winograd
from cvcc_zoo.zoo.catalogue import complexity, name_of

COLUMNS = {"train/loss": "loss", "train/accuracy": "accuracy", "val/loss": "val loss", "val/accuracy": "val acc.",
           "val/top5_accuracy": "top 5"}  # fmt: skip
"""Metrics of an epoch, and their headings in the table; those that are not logged have no column."""
SELECTING = {"val/f1": "val F1", "val/balanced_accuracy": "bal. acc", "val/log_loss": "log loss",
             "val/brier_score": "Brier", "val/calibration_error": "cal. err"}  # fmt: skip
"""Metrics that have a column, instead of the top 5, if they select the best weights."""
SELDOM = 600.0  # seconds between two lines within an epoch


def users_callbacks(chosen: Sequence[Callback], trainer: Any) -> list[Callback]:
    """Return the user's callbacks, with ours for progress, summary and speed unless they include such callbacks.

    The options enable_progress_bar and enable_model_summary of the `trainer` turn ours off. Raises ValueError for
    callbacks that would make the run differ from its config.
    """
    check_recorded(chosen)
    bar = trainer.enable_progress_bar is not False and not any(isinstance(c, LightningProgressBar) for c in chosen)
    summary = trainer.enable_model_summary is not False and not any(isinstance(c, ModelSummary) for c in chosen)
    return [*chosen, *default_winograd(chosen), *([ProgressBar()] if bar else []), *([Summary()] if summary else [])]


class Summary(ModelSummary):
    """Print the model in a line, with the same MACs as `cvcc-zoo list`; `cvcc-zoo describe` shows its layers."""

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the line."""
        if not isinstance(pl_module, ImageClassifier):
            super().on_fit_start(trainer, pl_module)
            return
        counts, name = complexity(pl_module), name_of(type(pl_module).__name__, pl_module.hparams)
        trained = sum(p.numel() for p in pl_module.network.parameters() if p.requires_grad)
        frozen = "" if trained == counts.parameters else f", {trained:,} of them trained"
        rank_zero_info(f"{name}: {counts.parameters:,} parameters{frozen}, {counts.macs:,} MACs an image")


class ProgressBar(LightningProgressBar):
    """Print a line for each epoch, and show one bar with the total time left."""

    def __init__(self) -> None:
        super().__init__()
        self._enabled = True
        self._display: Display | None = None
        self._columns: dict[str, str] = {}
        self._pending: list[str] = []  # cells of a finished epoch, until its metrics are logged
        self._began = self._since = self._paused = 0.0
        self._outside = 0.0  # seconds of this epoch outside training batches
        self._images = 0
        self._validated = False
        self._epochs, self._batches = 0, math.inf  # of the whole training

    def disable(self) -> None:
        """Stop showing progress."""
        self._enabled = False
        self._close()

    def enable(self) -> None:
        """Show progress again."""
        self._enabled = True

    def print(self, *args: Any, **options: Any) -> None:
        """Print above the bar."""
        print(*args, **options, flush=True)

    def _close(self) -> None:
        if self._display is not None:
            self._display.close()
            self._display = None

    # Training

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the headings, and compute the length of the training."""
        self._began, self._pending = time.monotonic(), []
        self._restart_clock()  # for an epoch that is resumed in the middle, on_train_epoch_start is not called
        try:
            steps, self._epochs = training_length(trainer)
            coming = (self._epochs - trainer.current_epoch) * trainer.num_training_batches - batches_of_epoch(trainer)
            summed = max(accumulation(trainer).values())
            self._batches = batches_begun(trainer) + min((steps - trainer.global_step) * summed, coming)
        except ValueError:  # training has no end
            self._epochs, self._batches = 0, math.inf
        if not self._enabled:
            return
        columns = columns_for(trainer)
        logged = pl_module.metrics if isinstance(pl_module, ImageClassifier) else columns
        validates = trainer.enable_validation and bool(sum(trainer.num_val_batches))
        self._columns = {k: v for k, v in columns.items() if k in logged and (validates or not k.startswith("val/"))}
        self._display = Display(
            "training: batches", self._batches, batches_begun(trainer), patience=0.0, every=SELDOM, until=_end(trainer)
        )
        for each in trainer.lr_scheduler_configs:
            if getattr(each.scheduler, "cycle_momentum", False):
                print(f"{type(each.scheduler).__name__} changes the momentum, too (cycle_momentum: true)", flush=True)
        print(_row(["epoch", *self._columns.values(), "images/s", "time", "left"], self._columns), flush=True)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the line of the previous epoch, and start the clock of this one."""
        self._print_epoch(trainer)
        self._restart_clock()

    def _restart_clock(self) -> None:
        self._since, self._outside, self._images, self._validated = time.monotonic(), 0.0, 0, False

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Move the bar."""
        self._images += images_of_batch(trainer, batch)
        if self._display is None or not self._display.due():
            return  # reading the metrics would wait for the GPU
        values = {name.removeprefix("train/batch_"): value for name, value in trainer.progress_bar_metrics.items()}
        shown = [f"{name} {value:.4g}" for name, value in values.items() if not name.startswith("val/")]
        text = ", ".join([*shown, f"{self._rate():,.0f} images/s"])
        epoch, batches = self._epoch(trainer), trainer.num_training_batches
        self._display.update(batches_begun(trainer), f"epoch {epoch}, batch {batch_idx + 1}/{batches}", text)

    def _epoch(self, trainer: Trainer) -> str:
        return f"{trainer.current_epoch + 1}/{self._epochs}" if self._epochs else str(trainer.current_epoch + 1)

    def _rate(self) -> float:
        """Return the training images per second in this epoch."""
        return self._images / max(1e-9, time.monotonic() - self._since - self._outside)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the cells of this epoch's line until its metrics are logged."""
        left = self._display.left(batches_begun(trainer)) if self._display else ""
        took = duration(time.monotonic() - self._began)
        self._pending = [self._epoch(trainer), f"{self._rate():,.0f}", took, left or "-"]

    def _print_epoch(self, trainer: Trainer) -> None:
        if not (self._enabled and self._pending):
            return
        (epoch, *rest), found, self._pending = self._pending, trainer.callback_metrics, []
        cells = []
        for name in self._columns:
            known = name in found and (self._validated or not name.startswith("val/"))
            value = float(found[name]) if known else 0.0
            cells.append("-" if not known else f"{100 * value:.2f} %" if name.endswith("accuracy") else f"{value:.4f}")
        print(_row([epoch, *cells, *rest], self._columns), flush=True)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the line of the last epoch."""
        self._close()
        self._print_epoch(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Remove the bar, so that the message is visible."""
        self._close()

    # Evaluation

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the clock: validation is not training time."""
        self._paused = time.monotonic()
        if trainer.state.fn == "fit" and self._display is not None:
            self._display.update(batches_begun(trainer), f"epoch {self._epoch(trainer)}, validation")
        elif trainer.state.fn == "validate":
            self._begin("validation: batches", trainer.num_val_batches)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock again."""
        self._outside += time.monotonic() - self._paused
        self._validated = True
        if trainer.state.fn == "validate":
            self._close()

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show a bar."""
        self._begin("test: batches", trainer.num_test_batches)

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show a bar."""
        self._begin("prediction: batches", trainer.num_predict_batches)

    def _begin(self, title: str, batches: Sequence[float]) -> None:
        if self._enabled:
            self._display = Display(title, sum(batches))

    def _evaluated(self, trainer: Trainer, pl_module: LightningModule, *rest: Any) -> None:
        """Move the bar, except in a validation during training."""
        batch_idx = rest[2]
        if self._display is not None and trainer.state.fn != "fit":
            self._display.update(batch_idx + 1)

    on_validation_batch_end = on_test_batch_end = on_predict_batch_end = _evaluated  # type: ignore[assignment]

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remove the bar."""
        self._close()

    on_predict_end = on_test_end


def columns_for(trainer: Trainer) -> dict[str, str]:
    """Return the columns of a training, with the metric that selects the best weights."""
    monitors = [each.monitor for each in trainer.checkpoint_callbacks if isinstance(each, BestCheckpoint)]
    chosen = {name: SELECTING[name] for name in monitors if name in SELECTING}
    return COLUMNS if not chosen else {k: v for k, v in COLUMNS.items() if not k.endswith(TOP5)} | chosen


def _end(trainer: Trainer) -> float:
    """Return the time of `time.monotonic()` at which training must stop."""
    every = callbacks_of(trainer)
    timers = [each.time_remaining() for each in every if isinstance(each, Timer)]
    ends = [time.monotonic() + seconds for seconds in timers if seconds is not None]
    return min([*ends, *(each.at for each in every if isinstance(each, Deadline))], default=math.inf)


def _row(cells: Sequence[str], columns: dict[str, str]) -> str:
    """Return a line of fewer than 80 characters."""
    widths = [8, *(8 if name == "train/loss" else 9 for name in columns), 9, 9, 9]
    return " ".join(cell.rjust(width - 1) for cell, width in zip(cells, widths, strict=True))
