"""Hooks of Lightning: callbacks see the numbers of the epoch that ends, and subclasses need no super()."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.loggers.logger import DummyLogger

from cvcc_zoo import FCNN, ImageClassifier, ImageDataModule, Linear, create, load
from cvcc_zoo.classifier.epochs import EpochMetrics
from cvcc_zoo.classifier.hooks import HOOKS
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


HooksWithoutSuper = type("HooksWithoutSuper", (FCNN,), {name: lambda *_, **__: None for name in HOOKS})
"""A model whose hooks are written as in Lightning's examples, without super()."""


def trained(family: Callable[..., ImageClassifier], data: ImageDataModule, file: Path) -> tuple[ImageClassifier, Any]:
    """A model with all that our hooks do: frozen statistics, dropout, a temperature, and a last validation."""
    seed_everything(1)
    model = family(hidden=[16, 16], norm="batch", dropout=0.5, freeze=1, num_classes=2, image_size=8)
    model.temperature = 2.0
    trainer = Trainer(max_steps=5, logger=False, num_sanity_val_steps=0, **QUIET)
    trainer.fit(model, data)
    found = {name: float(value) for name, value in trainer.callback_metrics.items()}
    trainer.save_checkpoint(file, weights_only=True)
    tested = trainer.test(model, data, verbose=False)[0]
    return model, (found, tested, model.temperature, model.test_confusion.tolist())


def test_what_a_model_does_at_its_hooks_needs_no_super_in_a_subclass(colours: Path, tmp_path: Path) -> None:
    data = images(colours)  # 4 batches an epoch
    expected, numbers = trained(FCNN, data, tmp_path / "fcnn.ckpt")
    model, same = trained(HooksWithoutSuper, data, tmp_path / "own.ckpt")
    assert same == numbers and {"train/loss", "val/accuracy"} <= numbers[0].keys() and numbers[2] == 1
    weights = model.state_dict()
    assert all(torch.equal(tensor, weights[name]) for name, tensor in expected.state_dict().items())
    assert load(tmp_path / "own.ckpt").classes == ("blue", "red")
    again: Any = HooksWithoutSuper
    assert again.load_from_checkpoint(tmp_path / "own.ckpt").classes == ("blue", "red")


def test_a_hook_of_ours_runs_once_and_after_that_of_a_subclass(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    monkeypatch.setattr("cvcc_zoo.classifier.epochs.check_finite", lambda _: order.append("ours"))

    class Without(Linear):
        def on_train_epoch_end(self) -> None:
            order.append("without")

    class WithSuper(Linear):
        def on_train_epoch_end(self) -> None:
            super().on_train_epoch_end()
            order.append("with")

    class Inherits(Without):
        pass

    class Below(WithSuper):
        def on_train_epoch_end(self) -> None:
            order.append("below")
            super().on_train_epoch_end()

    class Instead(WithSuper):
        def on_train_epoch_end(self) -> None:
            order.append("instead")

    class Aside:
        def on_train_epoch_end(self) -> None:
            order.append("aside")

    class Mixed(Aside, Linear):
        pass

    for family, wanted in {
        Linear: ["ours"],
        Without: ["without", "ours"],
        WithSuper: ["ours", "with"],
        Inherits: ["without", "ours"],
        Below: ["below", "ours", "with"],
        Instead: ["instead", "ours"],
        Mixed: ["aside", "ours"],
    }.items():
        for _ in range(2):
            order.clear()
            family(image_size=8).on_train_epoch_end()
            assert order == wanted, family


def test_what_a_hook_of_a_subclass_returns_is_kept() -> None:
    class Skips(Linear):
        def on_train_batch_start(self, batch: Any, batch_idx: int) -> int:  # type: ignore[override]
            return -1  # leaves out the rest of the epoch

    assert Skips(image_size=8).on_train_batch_start(None, 0) == -1
