"""StepGraph: whole training steps as CUDA graphs, so that a GPU does not wait for Python between two kernels.

Forward pass, loss, backward pass, clipping, optimizer, metrics and an EMA are recorded once and replayed for every
batch of the same shape; schedules, logging, checkpoints, validation and callbacks stay outside. With progressive
resizing or cropping, each size of images has its own graph. A smaller last batch of an epoch, and steps that
OptimizerMonitor looks into, run the ordinary way.

A step computes the same numbers as without a graph, up to rounding: learning rates are float32, and Muon, RMSprop,
Adagrad and Adafactor, for which torch has no fused kernel on a GPU, round once more where they multiply by a rate.
Dropout draws the same random numbers, because each replay starts from the current state of the generator. A loss that
is not finite stops training after its step, not before.

A replay repeats the Python numbers of the recording. So steps are recorded again if a number of a module, such as the
probability of dropout, differs at the first step of an epoch, or an option of the optimizer at any step. Other numbers
in a model must not change during training. Each graph needs as much memory as a step.
"""

from collections.abc import Callable
from typing import Any

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from torch import nn

from cvcc_zoo.classifier import ImageClassifier
from cvcc_zoo.classifier.batches import fields
from cvcc_zoo.classifier.divergence import report_loss
from cvcc_zoo.internals.lightning import callbacks_of, end_step, in_training_step, skips_backward
from cvcc_zoo.optim.capture import repeated_numbers
from cvcc_zoo.runs.compiled import Compile
from cvcc_zoo.runs.monitor import OptimizerMonitor
from cvcc_zoo.runs.obstacles import reason_against
from cvcc_zoo.runs.recording import RECORDERS, Recorder, StaticStep

MOST = 4
"""Number of batch shapes that have graphs at the same time; the next one replaces them all.

Graphs that were recorded on one stream share a workspace of cuBLAS, and torch frees it with the first of these graphs:
https://github.com/pytorch/pytorch/issues/193402.
"""
PLAIN = (bool, int, float, str, type(None))


class StepGraph(Callback):
    """Record whole training steps as CUDA graphs and replay them."""

    def __init__(self, required: bool = True) -> None:
        """If something forbids graphs, training raises ValueError, or runs without them if `required` is False."""
        self.required = required
        self._recorder: Recorder | None = None
        self._batch: Any = None
        self._forget()

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Choose how steps are recorded. Raises ValueError if something forbids it and graphs are required."""
        self._forget()
        if (reason := reason_against(trainer, pl_module)) is None:
            self._recorder = RECORDERS[pl_module.device.type](pl_module.device)
        elif self.required:
            raise ValueError(f"StepGraph: {reason}, or leave out StepGraph")
        else:
            rank_zero_info(f"Training steps are not replayed as CUDA graphs: {reason}.")
        for each in callbacks_of(trainer):
            if isinstance(each, Compile):
                each.within_graph = self._recorder is not None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take over the steps of the optimizer."""
        if self._recorder is None:
            return
        assert isinstance(pl_module, ImageClassifier)
        ordinary = pl_module.optimizer_step

        def optimizer_step(epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Callable[[], Any]) -> None:
            batch, self._batch = self._batch, None
            if (step := self._step_for(trainer, pl_module, batch)) is None:
                ordinary(epoch, batch_idx, optimizer, optimizer_closure)
                return
            images, labels = fields(batch)
            pl_module.check_batch(batch, batch_idx)
            pl_module.check_pixels(images)
            loss = step(images, labels)
            with in_training_step(pl_module):
                report_loss(pl_module, loss)
            end_step(trainer, optimizer_closure, loss)

        pl_module.optimizer_step = optimizer_step  # type: ignore[assignment, method-assign]

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Keep the batch, which Lightning does not pass to the step of the optimizer."""
        self._batch = batch

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Free the graphs, and give the model its own steps back."""
        if self._recorder is not None:
            vars(pl_module).pop("optimizer_step", None)
        self._forget()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Free the graphs, and give the model its own steps back."""
        self.teardown(trainer, pl_module, "fit")

    def _forget(self) -> None:
        if self._recorder is not None:
            self._recorder.wait()
        self._recorder = None
        self._steps: dict[Any, StaticStep] = {}
        self._batch = None
        self._shape: Any = None
        self._epoch = -1
        self._numbers: Any = None
        self._options: Any = None

    def _step_for(self, trainer: Trainer, model: ImageClassifier, batch: Any) -> StaticStep | None:
        """Return the step for batches of this shape, or None if this batch runs the ordinary way."""
        assert self._recorder is not None
        if trainer.accumulate_grad_batches > 1 or skips_backward(trainer):  # a callback changed it during training
            return None
        tensors = fields(batch)
        shape = tuple((each.shape, each.stride(), each.dtype) for each in tensors)
        rest = trainer.is_last_batch and shape != self._shape
        self._shape = shape
        self._check_numbers(trainer, model)
        looks = any(isinstance(each, OptimizerMonitor) and each.looks(trainer) for each in callbacks_of(trainer))
        if looks or (rest and shape not in self._steps):
            return None
        if shape not in self._steps:
            if len(self._steps) == MOST:
                self._recorder.wait()
                self._steps.clear()
            self._steps[shape] = StaticStep(trainer, model, *tensors, self._recorder)
        return self._steps[shape]

    def _check_numbers(self, trainer: Trainer, model: ImageClassifier) -> None:
        """Free the graphs if numbers that they repeat have changed; those of modules are checked once an epoch."""
        assert self._recorder is not None
        numbers = self._numbers
        if trainer.current_epoch != self._epoch:
            self._epoch = trainer.current_epoch
            numbers = trainer.gradient_clip_val, model.loss, numbers_of(model.network)
        options = repeated_numbers(trainer.optimizers[0])
        if (numbers, options) != (self._numbers, self._options):
            self._recorder.wait()
            self._steps.clear()
        self._numbers, self._options = numbers, options


def numbers_of(network: nn.Module) -> list[Any]:
    """Return the numbers and other plain values of all modules, and which parameters are trained."""
    values = [[value for value in vars(each).values() if isinstance(value, PLAIN)] for each in network.modules()]
    return [*values, [p.requires_grad for p in network.parameters()]]
