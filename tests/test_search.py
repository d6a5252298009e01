"""A search tries what its space says, judges by validation images only, and goes on where it was stopped."""

import json
import math
import os
import shlex
import shutil
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from lightning import Trainer

from cvcc_zoo import ImageDataModule
from cvcc_zoo.__main__ import main
from cvcc_zoo.cli.lightning import build
from cvcc_zoo.commands.search import watches_validation
from cvcc_zoo.runs import RunFolder
from cvcc_zoo.search import running
from cvcc_zoo.search.goal import Goal
from cvcc_zoo.search.methods import GridSearch, RandomSearch
from cvcc_zoo.search.record import Trial, read_trials
from cvcc_zoo.search.space import Choice, Range, parse_space
from tests.test_train_zoo import AfterAStep

RATES = "{optimizer.lr: {from: 1e-4, to: 1e-1, log: true}, data.batch_size: [64, 128, 256]}"
TINY = [
    "--model=linear", "--trainer.max_epochs=1", "--trainer.limit_train_batches=3", "--trainer.limit_val_batches=2",
    "--trainer.log_every_n_steps=1", "--trainer.enable_progress_bar=false", "--trainer.accelerator=cpu",
]  # fmt: skip


def run(folder: str, space: str, *more: str) -> int:
    return main(["search", f"--folder={folder}", f"--space={space}", *TINY, *more])


def results(folder: str) -> list[Any]:
    """What must be the same again: everything but the clock."""
    return [(trial.number, trial.values, trial.measure, trial.epochs) for trial in read_trials(Path(folder))]


class KilledError(BaseException):
    """Ends everything at once, as far as that is possible within a process."""


def interrupt_trial(monkeypatch: pytest.MonkeyPatch, number: str, *, by: signal.Signals | None = None) -> None:
    """At the second step of that trial's second epoch."""
    count = RunFolder.on_train_batch_end

    def interrupted(run: RunFolder, trainer: Trainer, *args: Any) -> None:
        count(run, trainer, *args)
        if run.folder.name == number and trainer.global_step == 5:
            if by is None:
                raise KilledError
            os.kill(os.getpid(), by)

    monkeypatch.setattr(RunFolder, "on_train_batch_end", interrupted)


# Spaces, and what is drawn from them


def test_a_random_trial_is_a_function_of_seed_and_number() -> None:
    space = parse_space(RATES)
    drawn = [RandomSearch(space, seed=0).values(number) for number in range(5)]
    again = RandomSearch(space, seed=0)
    assert [again.values(number) for number in reversed(range(5))] == drawn[::-1]
    assert len({values["optimizer.lr"] for values in drawn}) == 5
    assert RandomSearch(space, seed=1).values(0) != drawn[0]


def test_random_numbers_are_uniform_in_their_range_or_in_its_logarithm() -> None:
    space = parse_space(
        "{log: {from: 1e-4, to: 1e-1, log: true}, plain: {from: -1.0, to: 3.0}, whole: {from: 1, to: 4}, "
        "layers: {from: 1, to: 100, log: true}, list: [a, b]}"
    )
    count = 2000
    trials = [RandomSearch(space, seed=0).values(number) for number in range(count)]
    shares = {
        "log": [(math.log10(values["log"]) + 4) / 3 for values in trials],
        "plain": [(values["plain"] + 1) / 4 for values in trials],
    }
    for found in shares.values():  # Kolmogorov-Smirnov: 1.63 / sqrt(n) is passed in one of a hundred seeds
        ordered = sorted(found)
        assert ordered[0] >= 0 and ordered[-1] <= 1
        assert max(abs((i + 0.5) / count - share) for i, share in enumerate(ordered)) < 1.63 / count**0.5
    for name, values in (("whole", [1, 2, 3, 4]), ("list", ["a", "b"])):
        counts = Counter(trial[name] for trial in trials)
        assert set(counts) == set(values)
        assert all(abs(counts[value] / count - 1 / len(values)) < 0.04 for value in values)
    layers = [trial["layers"] for trial in trials]
    assert all(isinstance(number, int) and 1 <= number <= 100 for number in layers)
    assert 0.4 < sum(number < 8 for number in layers) / count < 0.6  # log 7.5/0.5 of log 100.5/0.5: 51 %


def test_a_grid_is_the_product_of_all_values_in_order() -> None:
    space = parse_space("{a: {from: 1e-3, to: 1e-1, log: true, steps: 3}, b: {from: 1, to: 7, steps: 3}, c: [x, null]}")
    assert space["b"] == Choice((1, 4, 7)) and parse_space("{b: {from: 1, to: 7}}")["b"] == Range(1, 7)
    grid = GridSearch(space)
    found = [grid.values(number) for number in range(grid.trials)]
    assert [values["a"] for values in found[::6]] == pytest.approx([1e-3, 1e-2, 1e-1])
    assert [(values["b"], values["c"]) for values in found[:6]] == [(b, c) for b in (1, 4, 7) for c in ("x", None)]
    assert grid.trials == 18 and len({json.dumps(values) for values in found}) == 18


