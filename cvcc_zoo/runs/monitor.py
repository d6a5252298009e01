"""OptimizerMonitor: a callback that logs the norms of gradients and updates."""

from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor
from torch.optim import Optimizer

from cvcc_zoo.internals.lightning import log_every_n_steps


class OptimizerMonitor(Callback):
    """Log `train/grad_norm` and `train/update_ratio` in every training row of the metrics.

    The first is the 2-norm of the gradient of all parameters before clipping, the second the 2-norm of the optimizer's
    update divided by that of the updated parameters: about a thousandth per step in healthy training. Enable it with
    `--trainer.callbacks+=OptimizerMonitor`.
    """

    logs = ("train/grad_norm", "train/update_ratio")

    def __init__(self) -> None:
        self._params: list[Tensor] = []
        self._before: list[Tensor] = []

    def looks(self, trainer: Trainer) -> bool:
        """Return whether the current step is one that is logged: every so many, and the last of `max_steps`."""
        every, step = log_every_n_steps(trainer), trainer.global_step + 1
        return every > 0 and (step % every == 0 or step == trainer.max_steps)

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Log the norm of the gradient, and copy the parameters."""
        if not self.looks(trainer):
            return
        self._params = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        self._before = [p.detach().clone() for p in self._params]
        pl_module.log("train/grad_norm", _norm([p.grad for p in self._params if p.grad is not None]))

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Log the size of the update relative to the parameters."""
        if self._before:
            now = [p.detach() for p in self._params]
            change = _norm([p - before for p, before in zip(now, self._before, strict=True)])
            pl_module.log("train/update_ratio", change / _norm(now).clamp(min=torch.finfo(change.dtype).tiny))
            self._params, self._before = [], []


def _norm(tensors: list[Tensor]) -> Tensor:
    """Return the 2-norm of all tensors together."""
    return torch.nn.utils.get_total_norm(tensors)
