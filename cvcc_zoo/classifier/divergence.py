"""A training ends at a loss or a weight that is not finite; the error says what to do."""

import math

import torch
from lightning import LightningModule
from torch import Tensor
from torch.optim import Optimizer

from cvcc_zoo.internals.lightning import log_every_n_steps, trainer_of


def diverged(module: LightningModule, what: str) -> FloatingPointError:
    """Return the error that ends a training run because of `what`."""
    optimizers = getattr(trainer_of(module), "optimizers", [])  # in other loops they are the loop's
    rate = "".join(f", lr {lr:g}" for each in optimizers[:1] if (lr := each.param_groups[0]["lr"]) is not None)
    return FloatingPointError(
        f"{what} at step {module.global_step} (epoch {module.current_epoch}{rate}); training stops here. Lower the "
        "learning rate (--optimizer.lr=...), warm it up, or clip the gradients (--trainer.gradient_clip_val=1)"
        + "".join(map(_lost_eps, optimizers))
    )


def _lost_eps(optimizer: Optimizer) -> str:
    """Return advice if the eps of an optimizer, by which it divides, is 0 in the precision of the weights."""
    for group in optimizer.param_groups:
        eps, half = group.get("eps"), any(p.dtype == torch.float16 for p in group["params"])
        if half and isinstance(eps, float) and not torch.tensor(eps, dtype=torch.float16):
            return (
                f". In float16 eps={eps:g} is 0: choose --trainer.precision=bf16-mixed or 16-mixed, or a larger eps "
                "(--optimizer.eps=1e-4)"
            )
    return ""


def report_loss(module: LightningModule, loss: Tensor) -> Tensor:
    """Log the loss of a training step in every row of metrics, and return it.

    Raises FloatingPointError if it is not finite. Reading the value waits for a GPU, so it is read seldom there; a NaN
    in the weights stays until then.
    """
    trainer, step = trainer_of(module), module.global_step + 1
    every = 0 if trainer is None else log_every_n_steps(trainer)
    now = every > 0 and (step % every == 0 or step == module.trainer.max_steps)  # when Lightning writes a row
    if now:
        module.log("train/batch_loss", loss, prog_bar=True, sync_dist=True)
    if (now or loss.device.type == "cpu") and not math.isfinite(value := loss.item()):
        raise diverged(module, f"the loss is {value}")
    return loss


def check_finite(module: LightningModule) -> None:
    """Raise FloatingPointError unless all weights and statistics of the network are finite; this waits for a GPU."""
    states = module.get_submodule("network").state_dict().values()
    finite = [torch.isfinite(tensor).all() for tensor in states if tensor.is_floating_point()]
    if finite and not torch.stack(finite).all():
        raise diverged(module, "a weight is not finite")
