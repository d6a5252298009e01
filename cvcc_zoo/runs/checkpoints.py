"""Checkpoints of a run: the best by validation, and the last, from which training resumes exactly."""

import io
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.fabric.plugins.io import CheckpointIO, TorchCheckpointIO
from lightning.pytorch.callbacks import Checkpoint as CheckpointCallback
from lightning.pytorch.utilities import rank_zero_info

from cvcc_zoo.classifier.metrics import MONITORED, mode_of
from cvcc_zoo.classifier.training_images import holds_out_others
from cvcc_zoo.data import ImageDataModule
from cvcc_zoo.files.own import write_whole
from cvcc_zoo.files.plain import load_plain, refused_in
from cvcc_zoo.internals.lightning import MovableCheckpoint, batches_begun, end_restart, forget_unstarted_batch
from cvcc_zoo.runs.run_folder import LAST, PREVIOUS, is_run
from cvcc_zoo.weights.checkpoint import Checkpoint

MINUTES = 10.0
BEST = "best.ckpt"
PLAIN = (str, bytes, int, float, complex, bool, type(None), torch.dtype, torch.device, torch.layout)


class WholeCheckpoints(TorchCheckpointIO):
    """Write a checkpoint under a temporary name in its folder, flush it to disk, and rename it; read plain data only.

    Lightning's own goes through $TMPDIR, which may be on another disk, so that a kill can cut off the copy; and it
    lets a file run code if $TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD is set. The previous `last.ckpt` of a run stays until the
    new one has been read back.
    """

    def load_checkpoint(self, path: str | Path, *_: Any, **__: Any) -> dict[str, Any]:
        """Return the content on the CPU. Raises ValueError, as `cvcc_zoo.load` does, if it is not plain data."""
        content: dict[str, Any] = load_plain(Path(path))
        return content

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write the whole file; if that fails, raise OSError and leave the existing file unchanged.

        Raises ValueError if `load_checkpoint` would refuse it, because no test and no resumed training could read it.
        """
        target, content = Path(path), io.BytesIO()
        torch.save(checkpoint, content)
        if (refused := refused_in(content)) is not None:
            raise ValueError(
                f"the checkpoint {target} could not be read again: it would have {refused}{place_of_object(checkpoint)}"
                "; the state of a callback, an optimizer or a data module may have numbers, text, tensors, and lists "
                "and dicts of these"
            )
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.name == LAST and target.is_file() and is_run(target.parent):
                link_or_copy(target, target.with_name(PREVIOUS))
            write_whole(target, content.getbuffer())
        except OSError as error:
            kept = "; the previous one is unchanged" if target.is_file() else ""
            raise OSError(f"the checkpoint {target} cannot be written ({error.strerror or error}){kept}") from error

    def settle(self, folder: Path) -> None:
        """Read `last.ckpt` back, and remove the previous one. Raises ValueError if `last.ckpt` is damaged."""
        if (previous := folder / PREVIOUS).is_file():
            self.load_checkpoint(folder / LAST)
            previous.unlink()


def place_of_object(checkpoint: dict[str, Any]) -> str:
    """Return in which part of a checkpoint an object is that is not plain data, or "" if there is none."""
    waiting: list[tuple[str, Any]] = [("", checkpoint)]
    while waiting:
        place, item = waiting.pop()
        if isinstance(item, dict):
            waiting += [(f"{place}.{key}", each) for key, each in item.items()]
        elif isinstance(item, list | tuple | set):
            waiting += [(place, each) for each in item]
        elif not isinstance(item, torch.Tensor) and type(item) not in PLAIN:
            return f" in {place[1:]}"
    return ""


def link_or_copy(file: Path, name: Path) -> None:
    """Link a file under a second name, or copy it if the file system has no links."""
    name.unlink(missing_ok=True)
    try:
        os.link(file, name)
    except OSError:
        write_whole(name, file.read_bytes())


def with_whole_checkpoints(plugins: Sequence[Any]) -> list[Any]:
    """Return the user's plugins, with WholeCheckpoints added unless one of them writes checkpoints."""
    writes = any(isinstance(plugin, CheckpointIO) for plugin in plugins)
    return [*plugins] if writes else [*plugins, WholeCheckpoints()]


def between_steps(trainer: Trainer, batch_idx: int) -> bool:
    """Return whether a checkpoint at the start of this batch resumes exactly.

    It does at the start of an epoch. Within an epoch it does if weights are trained by gradients, no gradients are
    being accumulated, and no validation came just before, after which Lightning (2.6) would count steps wrongly. The
    end of a batch is not used because its metrics are not logged yet.
    """
    if batch_idx == 0:
        return True
    if not trainer.lightning_module.automatic_optimization:  # the sums of a closed-form solution are not saved
        return False
    if batch_idx % trainer.accumulate_grad_batches:
        return False
    every = trainer.val_check_batch
    number = batches_begun(trainer) - 1 if trainer.check_val_every_n_epoch is None else batch_idx
    return every is None or number % every != 0


