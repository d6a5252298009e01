"""Learning rate range test: train with a rate that grows exponentially, and see where the loss falls fastest.

Smith 2017, https://arxiv.org/abs/1506.01186, section 3.3; the exponential growth, the smoothed loss and the steepest
slope are those of https://sgugger.github.io/how-do-you-find-a-good-learning-rate.html, as in fastai and Lightning.
Lightning's `Tuner.lr_find` gives all groups of an optimizer the same rate, which is wrong for Muon and `layer_decay`.
"""

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field
from inspect import signature
from typing import Any

import numpy as np
from lightning import Callback, LightningModule, Trainer

from cvcc_zoo.optim.build import find_optimizer
from cvcc_zoo.printing.progress import Display

SMOOTHING = 1 / 40  # of the steps: the standard deviation of a Gaussian
DIVERGED = 4.0  # times the lowest smoothed loss, where Lightning stops too
FEWEST = 30  # steps of a test


@dataclass(frozen=True)
class RangeTest:
    """The rates of a test, and the loss of the step at each; there are fewer than `steps` if it ended early."""

    steps: int
    rates: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)

    def smoothed(self) -> list[float]:
        """Return the losses, each averaged with those before and after it.

        fastai and Lightning average over earlier losses alone, which moves the curve to larger rates.
        """
        from scipy.ndimage import gaussian_filter1d

        found: list[float] = gaussian_filter1d(np.array(self.losses), SMOOTHING * self.steps, mode="nearest").tolist()
        return found

    def suggestion(self) -> float | None:
        """Return the rate where the loss falls fastest per factor of the rate, before it is lowest.

        The first tenth of the steps is left out, as in fastai: noise decides there. None if the loss did not fall.
        """
        losses, logs, first = np.array(self.smoothed()), np.log(self.rates), self.steps // 10
        lowest = int(losses.argmin()) if len(losses) else 0
        if lowest < first + 2:
            return None
        slopes = np.gradient(losses[: lowest + 1], logs[: lowest + 1])[first:-1]  # the lowest loss has only one side
        return float(np.exp(logs[first + slopes.argmin()]))


class Growing(Callback):
    """Let the learning rate of every group grow from `low` to `high` over `steps` steps, and record the losses.

    The loss of a step is the mean over the batches whose gradients it accumulates. The groups of an optimizer keep the
    ratios of their rates; `low` and `high` are those of its option `lr`. Training ends early once it diverges.
    """

    def __init__(self, low: float, high: float, steps: int) -> None:
        self.low, self.high, self.steps = low, high, steps
        self.found = RangeTest(steps)
        self._rate, self._ratios, self._batches = low, list[float](), list[float]()
        self._display = Display("learning rate range test: steps", steps)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Store the ratios of the groups' rates to the option `lr`."""
        base = float(pl_module.lr)  # type: ignore[arg-type]
        self._ratios = [float(group["lr"]) / base for group in trainer.optimizers[0].param_groups]

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Set the rates of the step."""
        rate = self.low * (self.high / self.low) ** (trainer.global_step / (self.steps - 1))
        for group, ratio in zip(trainer.optimizers[0].param_groups, self._ratios, strict=True):
            group["lr"] = rate * ratio
        self._rate = rate

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *_: Any) -> None:
        """Record the loss of a step at its last batch, and stop if it is several times the lowest one."""
        self._batches.append(float(outputs["loss"]) * trainer.accumulate_grad_batches)
        if trainer.global_step == len(self.found.rates):  # the next batch belongs to the same step
            return
        loss = statistics.fmean(self._batches)
        self._batches.clear()
        if not math.isfinite(loss):
            trainer.should_stop = True
            return
        self.found.rates.append(self._rate)
        self.found.losses.append(loss)
        self._display.update(trainer.global_step)
        smoothed = self.found.smoothed()
        if smoothed[-1] > DIVERGED * min(smoothed):
            trainer.should_stop = True

    def close(self) -> None:
        """Remove the progress bar."""
        self._display.close()


def scaled_rates(spec: Mapping[str, Any], factor: float) -> dict[str, float]:
    """Return the options of an optimizer that are rates (`lr`, `adamw_lr`, ...), times a factor."""
    parameters = signature(find_optimizer(spec["name"])).parameters
    defaults = {name: each.default for name, each in parameters.items() if name == "lr" or name.endswith("_lr")}
    values = {name: spec.get(name, default) for name, default in defaults.items()}
    return {name: factor * value for name, value in values.items() if isinstance(value, int | float)}
