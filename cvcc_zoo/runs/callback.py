"""The callback that fills a run's folder."""

import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer
from lightning.fabric.utilities.rank_zero import rank_zero_only

from cvcc_zoo.classifier import ImageClassifier
from cvcc_zoo.classifier.training_images import DIVIDED_ANEW
from cvcc_zoo.data import ImageDataModule
from cvcc_zoo.data.length import images_of_batch, steps_between_rows
from cvcc_zoo.files.own import json_text, locked, write_whole
from cvcc_zoo.files.plain import read_yaml
from cvcc_zoo.internals.lightning import RateMonitor, set_log_every_n_steps
from cvcc_zoo.printing import say
from cvcc_zoo.runs.changes import changed_recipe
from cvcc_zoo.runs.checkpoints import BEST, WholeCheckpoints
from cvcc_zoo.runs.checkpoints import checkpoints as checkpoints_of
from cvcc_zoo.runs.figures import draw_curves, draw_test
from cvcc_zoo.runs.metrics_file import NAME, MetricsFile, fingerprint
from cvcc_zoo.runs.run_folder import CONFIG, check_unsaved, how_to_resume, how_to_train_further
from cvcc_zoo.runs.stopping import StoppedError
from cvcc_zoo.runs.summary import Training, conditions, print_summary, summarise
from cvcc_zoo.runs.winograd import used_winograd
from cvcc_zoo.runs.written import SUMMARY, read_summary

ROWS = 10  # minimum number of metrics rows per epoch


