"""Parts of Lightning (2.6) that are private, or public but missing from its types.

A loader with `state_dict` and `load_state_dict` does not replace the counters of batches: it knows which batches it
handed out, but a batch that was handed out has been trained on when a ModelCheckpoint is written, at the end of a step,
and has not been when our `last.ckpt` is written, before a step. (Only then is the step before it logged.)
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer
from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.core.mixins.hparams_mixin import _given_hyperparameters
from lightning.pytorch.core.optimizer import _init_optimizers_and_lr_schedulers
from lightning.pytorch.loops.optimization.automatic import ClosureResult
from lightning.pytorch.utilities.types import LRSchedulerConfig
from torch import Tensor
from torch.optim import Optimizer


def trainer_of(module: LightningModule) -> Trainer | None:
    """Return the Trainer of a module, or None where there is none, as under Fabric.

    `LightningModule.trainer` raises RuntimeError without a Trainer, and under Fabric it is an imitation.
    """
    try:
        trainer = module.trainer
    except RuntimeError:
        return None
    return trainer if isinstance(trainer, Trainer) else None


def callbacks_of(trainer: Trainer) -> list[Callback]:
    """Return all callbacks, Lightning's own too. The attribute is public, but Lightning's types do not have it."""
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    return callbacks


def log_every_n_steps(trainer: Trainer) -> int:
    """Return the steps between two rows of metrics, 0 for none. Public, but missing from Lightning's types."""
    steps: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
    return steps


def set_log_every_n_steps(trainer: Trainer, steps: int) -> None:
    """Set the steps between two rows of metrics: a good number is known only after the images were counted."""
    trainer.log_every_n_steps = steps  # type: ignore[attr-defined]


def validates_by_the_clock(trainer: Trainer) -> bool:
    """Return whether the Trainer validates at times (`val_check_interval="00:00:10:00"`), not after so many batches."""
    return trainer._val_check_time_interval is not None  # type: ignore[attr-defined]


def set_rank(rank: int) -> None:
    """Tell Lightning which process this is, where it cannot know when it is imported. Public, but not typed."""
    rank_zero_only.rank = rank  # type: ignore[attr-defined]


def set_max_epochs(trainer: Trainer, epochs: int) -> None:
    """Change how many epochs a training run has; `Trainer.max_epochs` cannot be set."""
    trainer.fit_loop.max_epochs = epochs


def load_training_batches(trainer: Trainer) -> None:
    """Ask the DataModule for its training loader, so that `trainer.num_training_batches` is known before training.

    `Trainer.estimated_stepping_batches` does so too, but not with a GradientAccumulationScheduler.
    """
    trainer.fit_loop.setup_data()


def batches_done(trainer: Trainer) -> int:
    """Return how many batches of this epoch were trained on; after the last one, all of them.

    A ModelCheckpoint asks for it between two batches as well as in one, where no hook tells the number.
    """
    progress: Any = trainer.fit_loop.epoch_loop.batch_progress
    return int(progress.current.processed)


def forget_broken_epoch(trainer: Trainer) -> None:
    """Uncount an epoch that ended with an error: without a checkpoint, the next `fit` repeats it from its start."""
    epochs: Any = trainer.fit_loop.epoch_progress.current
    if epochs.started > epochs.processed:
        epochs.reset_on_restart()


def batches_of_epoch(trainer: Trainer) -> int:
    """Return how many batches were trained on of an epoch that has begun and not ended; 0 between two epochs."""
    epochs: Any = trainer.fit_loop.epoch_progress.current
    return batches_done(trainer) if epochs.started > epochs.processed else 0


def times_stepped(trainer: Trainer, interval: str, frequency: int) -> int:
    """Return how often a schedule was stepped by "step" or "epoch", each time after so many of them.

    With manual optimization, where `global_step` counts the calls of all optimizers, each batch is taken for a step.
    """
    automatic = trainer.lightning_module.automatic_optimization
    ended = automatic and batches_of_epoch(trainer) >= trainer.num_training_batches  # stepped before the validation
    steps = trainer.global_step if automatic else batches_begun(trainer)
    return (steps if interval == "step" else trainer.current_epoch + ended) // frequency


def batches_begun(trainer: Trainer) -> int:
    """Return how many batches were begun in all epochs, those before the training was resumed included."""
    return trainer.fit_loop.total_batch_idx + 1


def forget_unstarted_batch(checkpoint: dict[str, Any]) -> None:
    """Let a checkpoint that is saved at the start of a batch be one from before it, so that the batch is repeated.

    At the start of an epoch this also uncounts the epoch. In other checkpoints nothing changes.
    """
    loops = checkpoint["loops"]["fit_loop"]
    batches = loops["epoch_loop.batch_progress"]
    if batches["total"]["ready"] != batches["total"]["started"] + 1:
        return
    batches["is_last_batch"] = False
    for count in (batches["total"], batches["current"]):
        count["ready"] -= 1
    if batches["current"]["ready"] == 0:
        _uncount_epoch(loops)


