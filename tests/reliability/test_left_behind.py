"""What a stopped run left behind is whole and goes with its checkpoint, or that is told before anything is done."""

import itertools
import os
import shutil
import signal
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cvcc_zoo.__main__ import main
from cvcc_zoo.classifier import ImageClassifier
from tests.conftest import COLOURS, QUICK, Fit, write_images
from tests.reliability.test_kill import differences, everything

MORE = ["--model=fcnn", "--model.hidden=[8]", "--trainer.max_epochs=3", "--data.batch_size=9", "--run=run"]
GO_ON = ["fit", "--config=run/config.yaml", "--ckpt_path=last"]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A folder with a run that was stopped in its third epoch, in `stopped`, and what one leaves that was not."""
    place = tmp_path_factory.mktemp("place")
    for seed, colour in enumerate(COLOURS):
        write_images(place / "colours/train" / colour, 20, seed=seed)
        write_images(place / "colours/test" / colour, 6, seed=seed + 10)
    start = ["fit", "--data.dataset=folder", f"--data.root={place / 'colours'}", *QUICK, *MORE]
    step, steps = ImageClassifier.training_step, []

    def interrupted(model: ImageClassifier, *args: Any) -> Any:
        steps.append(args)
        if len(steps) == 10:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(model, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CVCC_ZOO_DATA", str(place / "data-home"))
        patch.chdir(place)
        assert main(start) == 0
        expected = everything(Path("run"))
        shutil.rmtree("run")
        patch.setattr(ImageClassifier, "training_step", interrupted)
        assert main(start) == 143
        Path("run").rename("stopped")
    return place, expected


@pytest.fixture
def stopped(original: tuple[Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A copy of the run in `run`, where it was trained; returns what one leaves that was not stopped."""
    place, expected = original
    monkeypatch.chdir(place)
    shutil.rmtree("run", ignore_errors=True)
    shutil.copytree("stopped", "run")
    return expected


def test_the_checkpoint_before_the_last_is_kept_until_the_end_and_offered(
    stopped: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    last = Path("run/last.ckpt")
    with zipfile.ZipFile(last) as archive:
        largest = max(archive.infolist(), key=lambda entry: entry.file_size)
        stored = archive.read(largest)
    content = bytearray(last.read_bytes())
    content[content.index(stored) + len(stored) // 2] ^= 1  # another place may be padding, which changes nothing
    last.write_bytes(content)
    before = {path: path.read_bytes() for path in Path("run").iterdir()}
    capsys.readouterr()
    assert main(GO_ON) == 2
    said = capsys.readouterr().err
    assert "is damaged" in said and "replace it by one of the others in its folder (best.ckpt, previous.ckpt)" in said
    assert {path: path.read_bytes() for path in Path("run").iterdir()} == before
    Path("run/previous.ckpt").replace(last)
    assert main(GO_ON) == 0
    assert not differences(stopped, everything(Path("run")))
    assert not Path("run/previous.ckpt").exists()


def test_steps_that_end_within_an_epoch_go_on_from_its_start(fit: Fit, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = ["--model=fcnn", "--model.hidden=[8]", "--trainer.max_steps=10", "--data.batch_size=9", "--run=run"]
    assert fit(*steps, "--trainer.max_epochs=-1", "--trainer.log_every_n_steps=1") == 0
    expected = everything(Path("run"))
    shutil.rmtree("run")
    validate, calls = ImageClassifier.validation_step, []

    def interrupted(model: ImageClassifier, *args: Any) -> Any:
        calls.append(args)
        if len(calls) == 3:  # of the sanity check and two epochs
            os.kill(os.getpid(), signal.SIGTERM)
        return validate(model, *args)

    with monkeypatch.context() as patch:
        patch.setattr(ImageClassifier, "validation_step", interrupted)
        assert fit(*steps, "--trainer.max_epochs=-1", "--trainer.log_every_n_steps=1") == 143
    assert main(GO_ON) == 0
    assert not differences(expected, everything(Path("run")))


LOSSES: dict[str, Callable[[Path], object]] = {
    "missing": Path.unlink,
    "emptied": lambda path: path.write_bytes(b""),
    "zeroed": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "without a row": lambda path: path.write_text("".join(path.read_text().splitlines(keepends=True)[:-3])),
    "with another digit": lambda path: path.write_text(path.read_text().replace("\n0", "\n1", 1)),
    "without steps": lambda path: path.write_text(path.read_text().replace("step", "stop", 1)),
}


@pytest.mark.parametrize("loss", LOSSES)
def test_metrics_that_are_not_those_of_the_checkpoint_are_told(
    loss: str, stopped: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    metrics, kept = Path("run/metrics.csv"), Path("run/metrics.csv").read_bytes()
    LOSSES[loss](metrics)
    changed = metrics.read_bytes() if metrics.exists() else None
    capsys.readouterr()
    assert main(GO_ON) == 2
    said = capsys.readouterr().err
    assert "run/metrics.csv" in said and "restore it" in said and "--allow_changes=true" in said
    assert (metrics.read_bytes() if metrics.exists() else None) == changed
    metrics.write_bytes(kept)
    assert main(GO_ON) == 0
    assert not differences(stopped, everything(Path("run")))


@pytest.mark.parametrize("loss", ["missing", "zeroed", "without a row"])
def test_a_run_may_go_on_without_its_metrics(loss: str, stopped: dict[str, Any]) -> None:
    LOSSES[loss](Path("run/metrics.csv"))
    assert main([*GO_ON, "--allow_changes=true"]) == 0
    found = everything(Path("run"))
    assert not [name for name in differences(stopped, found) if "/state_dict" in name or "optimizer" in name]


def test_rows_are_on_the_disk_before_the_checkpoint_that_knows_them(fit: Fit, monkeypatch: pytest.MonkeyPatch) -> None:
    """And every file before its name, and the name before what comes later."""
    events: list[str] = []
    sync, replace = os.fsync, Path.replace

    def synced(number: int) -> None:
        events.append(f"sync {Path(f'/proc/self/fd/{number}').readlink().name.split('-')[0]}")
        sync(number)

    def renamed(path: Path, target: Path) -> Path:
        events.append(f"name {Path(target).name}")
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", renamed)
    assert fit(*MORE) == 0
    lasts = [number for number, event in enumerate(events) if event == "name last.ckpt"]
    assert len(lasts) == 4
    for number in lasts:
        assert events[number - 1] == "sync .last.ckpt" and events[number + 1] == "sync run"
    for first, second in itertools.pairwise(lasts):
        between = events[first + 2 : second - 1]
        assert any(event in ("sync metrics.csv", "name metrics.csv") for event in between)
