"""A learning rate range test finds the rate at which the loss falls fastest, and leaves nothing behind."""

import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from lightning import Callback, LightningModule, Trainer
from torch import Tensor, nn

from cvcc_zoo import ImageDataModule, create
from cvcc_zoo.__main__ import main
from cvcc_zoo.runs.checkpoints import LastCheckpoint
from cvcc_zoo.runs.stopping import StopAtSignal
from cvcc_zoo.search.rates import Growing, RangeTest, scaled_rates
from tests.conftest import SMALL, message

DATA = ["--data.dataset=folder", "--data.root=colours", "--data.batch_size=16", "--trainer.accelerator=cpu"]


def test_the_suggestion_is_where_the_loss_falls_fastest() -> None:
    rates = np.geomspace(1e-5, 10, 200)
    falls = 2 - 1 / (1 + (0.01 / rates) ** 2) + (rates > 1) * 50 * np.log(np.maximum(rates, 1))
    noise = np.random.default_rng(0).normal(0, 0.05, 200)
    assert RangeTest(200, rates.tolist(), (falls + noise).tolist()).suggestion() == pytest.approx(0.01, rel=0.3)


def test_there_is_no_suggestion_if_the_loss_only_rises() -> None:
    assert RangeTest(50, np.geomspace(1e-5, 10, 50).tolist(), np.linspace(1, 2, 50).tolist()).suggestion() is None
    assert RangeTest(50).suggestion() is None


def test_all_groups_of_an_optimizer_keep_the_ratios_of_their_rates(colours: Path) -> None:
    spec = {"name": "Muon", "lr": 0.02, "adamw_lr": 0.004}
    model = create("fcnn", num_classes=2, image_size=8, optimizer=spec)
    growing = Growing(1e-4, 1.0, 8)
    options: Any = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = Trainer(max_steps=8, callbacks=[growing], accelerator="cpu", enable_model_summary=False, **options)
    trainer.fit(model, ImageDataModule("folder", str(colours), batch_size=16))
    assert growing.found.rates == pytest.approx(np.geomspace(1e-4, 1, 8).tolist())
    rates = {group["name"]: group["lr"] for group in trainer.optimizers[0].param_groups}
    assert rates == pytest.approx({"muon": 1.0, "decay": 0.2, "no_decay": 0.2})
    assert scaled_rates(spec, 10) == pytest.approx({"lr": 0.2, "adamw_lr": 0.04})


class Losses(Callback):
    """Remembers the loss of each batch, in two batches a step."""

    def __init__(self) -> None:
        self.found: list[float] = []

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *_: Any) -> None:
        self.found.append(2 * float(outputs["loss"]))


def test_the_loss_of_a_step_is_the_mean_over_the_batches_that_it_accumulates(colours: Path) -> None:
    growing, losses = Growing(1e-4, 1.0, 8), Losses()
    options: Any = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    options |= {"accumulate_grad_batches": 2, "limit_train_batches": 2, "enable_model_summary": False}
    trainer = Trainer(max_steps=8, max_epochs=-1, callbacks=[growing, losses], accelerator="cpu", **options)
    model = create("fcnn", num_classes=2, image_size=8)
    trainer.fit(model, ImageDataModule("folder", str(colours), batch_size=8))
    assert growing.found.rates == pytest.approx(np.geomspace(1e-4, 1, 8).tolist()) and len(losses.found) == 16
    assert growing.found.losses == pytest.approx(np.reshape(losses.found, (8, 2)).mean(1).tolist())


class Broken(nn.Module):
    """A network whose scores are no numbers."""

    def __init__(self, num_classes: int, in_channels: int = 3) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(in_channels, num_classes, 3)

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.convolution(x).mean((2, 3)) * float("nan")
        return scores


def test_a_loss_that_is_never_a_number_is_told(colours: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = message(capsys, ["find-lr", "--steps=40", f"--model={__name__}.Broken", *DATA])
    assert "is not a finite number at the first rate, --low=1e-06" in told and "check the images" in told


def test_the_command_prints_the_options_and_leaves_only_a_picture(
    colours: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = set(Path().iterdir())
    options = [*SMALL, "--optimizer=SGD", "--lr_scheduler=Cosine", "--lr_scheduler.warmup=0.1", *DATA]
    options += ["--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor=val/loss"]  # nothing is validated
    for name in ("LearningRateMonitor", "DeviceStatsMonitor", "ModelCheckpoint"):  # those of a recipe
        options.append(f"--trainer.callbacks+={name}")
    assert main(["find-lr", "--steps=40", "--low=1e-4", "--high=1e6", *options]) == 0
    printed = capsys.readouterr().out
    assert "where it diverges after" in printed and "it falls fastest at" in printed
    assert printed.splitlines()[-1].startswith("--optimizer.lr=")
    assert set(Path().iterdir()) - before == {Path("lr.png"), Path("data-home")}  # the decoded images


@pytest.mark.parametrize(
    ("options", "advice"),
    [
        (["--low=1", "--high=0.1"], "give rates above 0, the lower one as --low, not --low=1 --high=0.1"),
        (["--low=0"], "give rates above 0"),
        (["--steps=5"], "give at least --steps=30"),
        (["--step=50"], "did you mean steps"),
        (["--run=mine"], "the test writes no run; leave --run out"),
        (["--output=lr.txt"], "lr.txt must end in .png"),
        (["--model=ridge", "--data.augmentations=none"], "is solved in closed form"),
        (["--trainer.fast_dev_run=true"], "leave it out"),
        (["--optimizer.lr=0"], "give --optimizer.lr above 0"),
        (["--optimizer=timm.adafactor"], "optimizer timm.adafactor has no lr; give --optimizer.lr="),
    ],
)
def test_what_cannot_be_tested_is_refused(
    options: list[str], advice: str, colours: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert advice in message(capsys, ["find-lr", *DATA, *options])
    assert not Path("lr.png").exists()


@pytest.mark.parametrize(
    ("savers", "said"), [(0, "ending this step\n"), (1, "ending this step and writing last.ckpt\n")]
)
def test_a_signal_promises_a_checkpoint_only_where_one_is_written(
    savers: int, said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    stop: Any = StopAtSignal()
    stop.on_train_start(SimpleNamespace(checkpoint_callbacks=[LastCheckpoint(Path("run"))] * savers), None)
    try:
        os.kill(os.getpid(), signal.SIGTERM)
    finally:
        stop._restore()
    assert capfd.readouterr().err == f"SIGTERM: {said}"
