"""Somebody who waits sees how far a job is: in a terminal of 80 columns, and in a file."""

import fcntl
import math
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path
from typing import Any

import pytest
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelSummary, RichModelSummary, TQDMProgressBar

from cvcc_zoo import runs
from cvcc_zoo.__main__ import main
from cvcc_zoo.cli.lightning import build
from cvcc_zoo.cli.lightning import main as lightning
from cvcc_zoo.data import ImageDataModule
from cvcc_zoo.files.download import digest, fetch
from cvcc_zoo.printing import progress
from cvcc_zoo.printing.progress import Display, duration, tracked
from cvcc_zoo.runs.progress import ProgressBar, Summary
from cvcc_zoo.runs.stopping import StoppedError
from tests.conftest import Fit, MakeFolder
from tests.test_train_zoo import AfterAStep

COLUMNS = 80
NOISE = ("metrics", "Modules in", "FLOPs", "Loading", "log_every_n_steps", "ModelSummary", "TPU", "Restoring", "💡")


class Screen:
    """The rows that a terminal shows after what was written to it, as far as bars make use of one."""

    def __init__(self) -> None:
        self.rows, self.row, self.column = [""], 0, 0

    def write(self, text: str) -> None:
        for part in re.findall(r"\x1b\[[?\d;]*[A-Za-z]|.", text, flags=re.DOTALL):
            if part == "\r":
                self.column = 0
            elif part == "\n":
                self._down()
            elif part == "\x1b[2K":
                self.rows[self.row] = ""
            elif up := re.fullmatch(r"\x1b\[(\d+)A", part):
                self.row -= int(up[1])
            elif part[0] != "\x1b":
                if self.column == COLUMNS:
                    self._down()
                    self.column = 0
                row = self.rows[self.row].ljust(self.column)
                self.rows[self.row] = row[: self.column] + part + row[self.column + 1 :]
                self.column += 1

    def _down(self) -> None:
        self.row += 1
        self.rows += [""] * (self.row + 1 - len(self.rows))


