"""Curves of the size of gradients and updates: a callback for `--trainer.callbacks+=OptimizerMonitor`."""

from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor
from torch.optim import Optimizer

from cvcc_zoo.internals.lightning import log_every_n_steps


class OptimizerMonitor(Callback):
    """Log `train/grad_norm` and `train/update_ratio` in every row of metrics of the training.

    The first is the length of the gradient of all parameters, before it is clipped; the second the length of what the
    optimizer changed, as a share of what the parameters are then. Healthy trainings change about a thousandth a step.
    """

    def __init__(self) -> None:
        self._params: list[Tensor] = []
        self._before: list[Tensor] = []

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Log the norm of the gradient, and copy the parameters."""
        every = log_every_n_steps(trainer)
        if every == 0 or (trainer.global_step + 1) % every:
            return
        self._params = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        self._before = [p.detach().clone() for p in self._params]
        pl_module.log("train/grad_norm", _length([p.grad for p in self._params if p.grad is not None]))

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Log how far the step has moved them."""
        if self._before:
            now = [p.detach() for p in self._params]
            change = _length([p - before for p, before in zip(now, self._before, strict=True)])
            pl_module.log("train/update_ratio", change / _length(now).clamp(min=torch.finfo(change.dtype).tiny))
            self._params, self._before = [], []


def _length(tensors: list[Tensor]) -> Tensor:
    """The 2-norm of all tensors together."""
    return torch.nn.utils.get_total_norm(tensors)