class RunFolder(Callback):
    """Fill a run's folder: `config.yaml` first, then metrics and checkpoints, at the end figures and a summary.

    With `choose_logging` a row of metrics is written at least ten times per epoch, so that short runs have curves too.
    A `resumed` run continues in an existing folder; one that has `ended` does not train. Only one process at a time
    may fill a folder.
    """

    def __init__(
        self, folder: Path, config: str, *, choose_logging: bool = False, resumed: bool = False, ended: bool = False
    ) -> None:
        self.folder, self.config = folder, config
        self.choose_logging, self.resumed = choose_logging, resumed
        self.started, self.ended = False, ended
        self.changed = ""  # options of the recipe that were others before the run was resumed, in words
        self.seconds, self.images = 0.0, 0
        self.last_epoch: dict[str, float] = {}  # metrics of the last epoch
        self.winograd = False  # whether steps before the run was resumed used Winograd's algorithm
        self.conditions: dict[str, Any] = {}  # on what and how it was trained
        self._before = ""  # the config of the checkpoint
        self._since: float | None = None
        self._validated = False  # in this epoch
        self._curves_drawn = False

    @contextmanager
    def opened(self, best: Path | None = None) -> Iterator[None]:
        """Lock the folder for a training; unlock it at the end, and remove it if training never started.

        The config is written if the folder is new, and a copy of the `best` checkpoint of an earlier folder. A
        StoppedError gets the command that resumes the run. Raises FileExistsError if another process is training
        in the folder.
        """
        first = not getattr(rank_zero_only, "rank", 0)
        with locked(self.folder, "training", "--run=...") if first else nullcontext():
            if first and not self.resumed:
                write_whole(self.folder / CONFIG, self.config.encode())
            if first and best is not None:
                write_whole(self.folder / BEST, best.read_bytes())
            try:
                yield
            except StoppedError as stop:
                raise StoppedError(f"{stop}; {how_to_resume(self.folder)}", stop.code) from stop
            finally:
                unused = first and not self.started and not self.resumed
                for name in (CONFIG, NAME, BEST) if unused else ():
                    (self.folder / name).unlink(missing_ok=True)

    def callbacks(
        self, *, validation: bool, checkpoints: bool, minutes: float, monitor: str, logs: bool = True
    ) -> list[Callback]:
        """Return the callbacks of a run: this one, the learning rate monitor, and checkpoints `best` and `last`.

        The best is the one with the best value of the metric `monitor`.
        """
        if self.resumed and not checkpoints:  # a new folder has none; only the first process knows its number
            check_unsaved(self.folder)
        saved = checkpoints_of(self.folder, minutes, monitor, validation=validation) if checkpoints else []
        return [self, *([RateMonitor("step")] if logs else []), *saved]

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Take the folder that the first process has made, and choose how often to log."""
        self.folder = trainer.strategy.broadcast(self.folder)
        data = getattr(trainer, "datamodule", None)
        if stage == "fit" and self.choose_logging and isinstance(data, ImageDataModule):
            set_log_every_n_steps(trainer, steps_between_rows(trainer, len(data.train_dataloader()), ROWS))

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop at once if training ended before the run was resumed; only the test may be left to do."""
        trainer.should_stop = trainer.should_stop or self.ended

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the config, note what it changes, and remove the summary of a run that is trained further.

        Raises ValueError if the processes do not start from the same step.
        """
        first = trainer.strategy.broadcast(trainer.global_step)
        if trainer.strategy.reduce_boolean_decision(first != trainer.global_step, all=False):
            raise ValueError(
                f"the processes start from different checkpoints (here step {trainer.global_step}, the first one "
                f"{first}); all of them must see the same folder {self.folder}"
            )
        self.started = True
        self.changed, self._before = changed_recipe(self._before, self.config, self.changed), ""
        self.conditions = conditions(trainer, self.conditions)
        self._since = time.perf_counter()
        for logger in self._own_loggers(trainer):
            logger.truncate(trainer.global_step)
        if trainer.is_global_zero:
            write_whole(self.folder / CONFIG, self.config.encode())
            (self.folder / SUMMARY).unlink(missing_ok=True)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock, which measures training batches only."""
        self._validated = False
        self._since = time.perf_counter()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Start the clock again after a validation within an epoch."""
        if self._since is None:
            self._since = time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count images."""
        self.images += images_of_batch(trainer, batch)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Write the logged rows first, and save their fingerprint, and how steps were computed, in the checkpoint."""
        for logger in trainer.loggers:
            logger.save()
        if "callbacks" in checkpoint:
            mine = checkpoint["callbacks"][self.state_key]
            mine["winograd"] = self.winograd or used_winograd(trainer)
            if self._own_loggers(trainer):
                mine["metrics"] = fingerprint(self.folder / NAME, trainer.global_step)

    def state_dict(self) -> dict[str, Any]:
        """Return the config, the clock, the count of images and what changed, with which a resumed run continues."""
        running = 0.0 if self._since is None else time.perf_counter() - self._since
        return {
            "config": self.config,
            "seconds": self.seconds + running,
            "images": self.images,
            "last_epoch": self.last_epoch,
            "ended": self.ended,
            "changed": self.changed,
            "conditions": self.conditions,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue with the clock, the count of images and what changed before."""
        self.seconds, self.images = state_dict["seconds"], state_dict["images"]
        self.last_epoch, self.conditions = state_dict["last_epoch"], state_dict["conditions"]
        self.changed, self._before = state_dict["changed"], state_dict["config"]
        self.winograd = state_dict["winograd"]

    def _stop_clock(self) -> None:
        if self._since is not None:
            self.seconds += time.perf_counter() - self._since
            self._since = None

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the clock: validation is not training time."""
        self._validated = True
        self._stop_clock()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the clock."""
        self._stop_clock()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Store the metrics of the last epoch, and draw the curves."""
        kept = ("train/", "val/") if self._validated else ("train/",)  # Lightning keeps those of an earlier epoch
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        self.last_epoch = {k: v for k, v in metrics.items() if k.startswith(kept) and "batch" not in k}
        self._draw_curves(trainer)
        self._curves_drawn = self.ended = True

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Draw the curves up to here, ignoring errors in that, because the exception matters more."""
        if self.started and not self._curves_drawn:
            with suppress(Exception):
                self._draw_curves(trainer)

    def complete(self, *, test: bool) -> bool:
        """Return whether training has ended and its summary is there, with the test if that is asked for."""
        if not self.ended:
            return False
        try:
            return read_summary(self.folder)["test_accuracy"] is not None or not test
        except (OSError, ValueError):  # the summary is missing or broken, and will be written again
            return False

    def report_complete(self) -> None:
        """Print the summary again, and how to train further."""
        if getattr(rank_zero_only, "rank", 0):
            return
        print_summary(read_summary(self.folder), self.folder)
        say(
            f"The run {self.folder} is already finished, and nothing in it was changed; to train it further: "
            f"{how_to_train_further(read_yaml(self.config, CONFIG))}"
        )

    def _draw_curves(self, trainer: Trainer) -> None:
        if not trainer.is_global_zero:
            return
        for logger in trainer.loggers:
            logger.save()
        draw_curves(self.folder)

    def _own_loggers(self, trainer: Trainer) -> list[MetricsFile]:
        return [logger for logger in trainer.loggers if isinstance(logger, MetricsFile) and trainer.is_global_zero]

    def finish(self, trainer: Trainer, model: ImageClassifier, data: ImageDataModule, *, test: bool) -> dict[str, Any]:
        """Test the chosen checkpoint if asked to, write figures and summary, and return the summary."""
        self.started = True  # even if no epoch was left to train
        writer = trainer.strategy.checkpoint_io
        if trainer.is_global_zero and isinstance(writer, WholeCheckpoints):
            writer.settle(self.folder)
        for logger in self._own_loggers(trainer):  # remove the row of an earlier test
            logger.truncate(trainer.global_step, without="test/")
        trained = self.conditions or conditions(trainer, {})  # none if no epoch was left to train
        trained = {**trained, "winograd": self.winograd or used_winograd(trainer)}
        training = Training(self.seconds, self.images, self.last_epoch, trained)
        said = {"changed": self.changed, DIVIDED_ANEW: model.divided_anew}  # before the test, which loads best.ckpt
        summary = summarise(trainer, model, data, training, test=test) | said
        if trainer.is_global_zero:
            if test or not self._curves_drawn:  # a resumed run that had already ended did not train
                self._draw_curves(trainer)
            if summary["test_accuracy"] is not None:
                draw_test(self.folder, model, data.classes, summary["test_accuracy"])
            write_whole(self.folder / SUMMARY, json_text(summary).encode())
        return summary