def watched(command: list[str]) -> list[list[str]]:
    """The rows of a terminal of 80 columns, each time that a command has written to it."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, COLUMNS, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    environment["TERM"] = "xterm-256color"
    process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, env=environment)
    os.close(slave)
    screen, shots, text = Screen(), list[list[str]](), b""
    while True:
        try:
            text += os.read(master, 1 << 16)
        except OSError:  # nobody writes any more
            break
        whole = text[: text.rfind(b"\n") + 1] or text  # no letter and no sequence is cut
        if whole == text or b"left" in text:
            screen.write(text.decode(errors="replace"))
            text = b""
            shots.append(list(screen.rows))
    screen.write(text.decode(errors="replace"))
    os.close(master)
    assert process.wait() == 0, screen.rows
    return [*shots, screen.rows]


def test_a_terminal_of_80_columns_keeps_a_line_for_each_epoch_above_one_bar(colours: Path) -> None:
    command = [sys.executable, "-m", "cvcc_zoo", "fit", "--model=linear", "--data.batch_size=1"]
    more = [f"--data.root={colours}", "--trainer.max_epochs=4", "--trainer.accelerator=cpu"]
    stop = ["--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor=val/loss"]
    stop += ["--trainer.callbacks.patience=4", "--trainer.callbacks.verbose=true"]
    shots = watched([*command, *more, *stop])
    bars = [[row for row in shot if "━" in row and " left" in row] for shot in shots]
    assert any(bars) and max(map(len, bars)) == 1
    assert any(re.search(r"epoch \d+/4, batch \d+/36 .* images/s \d:\d\d:\d\d left", bar[0]) for bar in bars if bar)
    for epoch in range(1, 5):
        assert len([row for row in shots[-1] if re.match(rf" +{epoch}/4 +\d", row)]) == 1
    screen = "\n".join(shots[-1])
    assert "images/s 0:" not in screen and not [word for word in NOISE if word in screen]
    assert "linear: 386 parameters, 384 MACs an image" in screen
    told = [row for row in shots[-1] if "improved" in row]
    assert told and all(row.startswith("Metric val/loss improved") for row in told)  # above the bar, whole


def test_in_a_file_an_epoch_is_a_line_with_time_loss_accuracies_and_speed(
    fit: Fit, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fit("--model=linear", "--trainer.enable_progress_bar=true", "--trainer.max_epochs=2") == 0
    heading, *lines = capsys.readouterr().out.splitlines()[:3]
    assert " ".join(heading.split()) == "epoch loss accuracy val loss val acc. images/s time left"
    for epoch, line in enumerate(lines, start=1):
        percent, number = r"\d+\.\d\d %", r"\d+\.\d{4}"
        row = rf" +{epoch}/2 +{number} +{percent} +{number} +{percent} +[\d,]+ +\d:\d\d:\d\d +\d:\d\d:\d\d"
        assert re.fullmatch(row, line) and len(line) == len(heading) < COLUMNS


def test_the_metric_that_selects_the_best_weights_has_a_column(fit: Fit, capsys: pytest.CaptureFixture[str]) -> None:
    assert fit("--model=linear", "--trainer.enable_progress_bar=true", "--monitor=val/f1") == 0
    heading, line = capsys.readouterr().out.splitlines()[:2]
    assert " ".join(heading.split()) == "epoch loss accuracy val loss val acc. val F1 images/s time left"
    assert len(line) == len(heading) < COLUMNS and re.search(r"\d %  +[01]\.\d{4} ", line)


def test_a_schedule_that_changes_the_momentum_is_said_before_training(
    fit: Fit, capsys: pytest.CaptureFixture[str]
) -> None:
    schedule = ("--lr_scheduler=OneCycleLR", "--lr_scheduler.cycle_momentum=true")
    assert fit("--model=linear", "--trainer.enable_progress_bar=true", *schedule) == 0
    said, heading = capsys.readouterr().out.splitlines()[:2]
    assert said == "OneCycleLR changes the momentum, too (cycle_momentum: true)" and "epoch" in heading


def test_a_line_is_in_the_file_when_its_epoch_has_ended(colours: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Look(Callback):
        """Read in the second epoch what is in the file."""

        def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
            if trainer.current_epoch == 1:
                seen.append(path.read_text())

    seen, path = list[str](), Path("printed.txt")
    words = ["fit", "--model=linear", f"--data.root={colours}", "--trainer.max_epochs=2", "--trainer.accelerator=cpu"]
    with path.open("w") as file, monkeypatch.context() as patch:  # which Python writes block by block
        patch.setattr(sys, "stdout", file)
        lightning(words, callbacks=[Look()])
    assert "1/2" in seen[0].splitlines()[1]


def test_without_bars_nothing_is_shown_between_begin_and_end(fit: Fit, capsys: pytest.CaptureFixture[str]) -> None:
    assert fit("--model=linear") == 0
    assert "epoch" not in capsys.readouterr().out.partition("linear on colours")[0]


def test_an_epoch_that_was_not_validated_shows_no_validation(fit: Fit, capsys: pytest.CaptureFixture[str]) -> None:
    more = ["--trainer.enable_progress_bar=true", "--trainer.max_epochs=3", "--trainer.check_val_every_n_epoch=2"]
    assert fit("--model=linear", *more) == 0
    cells = [line.split()[4:6] for line in capsys.readouterr().out.splitlines()[1:4]]
    assert cells[0] == cells[2] == ["-", "-"] and "-" not in cells[1]


def test_training_without_validation_has_no_columns_for_it(fit: Fit, capsys: pytest.CaptureFixture[str]) -> None:
    assert fit("--model=linear", "--trainer.enable_progress_bar=true", "--data.validation=0") == 0
    assert "val" not in capsys.readouterr().out.splitlines()[0]


def test_with_100_classes_a_line_has_the_top_5_accuracy_and_fits_80_columns(capsys: pytest.CaptureFixture[str]) -> None:
    bar = build(["--model=linear", "--trainer.accelerator=cpu"]).trainer.progress_bar_callback
    assert isinstance(bar, ProgressBar)
    bar._columns = runs.progress.COLUMNS
    bar._pending = ["100/200", "123,456", "10:00:00", "10:00:00"]
    metrics = {name: 2.3026 if name.endswith("loss") else 1.0 for name in bar._columns}
    bar._print_epoch(type("Trainer", (), {"callback_metrics": metrics})())
    assert len(capsys.readouterr().out.rstrip("\n")) < COLUMNS


def test_bars_and_summaries_that_users_bring_take_the_place_of_ours(colours: Path) -> None:
    words = [f"--data.root={colours}", "--trainer.accelerator=cpu"]
    trainer = build(words).trainer
    assert isinstance(trainer.progress_bar_callback, ProgressBar)
    assert [type(each) for each in summaries(trainer)] == [Summary]
    trainer = build([*words, "--trainer.callbacks+=TQDMProgressBar", "--trainer.callbacks+=RichModelSummary"]).trainer
    assert isinstance(trainer.progress_bar_callback, TQDMProgressBar)
    assert [type(each) for each in summaries(trainer)] == [RichModelSummary]
    off = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]
    trainer = build([*words, *off]).trainer
    assert trainer.progress_bar_callback is None and not summaries(trainer)


def summaries(trainer: object) -> list[ModelSummary]:
    return [each for each in vars(trainer)["callbacks"] if isinstance(each, ModelSummary)]


class Clock:
    """A time of `time.monotonic()` that a test sets."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr("cvcc_zoo.printing.progress.time.monotonic", lambda: self.now)


