"""The metric that selects the best weights is the user's choice, and part of the run."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from cvcc_zoo import load
from cvcc_zoo.__main__ import main
from cvcc_zoo.classifier.metrics import MONITORED, mode_of
from cvcc_zoo.search.goal import Goal
from tests.conftest import QUICK, Fit

SLOW = ["--model=linear", "--optimizer=SGD", "--optimizer.lr=0.01", "--lr_scheduler=null"]


def summary(run: str = "run") -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path(run, "summary.json").read_text())
    return found


def validated(run: str = "run") -> list[dict[str, float]]:
    """The metrics of the validation images after each epoch."""
    rows = csv.DictReader(Path(run, "metrics.csv").read_text().splitlines())
    return [{name: float(row[name]) for name in row if name[:4] == "val/"} for row in rows if row["val/loss"]]


def resumed(*more: str) -> int:
    return main(["fit", "--config=run/config.yaml", "--ckpt_path=last", *QUICK, *more])


def test_errors_are_best_when_they_are_low_and_shares_when_they_are_high() -> None:
    low = {"val/loss", "val/log_loss", "val/brier_score", "val/calibration_error"}
    assert {name for name in MONITORED if mode_of(name) == "min"} == low
    assert mode_of("train/batch_loss") == "min" and MONITORED[0] == "val/accuracy"


@pytest.mark.parametrize("monitor", ["val/loss", "val/f1"])
def test_the_best_weights_are_those_of_the_best_epoch_by_the_chosen_metric(fit: Fit, monitor: str) -> None:
    assert fit(*SLOW, f"--monitor={monitor}", "--trainer.max_epochs=4", "--run=run") == 0
    every, found = validated(), summary()
    best = (min if mode_of(monitor) == "min" else max)(range(4), key=lambda epoch: every[epoch][monitor])
    assert torch.load("run/best.ckpt", weights_only=True)["epoch"] == best
    assert found["selected_by"] == monitor and found["val_accuracy"] == every[best]["val/accuracy"]
    assert found["validation"] == pytest.approx(every[best])
    assert torch.equal(load("run").network.fc.weight, load("run/best.ckpt").network.fc.weight)  # type: ignore[union-attr, arg-type]


@pytest.mark.parametrize("typed", ["f1", "Val/F1"])
def test_a_metric_is_found_as_it_is_typed(fit: Fit, typed: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert fit("--model=linear", f"--monitor={typed}", "--run=run") == 0
    assert summary()["selected_by"] == "val/f1" and "monitor: val/f1" in Path("run/config.yaml").read_text()
    assert "best.ckpt, selected by val/f1" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "advice"),
    [
        (["--monitor=val/f2"], "no metric to select the best weights by named 'val/f2'; did you mean val/f1"),
        (["--monitor=test/accuracy"], "did you mean val/accuracy"),
        (["--monitor=top5_accuracy"], "no metric to select the best weights by named 'val/top5_accuracy'"),
        (
            ["--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor=val/f1"],
            "EarlyStopping takes the lowest val/f1 for the best, but it is the worst; set its mode to max: "
            "--trainer.callbacks.mode=max",
        ),
        (
            ["--lr_scheduler=ReduceLROnPlateau", "--lr_scheduler.monitor=val/f1"],
            "set its mode to max: --lr_scheduler.mode=max",
        ),
    ],
)
def test_a_wrong_metric_is_refused_before_the_first_step(
    fit: Fit, options: list[str], advice: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fit("--model=linear", *options) == 2
    printed = capsys.readouterr().err
    assert advice in printed and not Path("runs/linear-colours").exists()


def test_a_choice_without_validation_is_said_to_select_nothing(fit: Fit, caplog: pytest.LogCaptureFixture) -> None:
    assert fit("--model=linear", "--monitor=val/f1", "--data.validation=0", "--run=run") == 0
    assert "--monitor=val/f1 selects nothing" in caplog.text
    assert (summary()["selected_by"], summary()["val_accuracy"], summary()["validation"]) == (None, None, {})


def test_early_stopping_may_watch_them(fit: Fit) -> None:
    stop = ["--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor=val/balanced_accuracy"]
    more = ["--trainer.callbacks.mode=max", "--trainer.callbacks.patience=1", "--trainer.max_epochs=9"]
    assert fit("--model=linear", *stop, *more, "--optimizer.lr=1e-9", "--run=run") == 0
    assert summary()["epochs"] < 9


def test_a_resumed_run_remembers_the_metrics_of_its_best_weights(fit: Fit) -> None:
    assert fit(*SLOW, "--monitor=val/loss", "--trainer.max_epochs=2", "--run=run") == 0
    assert resumed("--trainer.max_epochs=3", "--optimizer.lr=0", "--allow_changes=true") == 0
    every = validated()
    assert len(every) == 3 and summary()["validation"] == pytest.approx(min(every, key=lambda each: each["val/loss"]))
    assert summary()["selected_by"] == "val/loss"


def test_a_run_is_not_resumed_with_another_metric(fit: Fit, capsys: pytest.CaptureFixture[str]) -> None:
    assert fit(*SLOW, "--run=run") == 0
    before = Path("run/best.ckpt").read_bytes()
    for more, advice in (([], "restore them"), (["--allow_changes=true"], "--weights=CHECKPOINT instead")):
        assert resumed("--trainer.max_epochs=2", "--monitor=val/f1", *more) == 2
        printed = capsys.readouterr().err
        assert "monitor was 'val/accuracy' and is 'val/f1'" in printed and advice in printed
    assert Path("run/best.ckpt").read_bytes() == before


def test_a_search_may_be_judged_by_them(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("step,val/f1,val/log_loss\n1,0.5,1.0\n2,0.7,0.8\n3,0.6,0.9\n")
    goals = [Goal("val/f1"), Goal("val/log_loss")]
    assert [goal.of(tmp_path / "metrics.csv") for goal in goals] == [0.7, 0.8]
    assert [goal.direction for goal in goals] == ["maximize", "minimize"]
    assert goals[0].shown(0.7) == "0.7000" and Goal("val/balanced_accuracy").shown(0.7) == "70.00 %"
