"""Obstacles to CUDA graphs of whole training steps: Python code in a step, and changes from step to step."""

from collections.abc import Callable
from typing import Any

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import GradientAccumulationScheduler

from cvcc_zoo.classifier import ImageClassifier
from cvcc_zoo.internals.lightning import callbacks_of, has_scaler
from cvcc_zoo.internals.torch import has_hooks, has_step_hooks
from cvcc_zoo.optim.capture import reason_against_recording
from cvcc_zoo.runs.compiled import OWN_GRAPHS, Compile
from cvcc_zoo.runs.monitor import OptimizerMonitor
from cvcc_zoo.runs.recording import RECORDERS

WITHIN = ("on_before_zero_grad", "on_before_backward", "on_after_backward", "on_before_optimizer_step")
"""Hooks of callbacks and modules that Lightning calls within a step."""
OF_MODEL = (
    *("training_step", "check_batch", "backward", "optimizer_step", "optimizer_zero_grad"),
    *("configure_gradient_clipping", "clip_gradients", *WITHIN),
)
"""Methods of a model that belong to a step; graphs are only made if the model does not override them."""


def reason_against(trainer: Trainer, model: LightningModule) -> str | None:
    """Return what rules out graphs of whole steps, and what to do about it, or None if nothing does."""
    if (device := model.device.type) not in RECORDERS:
        return f"a {device} has no CUDA graphs; train on an NVIDIA GPU (--trainer.accelerator=gpu)"
    reasons: tuple[Callable[[Trainer, Any], str | None], ...] = (_model, _trainer, _callbacks, _compiler)
    for find in reasons:
        if (reason := find(trainer, model)) is not None:
            return reason
    return reason_against_recording(trainer.optimizers[0])


def _model(trainer: Trainer, model: LightningModule) -> str | None:
    name = type(model).__name__
    if not isinstance(model, ImageClassifier):
        return f"{name} is not a model of this package; wrap its network (cvcc_zoo.ImageClassifier.wrap)"
    if getattr(model, "solver", None) is not None:
        return "ridge regression is solved in one pass over the images, without steps; train by an optimizer instead"
    if own := [name for name in OF_MODEL if _package_of(getattr(model, name)) not in ("cvcc_zoo", "lightning")]:
        return f"{name} has a {own[0]} of its own, which runs in every step; remove it, or override training_loss"
    if has_hooks(model):
        whose = f"the network of {name}" if has_hooks(model.network) else name
        return f"{whose} has hooks, which run in every step; remove them before training"
    return None


def _trainer(trainer: Trainer, model: LightningModule) -> str | None:
    if trainer.world_size > 1:
        return f"training runs in {trainer.world_size} processes; train in one (--trainer.devices=1)"
    schedules = any(isinstance(each, GradientAccumulationScheduler) for each in callbacks_of(trainer))
    if trainer.accumulate_grad_batches > 1 or schedules:
        return "gradients are accumulated over several batches; leave that out, and set --data.batch_size higher"
    if any(getattr(each.scheduler, "cycle_momentum", False) for each in trainer.lr_scheduler_configs):
        return "the schedule changes the momentum in every step; set --lr_scheduler.cycle_momentum=false"
    if has_step_hooks(trainer.optimizers[0]):
        return "the optimizer has hooks, which run in every step; remove them before training"
    if has_scaler(trainer):
        return "precision=16-mixed looks at the gradients in every step; choose --trainer.precision=bf16-mixed"
    return None


def _callbacks(trainer: Trainer, model: LightningModule) -> str | None:
    for each in callbacks_of(trainer):
        own = [name for name in WITHIN if getattr(getattr(each, name), "__func__", None) is not getattr(Callback, name)]
        if own and not isinstance(each, OptimizerMonitor):
            return f"the callback {type(each).__name__} looks into every step ({own[0]}); leave it out"
    return None


def _compiler(trainer: Trainer, model: LightningModule) -> str | None:
    for each in callbacks_of(trainer):
        if isinstance(each, Compile) and each.mode in OWN_GRAPHS:
            return (
                f"Compile(mode={each.mode}) makes CUDA graphs of its own; leave out its mode, or choose default or "
                "max-autotune-no-cudagraphs"
            )
    return None


def _package_of(method: Any) -> str:
    """Return the package in which a method was written."""
    return str(getattr(method, "__module__", "")).partition(".")[0]
