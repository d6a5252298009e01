"""Ctrl-C, SIGTERM and SIGHUP end a training with 130, 143 and 129 at every moment, and it goes on to the same end."""

import os
import pty
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from lightning import LightningModule
from lightning.fabric.strategies.launchers.subprocess_script import _ChildProcessObserver
from lightning.pytorch.callbacks import ModelCheckpoint

from cvcc_zoo import ImageDataModule
from cvcc_zoo.__main__ import main
from cvcc_zoo.classifier import ImageClassifier
from cvcc_zoo.files.signals import forget_lost_terminal
from cvcc_zoo.runs import StopAtSignal, StoppedError, callback, figures, stopped_by_signals
from tests.conftest import write_images
from tests.reliability.test_kill import QUIET, differences, everything

MOMENTS: dict[str, tuple[Any, str, int]] = {  # a function and the call of it, from 1, in which the signal comes
    "while the images are read": (ImageDataModule, "setup", 1),
    "in the sanity check": (ImageClassifier, "validation_step", 1),
    "in a step": (ImageClassifier, "training_step", 2),
    "in the last step": (ImageClassifier, "training_step", 8),
    "in the last validation": (ImageClassifier, "validation_step", 3),
    "while the best weights are saved": (ModelCheckpoint, "_save_checkpoint", 1),
    "while the curves are drawn": (figures, "plot_curves", 1),
    "in the test": (ImageClassifier, "test_step", 1),
    "while the confusion matrix is drawn": (figures, "plot_confusion", 1),
    "before the summary is written": (callback, "json_text", 1),
    "after the summary was written": (callback, "write_whole", -3),
}
ARGUMENTS = ["--model=fcnn", "--model.hidden=[8]", "--trainer.max_epochs=2", "--data.batch_size=9"]


CASES = [
    *((moment, signal.SIGTERM) for moment in MOMENTS),
    ("in the test", signal.SIGINT),
    ("in a step", signal.SIGHUP),
]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], Path]:
    """The arguments of a training with 4 steps an epoch and one batch of validation images, and a run that ended."""
    place = tmp_path_factory.mktemp("whole")
    for seed, colour in enumerate(("blue", "red")):
        write_images(place / "colours" / "train" / colour, 20, seed=seed)
        write_images(place / "colours" / "test" / colour, 6, seed=seed + 10)
    arguments = ["fit", *ARGUMENTS, "--data.dataset=folder", f"--data.root={place / 'colours'}", "--run=run", *QUIET]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        assert main(arguments) == 0
    return arguments, place / "run"


def interrupt(patch: pytest.MonkeyPatch, moment: str, number: signal.Signals) -> None:
    """Send the signal to this process in that moment."""
    owner, name, call = MOMENTS[moment]
    own, calls = getattr(owner, name), []

    def interrupted(*args: Any, **options: Any) -> Any:
        calls.append(name)
        if len(calls) == call:
            os.kill(os.getpid(), number)
        result = own(*args, **options)
        if len(calls) == -call:
            os.kill(os.getpid(), number)
        return result

    patch.setattr(owner, name, interrupted)


@pytest.mark.usefixtures("without_nohup")
@pytest.mark.parametrize(("moment", "number"), CASES)
def test_a_signal_ends_a_run_at_any_moment_and_it_goes_on_to_the_same_end(
    moment: str,
    number: signal.Signals,
    whole: tuple[list[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments, expected = whole
    monkeypatch.chdir(tmp_path)
    before = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    with monkeypatch.context() as patch:
        interrupt(patch, moment, number)
        assert main(arguments) == 128 + number
    assert {each: signal.getsignal(each) for each in before} == before
    said = capsys.readouterr().err
    assert f"cvcc-zoo: {number.name}" in said and "Traceback" not in said
    if Path("run").exists():
        assert "`cvcc-zoo fit --config=run/config.yaml --ckpt_path=last` resumes it" in said
        assert main(["fit", "--config=run/config.yaml", "--ckpt_path=last"]) == 0
    else:
        assert "nothing of it was saved" in said or moment == "while the images are read"
        assert main(arguments) == 0
    assert not differences(everything(expected), everything(Path("run")))


@pytest.mark.usefixtures("without_nohup")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_no_library_takes_a_signal_for_an_error_of_its_own(number: signal.Signals) -> None:
    taken = []
    with pytest.raises(StoppedError) as stop, stopped_by_signals():
        try:  # as the parser of the options tries one type after the other
            os.kill(os.getpid(), number)
        except Exception as error:
            taken.append(error)
    assert not taken and stop.value.code == 128 + number


@pytest.mark.usefixtures("without_nohup")
def test_what_nohup_starts_outlives_the_connection() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with stopped_by_signals():
        os.kill(os.getpid(), signal.SIGHUP)


def test_what_is_printed_to_a_lost_terminal_is_discarded() -> None:
    own, (master, terminal) = os.dup(2), pty.openpty()
    os.dup2(terminal, 2)
    os.close(master)
    try:
        with pytest.raises(OSError, match="Input/output error"):
            os.write(2, b"lost")
        forget_lost_terminal()
        assert os.write(2, b"discarded") == 9
    finally:
        os.dup2(own, 2)
        os.close(own)
        os.close(terminal)


@pytest.mark.parametrize("error", [StoppedError("SIGTERM", 143), ValueError("broken")])
def test_after_a_stop_a_process_outlives_those_that_it_has_started(
    monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    """They end with the same code as this one; Lightning kills all processes for any code but 0."""
    kills: list[bool] = []
    monkeypatch.setattr(_ChildProcessObserver, "_terminate_all", lambda observer: kills.append(True))
    ended: Any = SimpleNamespace(poll=lambda: None, returncode=143, pid=0)
    launcher = SimpleNamespace(procs=[ended])
    observer = _ChildProcessObserver(os.getpid(), launcher.procs)
    trainer: Any = SimpleNamespace(strategy=SimpleNamespace(launcher=launcher))
    StopAtSignal().on_exception(trainer, LightningModule(), error)
    assert observer._run() and bool(kills) == isinstance(error, ValueError)
    alone: Any = SimpleNamespace(strategy=SimpleNamespace(launcher=None))
    StopAtSignal().on_exception(alone, LightningModule(), error)


def test_all_processes_end_with_the_number_of_the_signal_that_one_received() -> None:
    strategy = SimpleNamespace(
        root_device="cpu", reduce_boolean_decision=lambda own, all: True, reduce=lambda own, reduce_op: max(own, 143)
    )
    trainer: Any = SimpleNamespace(strategy=strategy, global_step=3, checkpoint_callbacks=[])
    with pytest.raises(StoppedError, match="another process stopped: stopped after 3 steps") as before_a_step:
        StopAtSignal().on_train_batch_start(trainer, LightningModule(), None, 0)
    with pytest.raises(StoppedError, match=r"another process stopped: .*, the last one") as at_the_end:
        StopAtSignal().on_fit_end(trainer, LightningModule())
    assert before_a_step.value.code == at_the_end.value.code == 143
