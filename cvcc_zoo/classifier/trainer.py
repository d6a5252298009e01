"""Optimizer and schedule as Lightning's Trainer takes them, and the steps of a training."""

import inspect
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import BaseFinetuning, GradientAccumulationScheduler
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor
from torch.optim import LBFGS, Optimizer
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau

from cvcc_zoo.classifier.compatibility import check_strategy
from cvcc_zoo.data.length import training_length
from cvcc_zoo.internals.lightning import (
    callbacks_of,
    made_anew,
    start_epoch_anew,
    times_stepped,
    trainer_of,
    validates_by_the_clock,
)
from cvcc_zoo.internals.torch import under_names
from cvcc_zoo.optim import make_lr_scheduler, make_optimizer
from cvcc_zoo.optim.build import find_optimizer
from cvcc_zoo.optim.schedules import has_other_length
from cvcc_zoo.timing import slow_precision

OF_PLATEAU = ("best", "num_bad_epochs", "cooldown_counter", "last_epoch", "_last_lr")
"""What a ReduceLROnPlateau knows of the training so far; the rest of its state are its options."""


def place_schedule(spec: Mapping[str, Any], optimizer: Optimizer, trainer: Trainer) -> dict[str, Any]:
    """Build a schedule for the whole length of the training, as Lightning's `configure_optimizers` returns it.

    It is at the step of the Trainer, which trained before if `fit` is called again. Raises ValueError if the training
    has no end, if the number that a plateau schedule watches comes too late, or if a callback adds parameters later.
    """
    schedule = make_lr_scheduler(dict(spec), optimizer, *training_length(trainer))
    for callback in callbacks_of(trainer):
        if isinstance(callback, BaseFinetuning) and isinstance(schedule["scheduler"], LambdaLR):
            raise ValueError(
                f"{type(callback).__name__} adds parameters later, and the schedule has no rate for them; "
                "leave the schedule out (--lr_scheduler=null), or thaw in a second run: --weights=RUN --model.freeze=0"
            )
    watched = schedule.get("monitor", "")
    if watched and schedule["interval"] == "step":
        raise ValueError("ReduceLROnPlateau watches one value per epoch; leave out --lr_scheduler.interval=step")
    if watched.startswith("val/"):
        if not trainer.enable_validation:
            raise ValueError(
                f"the schedule watches {watched}, but there are no validation images; "
                "set --data.validation=0.1 or --lr_scheduler.monitor=train/loss"
            )
        timed = validates_by_the_clock(trainer)
        if timed or trainer.check_val_every_n_epoch is None:
            option = "a time as val_check_interval" if timed else "check_val_every_n_epoch=null"
            raise ValueError(
                f"the schedule watches {watched} after every epoch, but with {option} not every epoch is validated; "
                "leave it out, or set --lr_scheduler.monitor=train/loss"
            )
        schedule["frequency"] = trainer.check_val_every_n_epoch  # epochs without validation have nothing to watch
    if watched:
        for group in optimizer.param_groups:
            group["initial_lr"] = group["lr"]  # as torch does for all schedules but this one
    else:
        _go_on(schedule["scheduler"], times_stepped(trainer, schedule["interval"], 1))
    return schedule


def _go_on(schedule: Any, steps: int) -> None:
    """Step a schedule that was made anew until it has made so many steps."""
    with warnings.catch_warnings():  # torch warns of a schedule that steps before its optimizer
        warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step", UserWarning)
        for _ in range(getattr(schedule, "last_epoch", 0), steps):
            schedule.step()


def take_options(trainer: Trainer, module: LightningModule) -> None:
    """Apply the options of optimizer and schedule that the module has now, at the current step of the training.

    A plateau schedule keeps what it has counted, and the share of the initial learning rates that it has reached.
    StochasticWeightAveraging has no schedule of ours any more in a training that is resumed after it began.
    """
    optimizers, configs = made_anew(module)
    if configs and not trainer.lr_scheduler_configs:
        return
    for config, made in zip(trainer.lr_scheduler_configs, configs, strict=True):
        if isinstance(made.scheduler, ReduceLROnPlateau):
            counted = {name: value for name, value in config.scheduler.state_dict().items() if name in OF_PLATEAU}
            config.scheduler.load_state_dict({**made.scheduler.state_dict(), **counted})
            for group, new in zip(*(each.scheduler.optimizer.param_groups for each in (config, made)), strict=True):
                start = group.get("initial_lr")  # a plateau schedule of one's own has none
                new["lr"] = group["lr"] if start is None else new["lr"] * (group["lr"] / start if start else 1.0)
            continue
        _go_on(made.scheduler, times_stepped(trainer, config.interval, config.frequency))
        config.scheduler.load_state_dict(made.scheduler.state_dict())
        if isinstance(made.scheduler, LambdaLR) and isinstance(config.scheduler, LambdaLR):
            config.scheduler.lr_lambdas = made.scheduler.lr_lambdas  # functions, which no state has
    for optimizer, other in zip(trainer.optimizers, optimizers, strict=True):
        for group, new in zip(optimizer.param_groups, other.param_groups, strict=True):
            group.update({name: value for name, value in new.items() if name != "params"})


