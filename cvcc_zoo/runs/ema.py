"""EMA: an exponential moving average of the weights, which replaces them in validation, test and checkpoints.

    d = min(decay, (1 + t) / (10 + t));  average = d average + (1 - d) weights, after each step t = 0, 1, ...

The warm-up of d is that of TensorFlow's ExponentialMovingAverage: without it the random initial weights stay in the
average of a short run. Statistics of norms are averaged too, as in timm's ModelEmaV3. Lightning's own
EMAWeightAveraging tests other weights than it saves.
"""

from collections.abc import Mapping
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelPruning
from torch import Tensor

from cvcc_zoo.internals.averages import CURRENT, SavedAverage
from cvcc_zoo.internals.lightning import callbacks_of
from cvcc_zoo.internals.torch import under_names

WIDE = "cvcc_zoo_average"  # key of those parts of the average that have more digits than the weights


class EMA(SavedAverage):
    """Average the weights during training with a `decay` in (0, 1); the model ends with the average."""

    def __init__(self, decay: float = 0.999) -> None:
        if not 0 < decay < 1:
            raise ValueError(f"EMA: decay must be in (0, 1), got {decay}")
        self.decay = decay
        self._average: dict[str, Tensor] = {}
        self._current: dict[str, Tensor] | None = None  # the trained weights, while the model holds the average
        self.moved = False  # whether a StepGraph has already moved the average in this step

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Forget the average of a training that was interrupted.

        Raises ValueError for a model without steps, and for checkpoints of the weights alone: Lightning (2.6) writes
        them without asking callbacks, so they would hold other weights than those that are validated.
        """
        if stage == "fit":
            if getattr(pl_module, "solver", None) is not None:
                raise ValueError("ridge is solved in one pass, without steps to average; leave EMA out")
            if any(isinstance(each, ModelPruning) for each in callbacks_of(trainer)):
                raise ValueError("EMA cannot average weights that ModelPruning renames in training; leave EMA out")
            for each in trainer.checkpoint_callbacks:
                if getattr(each, "save_weights_only", False):
                    raise ValueError(
                        f"{type(each).__name__}(save_weights_only=True) would save the weights without the average of "
                        "EMA, which is validated; leave save_weights_only out"
                    )
            self._average, self._current = {}, None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start from the initial weights, unless a checkpoint brought an average."""
        self.moved = False
        if not self._average:
            self._average = _wide(pl_module.state_dict(), pl_module.device)

    def share(self, step: int) -> float:
        """Return the share of the weights in the average after a step, which counts from 0."""
        return 1 - min(self.decay, (1 + step) / (10 + step))

    @torch.no_grad()
    def move(self, pl_module: LightningModule, share: float | Tensor) -> None:
        """Move the average by a share towards the weights; a tensor is not read back from its device."""
        weights = pl_module.state_dict()
        if weights.keys() != self._average.keys():
            raise ValueError(
                "EMA cannot average tensors that a callback renames or replaces in training; leave EMA or it out"
            )
        for name, tensor in weights.items():
            average = self._average[name]
            if not tensor.is_floating_point():
                average.copy_(tensor)
            elif isinstance(share, Tensor):
                average.lerp_(tensor.to(average.dtype), share.to(average.dtype))
            else:
                average.lerp_(tensor.to(average.dtype), share)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Move the average towards the weights after a step of the optimizer."""
        if (batch_idx + 1) % trainer.accumulate_grad_batches and not trainer.is_last_batch:
            return
        if not self.moved:
            self.move(pl_module, self.share(trainer.global_step - 1))
        self.moved = False

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put the average into the model."""
        if self._average:
            self._current = {name: tensor.detach().clone() for name, tensor in pl_module.state_dict().items()}
            pl_module.load_state_dict(self._average)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put the trained weights back."""
        if self._current is not None:
            pl_module.load_state_dict(self._current)
            self._current = None

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Put the trained weights back, if a validation was interrupted."""
        self.on_validation_end(trainer, pl_module)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put the average into the model for good; the last checkpoint, with both, is written by now."""
        if self._average:  # there is none if no epoch was left to train
            pl_module.load_state_dict(self._average)
            self._average = {}

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Save the average as the model's weights, which are those of a test, and the trained ones beside it."""
        if self._average:
            dtypes = {name: tensor.dtype for name, tensor in checkpoint["state_dict"].items()}
            average = {name: tensor.clone() for name, tensor in self._average.items()}
            checkpoint[CURRENT] = self._current or checkpoint["state_dict"]
            checkpoint["state_dict"] = {name: tensor.to(dtypes[name]) for name, tensor in average.items()}
            if wide := {name: tensor for name, tensor in average.items() if tensor.dtype != dtypes[name]}:
                checkpoint[WIDE] = wide

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Restore both. Raises ValueError for the checkpoint of a run without an average."""
        if trainer.state.fn != "fit" or trainer.ckpt_path is None:  # Lightning's Tuner restores the initial weights
            return
        if CURRENT not in checkpoint:
            raise ValueError(
                "this checkpoint has no EMA of the weights; resume without EMA, or start a new run with it"
            )
        average = under_names(pl_module.state_dict(), {**checkpoint["state_dict"], **checkpoint.get(WIDE, {})})
        self._average = _wide(average, pl_module.device)
        pl_module.load_state_dict(checkpoint[CURRENT])


def _wide(tensors: Mapping[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    """Return copies with at least 32 bits for floats: in 16 bits, the small steps of an average would be lost."""
    dtypes = {
        name: torch.promote_types(tensor.dtype, torch.float32) if tensor.is_floating_point() else tensor.dtype
        for name, tensor in tensors.items()
    }
    return {name: tensor.detach().to(device, dtypes[name], copy=True) for name, tensor in tensors.items()}