def move_in_epoch(checkpoint: dict[str, Any], batches: int) -> None:
    """Let a checkpoint from within an epoch be one from after so many of its batches, which have another size now."""
    loops = checkpoint["loops"]["fit_loop"]
    current = loops["epoch_loop.batch_progress"]["current"]
    more = batches - current["processed"]
    for count in current:  # which may differ by one: a ModelCheckpoint is written before its batch is completed
        current[count] += more
    if batches == 0:
        _uncount_epoch(loops)


def _uncount_epoch(loops: dict[str, Any]) -> None:
    for count in (loops["epoch_progress"]["total"], loops["epoch_progress"]["current"]):
        count["ready"] = count["started"] = count["processed"]


def start_epoch_anew(trainer: Trainer) -> None:
    """Let an epoch that was not begun start like any other.

    With `max_steps` Lightning takes every epoch for one that was interrupted: it counts a step that was not made, and
    the batches of an epoch that `max_steps` cut off as those of the next one.
    """
    loop, epochs = trainer.fit_loop.epoch_loop, trainer.fit_loop.epoch_progress.current
    if loop.restarting and epochs.ready == epochs.completed:
        loop.restarting = False


def end_restart(trainer: Trainer) -> None:
    """Let a resumed epoch end like any other: else Lightning leaves out the step of a plateau schedule at its end.

    The setter of `restarting` does not take False in a training run with `max_steps`.
    """
    trainer.fit_loop._restarting = False


def made_anew(module: LightningModule) -> tuple[list[Optimizer], list[LRSchedulerConfig]]:
    """Call `configure_optimizers` again, and return its optimizers and schedules, in whatever form it does."""
    return _init_optimizers_and_lr_schedulers(module)


@contextmanager
def in_training_step(module: LightningModule) -> Iterator[None]:
    """Let `module.log` log under the same key as in `training_step`; else Lightning writes the older of both values."""
    before, module._current_fx_name = module._current_fx_name, "training_step"
    try:
        yield
    finally:
        module._current_fx_name = before


def end_step(trainer: Trainer, closure: Any, loss: Tensor) -> None:
    """Let a step that ran without Lightning's closure count like one that ran it; its output is a copy of the loss."""
    closure._result = ClosureResult(loss)
    zero_grad = trainer.fit_loop.epoch_loop.automatic_optimization.optim_progress.optimizer.zero_grad
    zero_grad.increment_ready()
    zero_grad.increment_started()
    zero_grad.increment_completed()


@contextmanager
def arguments_given(arguments: dict[str, Any]) -> Iterator[None]:
    """Let `save_hyperparameters` save these, and not those that it finds, or that a LightningCLI or checkpoint has."""
    token = _given_hyperparameters.set(arguments)
    try:
        yield
    finally:
        _given_hyperparameters.reset(token)


def has_scaler(trainer: Trainer) -> bool:
    """Return whether gradients are scaled, as with precision=16-mixed. The attribute is public, but not typed."""
    return getattr(trainer.precision_plugin, "scaler", None) is not None


def skips_backward(trainer: Trainer) -> bool:
    """Return whether steps do not train: StochasticWeightAveraging has an epoch that only updates batch norms."""
    return trainer.fit_loop._skip_backward


def remove_hpc_checkpoints(trainer: Trainer) -> None:
    """Remove what Lightning saved at a signal of SLURM: a test without a path would load the last such checkpoint.

    All processes look for it where the first one does.
    """
    trainer._default_root_dir = trainer.strategy.broadcast(trainer.default_root_dir)  # type: ignore[attr-defined]
    if trainer.is_global_zero:
        for file in Path(trainer.default_root_dir).glob("hpc_ckpt_*.ckpt"):
            file.unlink(missing_ok=True)
    trainer.strategy.barrier()


def release_processes(trainer: Trainer) -> None:
    """Let the processes that this one has started end with a code of their own; else Lightning kills this one then."""
    getattr(trainer.strategy.launcher, "procs", []).clear()  # the list that it watches


class MovableCheckpoint(ModelCheckpoint):
    """A ModelCheckpoint that resumes with its files in another folder; Lightning's would forget the best one."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over a state with its paths, and its last score, which Lightning saves but does not load."""
        folder, paths = Path(str(self.dirpath)), ("best_model_path", "kth_best_model_path", "last_model_path")
        moved = {name: str(folder / Path(old).name) if (old := state_dict.get(name)) else "" for name in paths}
        best = {str(folder / Path(old).name): score for old, score in state_dict["best_k_models"].items()}
        super().load_state_dict({**state_dict, **moved, "dirpath": self.dirpath, "best_k_models": best})
        self.current_score = state_dict["current_score"]

    def forget_best(self) -> None:
        """Choose the best of the epochs still to come."""
        self.best_k_models, self.best_model_path, self.kth_best_model_path = {}, "", ""
        self.best_model_score = self.current_score = None


class RateMonitor(LearningRateMonitor):
    """A LearningRateMonitor of optimizers that may choose their rate in the first step, before which it is None."""

    def _extract_lr(self, param_group: dict[str, Any], name: str) -> dict[str, Any]:
        return {} if param_group["lr"] is None else super()._extract_lr(param_group, name)