@pytest.mark.parametrize(
    ("start", "done", "total", "until", "left"),
    [
        (0, 25, 100, math.inf, "0:03:00"),  # a minute for 25
        (50, 75, 100, math.inf, "0:01:00"),  # what was done in an earlier start took no time of this one
        (0, 25, 100, 190.0, "0:00:30"),  # a deadline comes first
        (0, 25, math.inf, 190.0, "0:00:30"),
        (0, 25, math.inf, math.inf, ""),
        (0, 0, 100, math.inf, ""),
    ],
)
def test_the_time_left_is_that_of_the_rest_at_the_speed_until_now(
    start: float, done: float, total: float, until: float, left: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)
    display = Display("job", total, start, until=until)
    clock.now += 60
    assert display.left(done) == left


def test_durations_are_hours_minutes_and_seconds() -> None:
    assert [duration(each) for each in (0.4, 59.6, 3723, 360_000)] == ["0:00:00", "0:01:00", "1:02:03", "100:00:00"]


def test_a_long_job_tells_a_file_now_and_then_how_far_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = Clock(monkeypatch)
    for _ in tracked(range(10), "parts", 1000, lambda part: 100):
        clock.now += 4
    assert capsys.readouterr() == ("", "parts: 300 of 1,000, 0:00:28 left\nparts: 600 of 1,000, 0:00:16 left\n"
                                   "parts: 900 of 1,000, 0:00:04 left\n")  # fmt: skip


def test_decoding_and_evaluation_tell_a_file_how_far_they_are(
    make_folder: MakeFolder, fit: Fit, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "EVERY", 0.0)
    monkeypatch.setattr(progress, "PATIENCE", 0.0)
    assert fit("--model=linear", "--run=run", "--trainer.enable_progress_bar=true") == 0
    printed = capsys.readouterr().err
    assert "decoding colours/train: 40 of 40" in printed and "test: batches: 1 of 1" in printed
    assert "training: batches" not in printed  # an epoch is told by its line
    assert main(["publish", "run", "--tag=pets", "--folder=home"]) == 0
    root = make_folder("others")
    assert main(["evaluate", "home/linear.pets.json", "--data.dataset=folder", f"--data.root={root}"]) == 0
    assert "scores of images: 12 of 12" in capsys.readouterr().err
    assert main(["predict", "run", str(root / "test" / "red")]) == 0
    assert "prediction: images: 6 of 6" in capsys.readouterr().err


def test_a_download_is_a_job_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "EVERY", 0.0)
    monkeypatch.setattr(progress, "PATIENCE", 0.0)
    (tmp_path / "there").mkdir()
    source = tmp_path / "there" / "weights.bin"
    source.write_bytes(b"0123456789")
    fetch(source.as_uri(), tmp_path / "here" / "weights.bin", digest(source), 10)
    assert "weights.bin: bytes: 10 of 10" in capsys.readouterr().err


def test_reading_the_images_for_a_whitening_is_a_job_too(
    colours: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "EVERY", 0.0)
    monkeypatch.setattr(progress, "PATIENCE", 0.0)
    ImageDataModule(root=str(colours), whitening={"name": "zca", "eps": 0.1}).fit_whitening()
    assert "whitening: images: 36 of 36" in capsys.readouterr().err


def test_a_trial_that_has_ended_tells_the_time_left_for_all(colours: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--model=linear", f"--data.root={colours}", "--trainer.accelerator=cpu", "--trainer.max_epochs=1"]
    space = "{optimizer.lr: [0.001, 0.01]}"
    assert main(["search", "--folder=search", f"--space={space}", "--method=grid", *options]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if "val/accuracy" in line and "left in all" in line]
    assert len(lines) == 2 and lines[1].endswith(" 0:00:00 left in all")


def test_a_training_of_few_batches_has_rows_of_metrics_and_no_notice_of_it(fit: Fit) -> None:
    assert fit("--model=linear", "--run=run", "--data.batch_size=1", "--trainer.limit_train_batches=2") == 0
    rows = (Path("run") / "metrics.csv").read_text().splitlines()  # a notice is an error here
    place = rows[0].split(",").index("train/batch_loss")
    assert len([row for row in rows[1:] if row.split(",")[place]]) == 2


def test_an_epoch_that_goes_on_in_its_middle_has_the_speed_of_what_was_left(
    colours: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["fit", "--model=linear", f"--data.root={colours}", "--data.batch_size=1", "--trainer.max_epochs=1"]
    words += ["--trainer.accelerator=cpu", "--run=run", "--ckpt_path=last"]
    with pytest.raises(StoppedError):
        lightning(words, callbacks=[AfterAStep(math.inf)])
    capsys.readouterr()
    assert main(words) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if " 1/1 " in line]
    assert int(line.split()[-3].replace(",", "")) > 0
