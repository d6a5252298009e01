"""Gradients are let go after each optimizer step, and not in between."""

from typing import Any

import pytest
import torch
from lightning import Callback, LightningModule, Trainer

from cvcc_zoo import create
from cvcc_zoo.data import ImageDataModule


class Seen(Callback):
    """Whether there are gradients when a batch begins."""

    def __init__(self) -> None:
        self.there: list[bool] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self.there.append(any(p.grad is not None for p in pl_module.parameters()))


def train(accumulate: int, batch_size: int, batches: int) -> tuple[list[bool], torch.Tensor]:
    """Train on images in order; what was seen, and the weights."""
    torch.manual_seed(0)
    model, seen = create("linear", in_channels=1, image_size=8, optimizer={"name": "SGD", "lr": 0.1}), Seen()
    trainer = Trainer(
        max_epochs=1, limit_train_batches=batches, limit_val_batches=0, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, accelerator="cpu", callbacks=[seen],
        accumulate_grad_batches=accumulate,
    )  # fmt: skip
    trainer.fit(model, ImageDataModule(image_size=8, batch_size=batch_size))
    return seen.there, torch.cat([p.detach().flatten() for p in model.parameters()])


@pytest.mark.parametrize(
    ("accumulate", "there"), [(1, [False] * 6), (2, [False, True] * 3), (4, [False, True, True, True, False, True])]
)
def test_the_forward_pass_after_a_step_finds_no_gradients(accumulate: int, there: list[bool]) -> None:
    assert train(accumulate, 16, 6)[0] == there


def test_gradients_of_several_batches_add_up() -> None:
    once, twice = train(1, 32, 3)[1], train(2, 16, 6)[1]
    assert torch.allclose(once, twice, atol=1e-6)
    assert not torch.allclose(once, train(1, 16, 6)[1], atol=1e-3)