def test_the_goal_is_the_best_or_the_last_epoch(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("step,val/accuracy,val/loss\n1,0.5,1.0\n2,0.7,0.8\n3,0.6,0.9\n")
    goals = [Goal(measure, epoch) for measure in ("val/accuracy", "val/loss") for epoch in ("best", "last")]
    assert [goal.of(tmp_path / "metrics.csv") for goal in goals] == [0.7, 0.6, 0.8, 0.9]
    trials = [Trial(number, {}, measure) for number, measure in enumerate((0.5, None, 0.7, 0.5))]
    assert [trial.number for trial in Goal().ranked(trials)] == [2, 0, 3]
    assert [trial.number for trial in Goal("val/loss").ranked(trials)] == [0, 3, 2]
    (tmp_path / "metrics.csv").write_text("step,val/loss,val/accuracy\n1,nan,nan\n2,0.5,0.75\n3,nan,nan\n")
    assert [Goal(measure).of(tmp_path / "metrics.csv") for measure in ("val/loss", "val/accuracy")] == [0.5, 0.75]
    with pytest.raises(ValueError, match="val/loss is nan"):
        Goal("val/loss", "last").of(tmp_path / "metrics.csv")
    (tmp_path / "metrics.csv").write_text("step,val/loss\n1,nan\n")
    with pytest.raises(ValueError, match="val/loss is nan"):
        Goal("val/loss").of(tmp_path / "metrics.csv")


@pytest.mark.parametrize(("step", "validated"), [(3, False), (4, True), (5, True)])
def test_the_last_epoch_counts_only_if_it_was_validated(step: int, validated: bool, tmp_path: Path) -> None:
    """Three epochs of two steps, counted from 0, with a validation at the end of the first and another one."""
    file, last = tmp_path / "metrics.csv", Goal(epoch="last")
    file.write_text(f"step,train/loss,val/accuracy\n1,1.0,\n1,,0.5\n3,0.9,\n{step},,0.7\n5,0.8,\n")
    assert Goal().of(file) == 0.7
    if validated:
        assert last.of(file) == 0.7
    else:
        with pytest.raises(ValueError, match="the last epoch is not validated; choose max_epochs as a multiple of"):
            last.of(file)


# Searches


def test_a_search_that_was_stopped_ends_like_one_that_was_not(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One is killed in its second trial, one is stopped by a signal in its first, after which another one begins."""
    more = ["--trials=2", "--trainer.max_epochs=2"]
    assert run("whole", RATES, *more) == 0
    before = signal.getsignal(signal.SIGTERM)
    with monkeypatch.context() as patch, pytest.raises(KilledError):
        interrupt_trial(patch, "001")
        run("killed", RATES, *more)
    capsys.readouterr()
    with monkeypatch.context() as patch:
        interrupt_trial(patch, "000", by=signal.SIGTERM)
        assert run("stopped", RATES, *more) == 128 + signal.SIGTERM
    printed = capsys.readouterr().out
    assert "SIGTERM: stopped after 5 steps" in printed and "the same `cvcc-zoo search` resumes" in printed
    assert "stopped: 0 of 2 trials ended" in printed
    assert signal.getsignal(signal.SIGTERM) is before
    assert results("killed") == results("whole")[:1] and results("stopped") == []
    first = Path("killed/000/metrics.csv").stat().st_mtime_ns
    for folder in ("killed", "stopped"):
        assert not (Path(folder) / ".lock").exists()
        assert run(folder, RATES, *more) == 0
        assert results(folder) == results("whole") and len(results(folder)) == 2
        for number in ("000", "001"):
            files = [Path(each, number, "metrics.csv").read_bytes() for each in (folder, "whole")]
            assert files[0] == files[1]
    assert Path("killed/000/metrics.csv").stat().st_mtime_ns == first  # what is there is not trained again


def test_a_signal_after_the_last_step_stops_the_search_too(monkeypatch: pytest.MonkeyPatch) -> None:
    end = ImageDataModule.val_dataloader

    def interrupted(data: ImageDataModule) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        return end(data)

    with monkeypatch.context() as patch:
        patch.setattr(ImageDataModule, "val_dataloader", interrupted)
        assert run("late", RATES, "--trials=2", "--trainer.num_sanity_val_steps=0") == 143
    assert not Path("late/001").exists()
    assert run("late", RATES, "--trials=2", "--trainer.num_sanity_val_steps=0") == 0
    assert len(results("late")) == 2


def test_a_search_ends_when_its_time_is_over(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(running, "Deadline", AfterAStep)
    assert run("timed", RATES, "--trials=2", "--minutes=5") == 0
    assert results("timed") == [] and Path("timed/000/last.ckpt").is_file()
    assert "the time limit is reached: stopped after 1 step;" in capsys.readouterr().out


def test_a_grid_is_searched_and_its_best_values_train_on_all_images(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("grid", "{optimizer.lr: [0.0, 0.01], model: [linear, fcnn]}", "--method=grid", "--measure=val/loss") == 0
    trials = read_trials(Path("grid"))
    tried = [tuple(trial.values.values()) for trial in trials]
    assert tried == [(0.0, "linear"), (0.0, "fcnn"), (0.01, "linear"), (0.01, "fcnn")]
    best = min(trials, key=lambda trial: trial.measure or 0.0)
    assert best.values["optimizer.lr"] == 0.01 and Path("grid/search.png").is_file()
    printed = capsys.readouterr().out
    assert "grid: 4 of 4 trials ended" in printed
    words = shlex.split(printed.splitlines()[-1])
    assert words[:2] == ["cvcc-zoo", "fit"] and words[-1] == "--data.validation=0"
    assert main([*words[1:], "--test=false", "--run=best"]) == 0
    summary = json.loads(Path("best/summary.json").read_text())
    assert summary["images"]["train"] == 6000 and summary["model"] == best.values["model"]


def test_the_best_values_keep_the_validation_images_that_they_watch(capsys: pytest.CaptureFixture[str]) -> None:
    stopping = ["--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor=val/loss"]
    assert run("watching", "{optimizer.lr: [0.01]}", "--method=grid", *stopping) == 0
    words = shlex.split(capsys.readouterr().out.splitlines()[-1])
    assert words[:2] == ["cvcc-zoo", "fit"] and "--data.validation=0" not in words
    assert main([*words[1:], "--test=false", "--run=best"]) == 0


def test_the_best_values_name_the_modules_that_the_search_imported(capsys: pytest.CaptureFixture[str]) -> None:
    search = ["search", "--folder=search", "--space={optimizer.lr: [0.01]}", "--method=grid", *TINY]
    assert main(["--import=colorsys", "--import", "bisect", *search]) == 0
    assert "\ncvcc-zoo --import=colorsys --import=bisect fit --model=linear" in capsys.readouterr().out
    assert main(search) == 0
    assert "\ncvcc-zoo fit --model=linear" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "watches"),
    [
        (["--lr_scheduler=ReduceLROnPlateau"], True),
        (["--lr_scheduler=ReduceLROnPlateau", "--lr_scheduler.monitor=train/loss"], False),
        (["--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor=train/loss"], False),
        (["--model=ridge", "--model.ridge=validation"], True),
        (["--model=ridge", "--data.augmentations=none"], False),
    ],
)
def test_some_options_watch_the_validation_images(options: list[str], watches: bool) -> None:
    assert watches_validation(build([*TINY, *options])) == watches


def test_no_test_image_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    load_split = ImageDataModule._load

    def no_test(data: ImageDataModule, split: str) -> object:
        assert split != "test"
        return load_split(data, split)

    monkeypatch.setattr(ImageDataModule, "_load", no_test)
    assert run("search", RATES, "--trials=1") == 0
    with pytest.raises(AssertionError):
        main(["fit", *TINY])


def test_a_trial_that_fails_is_recorded_and_the_next_one_begins(capsys: pytest.CaptureFixture[str]) -> None:
    space = "{optimizer.lr: [1e30, 0.01], model.loss: [squared_error]}"
    assert run("failing", space, "--method=grid", "--optimizer=SGD", "--lr_scheduler=null") == 0
    failed, finished = read_trials(Path("failing"))
    assert failed.state == "failed" and failed.message.startswith("the loss is")
    assert finished.state == "finished" and finished.measure is not None
    printed = capsys.readouterr().out
    assert "trial 000: failed: the loss is" in printed and "2 of 2 trials ended, 1 failed" in printed
    assert run("failing", space, "--method=grid", "--optimizer=SGD", "--lr_scheduler=null") == 0
    assert read_trials(Path("failing")) == [failed, finished]
    only = "{optimizer.lr: [1e30], model.loss: [squared_error]}"
    assert run("all", only, "--method=grid", "--optimizer=SGD", "--lr_scheduler=null") == 1  # nothing was found


def test_numbers_that_cannot_be_trained_with_fail_by_themselves(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("space", "{data.batch_size: [64, 0, 64.5]}", "--method=grid") == 0
    trials = read_trials(Path("space"))
    assert [trial.state for trial in trials] == ["finished", "failed", "failed"]
    assert trials[1].message == "batch_size must be at least 1, got 0"
    assert "64.5" in trials[2].message and trials[2].message in capsys.readouterr().out  # what the parser says


def test_another_search_in_the_folder_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("taken", RATES, "--trials=1") == 0
    before = Path("taken/trials.jsonl").read_bytes()
    other = RATES.replace("1e-4", "1e-3")
    for space, more, told in [
        (other, [], "search.space.optimizer.lr.from was 0.0001 and is 0.001"),
        (RATES, ["--trainer.max_epochs=2"], "trainer.max_epochs was 1 and is 2"),
        (RATES, ["--seed=1"], "search.seed was 0 and is 1"),
    ]:
        assert run("taken", space, *more) == 2
        assert told in capsys.readouterr().err
    Path("mine").mkdir()
    Path("mine/notes.txt").write_text("")
    assert run("mine", RATES) == 2
    assert "mine is not the folder of a search" in capsys.readouterr().err
    with FileLock("taken/.lock"):
        assert run("taken", RATES) == 2
    assert "another process is searching in taken" in capsys.readouterr().err
    assert Path("taken/trials.jsonl").read_bytes() == before


def test_trials_on_other_images_are_not_compared(colours: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["search", "--space={optimizer.lr: [0.01, 0.1]}", "--method=grid", *TINY]
    words += [f"--data.root={colours}", "--data.batch_size=8"]
    assert main([*words, "--folder=kept"]) == 0
    shutil.copy(colours / "train/blue/000.png", colours / "train/red/new.png")
    assert main([*words, "--folder=kept"]) == 2
    assert "the training images have changed since the search in kept began" in capsys.readouterr().err
    assert main([*words, "--folder=other"]) == 0


@pytest.mark.parametrize(
    ("missing", "outcome"),
    [("red/000.png", "is removed"), ("red", "does not count")],  # it ends on fewer images, or fails with one class
)
def test_a_trial_on_images_that_changed_does_not_count_and_is_tried_again(
    missing: str, outcome: str, colours: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["search", "--folder=search", "--space={optimizer.lr: [0.01]}", "--method=grid", *TINY]
    words += [f"--data.root={colours}", "--data.batch_size=8"]
    attempt, place = running.attempt, colours / "train" / missing

    def disturbed(*args: Any) -> Trial:
        place.rename("away")
        return attempt(*args)

    with monkeypatch.context() as patch:
        patch.setattr(running, "attempt", disturbed)
        assert main(words) == 2
    assert f"trial 000 {outcome}, because the training images " in capsys.readouterr().err
    assert read_trials(Path("search")) == [] and not Path("search/000").exists()
    Path("away").rename(place)
    assert main(words) == 0
    assert [trial.state for trial in read_trials(Path("search"))] == ["finished"]


def test_a_trial_is_kept_if_its_images_cannot_be_read_again(
    colours: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    read = running.images_of

    def lose(options: dict[str, Any]) -> dict[str, str]:
        if options["image_size"] == 9:
            raise OSError("no such disk")
        return read(options)

    monkeypatch.setattr(running, "images_of", lose)
    words = ["sizes", "{data.image_size: [8, 9]}", "--method=grid", f"--data.root={colours}"]
    assert run(*words) == 2
    told = "trial 001 does not count, because the training images cannot be read: "
    assert told in capsys.readouterr().err and Path("sizes/001/summary.json").is_file()
    monkeypatch.setattr(running, "images_of", read)
    assert run(*words) == 0


def test_images_of_a_folder_are_read_again_only_if_a_file_was_written(
    colours: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done, attempt, read, place = list[str](), running.attempt, running.images_of, colours / "train/red/000.png"

    def train(*args: Any) -> Trial:
        done.append("trained")
        if len(done) == 3:
            place.write_bytes(place.read_bytes())
        return attempt(*args)

    def read_all(options: dict[str, Any]) -> dict[str, str]:
        done.append("read")
        return read(options)

    monkeypatch.setattr(running, "attempt", train)
    monkeypatch.setattr(running, "images_of", read_all)
    assert run("rates", "{optimizer.lr: [0.01, 0.1]}", "--method=grid", f"--data.root={colours}") == 0
    assert done == ["read", "trained", "trained", "read"]


def test_values_that_read_other_images_are_no_change_of_the_images(colours: Path) -> None:
    assert run("sizes", "{data.image_size: [8, 9]}", "--method=grid", f"--data.root={colours}") == 0
    assert [trial.state for trial in read_trials(Path("sizes"))] == ["finished", "finished"]
