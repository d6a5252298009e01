"""Hooks of Lightning: callbacks see the numbers of the epoch that ends."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.loggers.logger import DummyLogger

from cvcc_zoo import ImageDataModule, create
from cvcc_zoo.classifier.epochs import EpochMetrics
from cvcc_zoo.internals.lightning import callbacks_of

QUIET: dict[str, Any] = {
    "accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False,
    "log_every_n_steps": 1,
}  # fmt: skip


class Rows(DummyLogger):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[dict[str, float]] = []

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        self.rows.append(dict(metrics))


class History(Callback):
    """Keeps what a callback sees at the end of each epoch."""

    def __init__(self) -> None:
        self.seen: dict[str, list[float]] = {"train/loss": [], "val/f1": [], "test/accuracy": []}

    def see(self, trainer: Trainer, name: str) -> None:
        if not trainer.sanity_checking:
            self.seen[name].append(float(trainer.callback_metrics.get(name, torch.nan)))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.see(trainer, "train/loss")

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.see(trainer, "val/f1")

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.see(trainer, "test/accuracy")


def images(colours: Path, **options: Any) -> ImageDataModule:
    return ImageDataModule("folder", root=str(colours), **{"batch_size": 9, "validation": 0.25, **options})


@pytest.mark.parametrize(("name", "epochs"), [("fcnn", 3), ("ridge", 1)])
def test_callbacks_see_the_metrics_of_the_epoch_that_ends(colours: Path, name: str, epochs: int) -> None:
    history, rows, data = History(), Rows(), images(colours, augmentations="none")
    options: dict[str, Any] = {"hidden": [8]} if name == "fcnn" else {"ridge": 1.0}
    model = create("FCNN" if name == "fcnn" else "Linear", num_classes=2, image_size=8, **options)
    trainer = Trainer(max_epochs=epochs, logger=rows, callbacks=[history], **QUIET)
    trainer.fit(model, data)
    trainer.test(model, data, verbose=False)
    for key, seen in history.seen.items():
        assert seen == [row[key] for row in rows.rows if key in row], key
    assert len({*history.seen["train/loss"]}) == epochs  # each epoch has another loss
    assert [type(each) for each in callbacks_of(trainer)][:2] == [EpochMetrics, History]  # once, after two setups
    assert "EpochMetrics" not in str(model.hparams_initial["trainer.callbacks"])
