"""The numbers of a run come from its own objects, whatever callbacks and precisions a user brings."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import cvcc_zoo
from cvcc_zoo import ImageDataModule, load
from cvcc_zoo.classifier.means import ImageMean
from cvcc_zoo.files.own import json_text
from cvcc_zoo.runs import callback
from cvcc_zoo.runs.measure import measure
from tests.conftest import SMALL, Fit


def summary(run: str = "run") -> dict[str, Any]:
    def refuse(constant: str) -> None:
        raise AssertionError(f"summary.json holds {constant}")

    found: dict[str, Any] = json.loads(Path(run, "summary.json").read_text(), parse_constant=refuse)
    return found


@pytest.mark.parametrize(
    "more", [["--trainer.callbacks.monitor=val/loss"], ["--trainer.callbacks.monitor=train/loss"], []]
)
def test_a_users_checkpoints_do_not_choose_what_is_tested(fit: Fit, more: list[str], colours: Path) -> None:
    options = [*SMALL, "--trainer.max_epochs=2"]
    assert fit(*options, "--run=alone") == 0
    assert fit(*options, "--trainer.callbacks+=ModelCheckpoint", *more, "--run=run") == 0
    for name in ("val_accuracy", "test_accuracy", "test_loss", "tested"):
        assert summary()[name] == summary("alone")[name]
    found = measure(load("run"), ImageDataModule("folder", root=str(colours)))
    assert found["test_accuracy"] == summary()["test_accuracy"]


@pytest.mark.parametrize("name", ["StochasticWeightAveraging", "EMAWeightAveraging"])
def test_an_average_that_is_not_what_is_saved_is_refused(
    fit: Fit, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--trainer.callbacks.swa_lrs=0.01", "--trainer.callbacks.device=null"] if name.startswith("Sto") else []
    assert fit(*SMALL, f"--trainer.callbacks+={name}", *options, "--run=run") == 2
    assert f"{name} does not save the weights that it tests; use --trainer.callbacks+=EMA" in capsys.readouterr().err
    assert not Path("run").exists()


@pytest.mark.parametrize("cast", [torch.bfloat16, torch.float16, torch.float32])
def test_sums_over_images_are_exact_whatever_the_model_is_cast_to(cast: torch.dtype) -> None:
    mean = ImageMean()
    torch.nn.ModuleList([mean]).to(cast)
    for right in (201, 199):
        mean.update(torch.arange(600) < right)
    torch.nn.ModuleList([mean]).to(cast)
    assert mean.compute().item() == pytest.approx(400 / 1200, abs=1e-15) and mean.total.dtype == torch.float64


@pytest.mark.parametrize("precision", ["bf16-true", "16-true", "64-true", "bf16-mixed"])
def test_a_share_of_images_is_a_share_of_images_in_every_precision(fit: Fit, precision: str) -> None:
    assert fit("--model=linear", f"--trainer.precision={precision}", "--run=run") == 0
    found = summary()
    assert (found["test_accuracy"] * 12) % 1 == 0 and (found["val_accuracy"] * 4) % 1 == 0
    assert found["last_epoch"]["train/accuracy"] * 32 == pytest.approx(
        round(found["last_epoch"]["train/accuracy"] * 32)
    )
    assert float(torch.tensor(found["test_loss"]).bfloat16()) != found["test_loss"]  # more than three digits


def test_the_time_of_a_training_is_that_of_all_its_steps_and_of_no_validation(
    fit: Fit, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0

    def step(model: cvcc_zoo.ImageClassifier, batch: Any, batch_idx: int) -> None:
        nonlocal now
        now += 1 if model.training else 100

    monkeypatch.setattr(cvcc_zoo.ImageClassifier, "check_batch", step)
    monkeypatch.setattr(callback, "time", SimpleNamespace(perf_counter=lambda: now))
    assert fit("--model=linear", "--data.batch_size=4", "--trainer.val_check_interval=2", "--run=run") == 0
    assert summary()["steps"] == summary()["train_seconds"] == 9 and summary()["images_per_second"] == 4


def test_numbers_of_an_earlier_validation_are_not_those_of_the_last_epoch(fit: Fit) -> None:
    for epochs, names in ((3, {"train/"}), (4, {"train/", "val/"})):
        more = [f"--trainer.max_epochs={epochs}", "--trainer.check_val_every_n_epoch=2", f"--run={epochs}"]
        assert fit("--model=linear", *more) == 0
        assert {name.partition("/")[0] + "/" for name in summary(str(epochs))["last_epoch"]} == names
        assert summary(str(epochs))["val_accuracy"] is not None  # of best.ckpt


def test_what_is_written_is_json_also_of_numbers_that_are_none() -> None:
    assert (
        json_text({"a": [float("nan"), 1.5], "b": (float("inf"),)}, indent=None) == '{"a": [null, 1.5], "b": [null]}\n'
    )


def test_weights_that_are_lost_in_the_last_step_are_an_error_and_replace_nothing(
    fit: Fit, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--model=cnn_small", "--optimizer=SGD", "--lr_scheduler=null", "--trainer.limit_train_batches=1"]
    assert fit(*options, "--optimizer.lr=1e40", "--run=run") == 2
    assert "a weight is not finite at step 1" in capsys.readouterr().err
    assert not Path("run/summary.json").exists() and not Path("run/best.ckpt").exists()
    assert all(torch.isfinite(tensor).all() for tensor in load("run/last.ckpt").state_dict().values())
    assert cvcc_zoo.load("run/last.ckpt").hparams["optimizer"]["lr"] == 1e40