class LastCheckpoint(CheckpointCallback):
    """Write `last.ckpt` at the start of every epoch, every `minutes` within one, and at the end.

    It is the start of an epoch and not the end of the previous one, because only then is everything logged.
    """

    def __init__(self, folder: Path, minutes: float = MINUTES) -> None:
        if minutes <= 0:
            raise ValueError(f"checkpoint_minutes must be above 0, got {minutes:g}")
        self.path = folder / LAST
        self.minutes = minutes
        self._since = time.monotonic()

    def save(self, trainer: Trainer) -> None:
        """Write `last.ckpt` now; every process calls this."""
        trainer.save_checkpoint(self.path, weights_only=False)  # optimizer and loops too
        self._since = time.monotonic()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock, and remove another best.ckpt."""
        self._since = time.monotonic()
        remove_other_best(trainer, self.path.with_name(BEST))

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remove another best.ckpt also if no epoch was left to train."""
        remove_other_best(trainer, self.path.with_name(BEST))

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Write `last.ckpt` at the start of an epoch, and within one every `minutes`."""
        if not between_steps(trainer, batch_idx):
            return
        over = time.monotonic() - self._since >= 60 * self.minutes
        if batch_idx == 0 or trainer.strategy.reduce_boolean_decision(over, all=False):
            self.save(trainer)

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """End the restart, so that a resumed epoch ends like any other, with the step of a plateau schedule."""
        end_restart(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the trained weights."""
        self.save(trainer)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Count the batch that is about to start as not begun, and at the start of an epoch the epoch too."""
        forget_unstarted_batch(checkpoint)


class BestCheckpoint(MovableCheckpoint):
    """Save `best.ckpt` by a metric of the validation images, even after the run folder was moved."""

    def __init__(self, folder: Path, monitor: str = MONITORED[0]) -> None:
        super().__init__(folder, "best", monitor=monitor, mode=mode_of(monitor), enable_version_counter=False)
        self.validation: dict[str, float] = {}  # all metrics of the validation after which best.ckpt was saved
        self._validated: Any = None  # the best score that they belong to
        self._other_images = False  # whether the best so far was chosen by other validation images

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Keep the metrics beside the best score, in this checkpoint too; a new best score is a new object."""
        if self.best_model_score is not self._validated:
            self._validated = self.best_model_score
            found = trainer.callback_metrics.items()
            self.validation = {name: float(value) for name, value in found if name.startswith("val/")}
        if "callbacks" in checkpoint:
            checkpoint["callbacks"][self.state_key]["validation"] = self.validation

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Note whether the validation images are those of the checkpoint."""
        data = getattr(trainer, "datamodule", None)
        about = checkpoint.get("cvcc_zoo", {})
        self._other_images = isinstance(data, ImageDataModule) and holds_out_others(about, data)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget a best so far that other images chose: its score cannot be compared."""
        super().on_train_start(trainer, pl_module)
        if self._other_images and self.best_model_path:
            rank_zero_info(f"{self.best_model_path} is removed: other validation images chose it; another is chosen")
            self.forget_best()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Resume with the best so far, and its metrics, if its best.ckpt is in the run folder."""
        if (Path(str(self.dirpath)) / BEST).is_file():
            super().load_state_dict(state_dict)
            self._validated = self.best_model_score
            self.validation = state_dict["validation"]


def best_so_far(checkpoint: Checkpoint | None, folder: Path | None, *, allowed: bool) -> Path | None:
    """Return the best.ckpt that a run resumed in `folder` (None: a new one) copies from beside its checkpoint.

    None if the folder has one already, or the run never had one. Raises ValueError if it is lost, unless that is
    `allowed`: then only the coming epochs are compared.
    """
    if checkpoint is None or not checkpoint.has_best or (folder is not None and (folder / BEST).is_file()):
        return None
    there = checkpoint.path.parent / BEST
    if there.is_file():
        return there
    if not allowed:
        raise ValueError(
            f"{checkpoint.path} belongs to a run whose best weights so far were in {BEST}, but there is no such "
            "file beside it; restore it, or keep only the best of the epochs still to come: --allow_changes=true"
        )
    return None


def remove_other_best(trainer: Trainer, file: Path) -> None:
    """Remove a best.ckpt that was not chosen in this training: `load` would prefer it to the weights of the last step.

    A run has one from before it was resumed without validation images, or was started again.
    """
    best = next((each for each in trainer.checkpoint_callbacks if isinstance(each, BestCheckpoint)), None)
    if trainer.is_global_zero and not (best and best.best_model_path) and file.is_file():
        file.unlink()
        if best is None:
            rank_zero_info(f"{file} is removed: without validation, the weights of a run are those of its last step")


def checkpoints(folder: Path, minutes: float, monitor: str, *, validation: bool) -> list[CheckpointCallback]:
    """Return the callbacks that save `last.ckpt` and, if there are validation images, `best.ckpt` by a metric of them.

    ModelCheckpoint's own `save_last` (2.6) skips epochs that are not among the best.
    """
    last = LastCheckpoint(folder, minutes)
    return [BestCheckpoint(folder, monitor), last] if validation else [last]