class Optimized(LightningModule):
    """A module that is trained as its hyperparameters `optimizer` and `lr_scheduler` say."""

    hparams: Any
    evaluated: bool = False
    """True while an optimizer such as LBFGS evaluates a batch again, which must not count twice."""
    _made_for: tuple[float, tuple[int, int]] | None = None  # the rate and the length that the schedule was made for

    @property
    def lr(self) -> float:
        """The learning rate among the options of the optimizer, where Lightning's Tuner looks for it."""
        return learning_rate(self.hparams["optimizer"])

    @lr.setter
    def lr(self, lr: float) -> None:
        self.hparams["optimizer"] = {**self.hparams["optimizer"], "lr": float(lr)}

    def on_fit_start(self) -> None:
        """Rebuild a schedule whose rate or length a callback has changed, and say if the precision is slow here."""
        super().on_fit_start()
        if self.device.type == "cpu" and (line := slow_precision(str(self.trainer.precision))):
            rank_zero_info(line)
        if self._made_for is not None and self._made_for != (self.lr, training_length(self.trainer)):
            take_options(self.trainer, self)

    def load_state_dict(self, state_dict: Mapping[str, Tensor], *args: Any, **options: Any) -> Any:
        """Load weights; if all of them are float64, as with precision=64-true, the module becomes float64 first.

        A training in another precision keeps its own. Names may have what torch.compile and DDP add to them.
        """
        floats = [tensor.dtype for tensor in state_dict.values() if tensor.is_floating_point()]
        trainer = trainer_of(self)
        trains = trainer is not None and (trainer.state.fn, trainer.state.status) == ("fit", "running")
        if floats and set(floats) == {torch.float64} and not (trains and self.trainer.precision != "64-true"):
            self.double()  # Lightning (2.6) does so only after it has put the weights of a checkpoint in
        return super().load_state_dict(under_names(self.state_dict(), state_dict), *args, **options)

    def on_train_start(self) -> None:
        """Resume with a whole epoch after one that was cut off, and with the schedule and accumulation of now."""
        super().on_train_start()
        start_epoch_anew(self.trainer)
        resumed = self.trainer.fit_loop.is_resuming and self.trainer.global_step > 0  # not a trial of BatchSizeFinder
        counts = self.automatic_optimization  # else global_step counts the calls of optimizers, several in a batch
        if resumed and counts and self._made_for is not None:
            length, configs = training_length(self.trainer), self.trainer.lr_scheduler_configs
            others = [has_other_length(self.hparams["lr_scheduler"], config, *length) for config in configs]
            if any(others) or self._made_for[1] != length:
                take_options(self.trainer, self)
        for callback in callbacks_of(self.trainer):  # which Lightning (2.6) tells of the starts of epochs alone
            if isinstance(callback, GradientAccumulationScheduler):
                callback.on_train_epoch_start(self.trainer, self)

    def optimizer_step(
        self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Callable[[], Any] | None = None
    ) -> None:
        """Take a step, and free the gradients: Lightning would keep their memory through the next forward pass.

        Metrics count the first evaluation of the batch, with the weights before the step. LBFGS, which decides by the
        loss, gets that of the whole batch: processes with shares of their own would decide differently.
        """

        def evaluate() -> Any:
            try:
                loss = optimizer_closure() if optimizer_closure is not None else None
            finally:
                self.evaluated = True
            decides = isinstance(self.trainer.optimizers[0], LBFGS) and self.trainer.world_size > 1
            return self.trainer.strategy.reduce(loss, reduce_op="mean") if decides else loss

        try:
            super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure and evaluate)
        finally:
            self.evaluated = False
        self.trainer.optimizers[0].zero_grad()

    def on_train_batch_end(self, *args: Any) -> None:
        """Stop after the last step of `max_steps` as after any other last step: with a validation.

        Lightning (2.6) leaves it out in the middle of an epoch, and with it the numbers and the best weights.
        """
        super().on_train_batch_end(*args)
        if 0 < self.trainer.max_steps <= self.trainer.global_step:  # which several optimizers may pass
            self.trainer.should_stop = True

    def on_train_end(self) -> None:
        """Take the stop back, because Lightning's BatchSizeFinder trains for some steps before the training itself."""
        super().on_train_end()
        if 0 < self.trainer.max_steps <= self.trainer.global_step:
            self.trainer.should_stop = False

    def configure_optimizers(self) -> Any:
        """Return one optimizer over all parameters, and the schedule for the whole length of the training."""
        check_strategy(trainer_of(self))
        optimizer, spec = make_optimizer(self.hparams["optimizer"], self), self.hparams["lr_scheduler"]
        if spec is None:
            return optimizer
        if trainer_of(self) is None:
            raise ValueError(
                "a schedule spans a training run, whose length a Trainer knows; in a loop of your own, make it with "
                "cvcc_zoo.optim.make_lr_scheduler(spec, optimizer, steps, epochs), and the model with lr_scheduler=None"
            )
        self._made_for = self.lr, training_length(self.trainer)
        return {"optimizer": optimizer, "lr_scheduler": place_schedule(spec, optimizer, self.trainer)}


def learning_rate(spec: Mapping[str, Any]) -> float:
    """Return the `lr` among the options of an optimizer, or its default. Raises ValueError if there is none."""
    default = inspect.signature(find_optimizer(spec["name"])).parameters.get("lr")
    lr = spec.get("lr", default.default if default else 0.0)
    if lr is None or lr is inspect.Parameter.empty:  # None where the optimizer chooses it, as timm.adafactor does
        raise ValueError(f"optimizer {spec['name']} has no lr; give --optimizer.lr=..., or --lr_scheduler=null")
    return float(lr)
