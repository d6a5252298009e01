"""A training that was interrupted ends as if it had not been."""

import io
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint

import cvcc_zoo
from cvcc_zoo import load
from cvcc_zoo.__main__ import main
from cvcc_zoo.data.resolution import Resolutions
from cvcc_zoo.runs import RunFolder, WholeCheckpoints
from cvcc_zoo.runs.metrics_file import read_rows

STEPS = 4  # in an epoch


def train(colours: Path, seed: int, resumed: Path | None = None) -> tuple[dict[str, torch.Tensor], Path]:
    """Two epochs of a network with dropout, batch norm and augmentation, from a checkpoint or from the start.

    Returns the last weights, and the folder with a checkpoint of every step.
    """
    saved = colours.parent / "saved"
    seed_everything(1)
    data = cvcc_zoo.ImageDataModule("folder", root=str(colours), batch_size=9)
    options: dict[str, Any] = {"num_classes": 2, "image_size": 8, "lr_scheduler": "OneCycle"}
    model = cvcc_zoo.FCNN(hidden=(16,), dropout=0.5, **options)
    seed_everything(seed)
    trainer = Trainer(
        max_epochs=2, accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        callbacks=ModelCheckpoint(saved, "{step}", every_n_train_steps=1, save_top_k=-1, enable_version_counter=False),
        use_distributed_sampler=False,
    )  # fmt: skip
    trainer.fit(model, data, ckpt_path=resumed, weights_only=True)
    return model.state_dict(), saved


@pytest.mark.filterwarnings("ignore:Checkpoint directory")  # the resumed training saves beside the first
@pytest.mark.parametrize("step", [1, 3, STEPS, 6])
def test_a_resumed_training_ends_with_the_same_bits(colours: Path, step: int) -> None:
    whole, saved = train(colours, seed=1)
    checkpoint = (saved / f"step={step}.ckpt").rename(colours.parent / "killed.ckpt")
    resumed, _ = train(colours, seed=2, resumed=checkpoint)
    assert all(torch.equal(whole[name], tensor) for name, tensor in resumed.items())


@pytest.mark.filterwarnings("ignore:Checkpoint directory")
def test_a_resumed_training_goes_on_with_the_next_images(colours: Path) -> None:
    whole, saved = train(colours, seed=1)
    checkpoint = (saved / "step=3.ckpt").rename(colours.parent / "killed.ckpt")
    content = torch.load(checkpoint, weights_only=True)
    assert content["ImageDataModule"] == {"epoch": 0, "batches": 3}
    content["ImageDataModule"]["batches"] = 2
    torch.save(content, checkpoint)
    wrong, _ = train(colours, seed=2, resumed=checkpoint)
    assert not all(torch.equal(whole[name], tensor) for name, tensor in wrong.items())


def test_sizes_grow_with_the_epochs() -> None:
    resolutions = Resolutions({24: 0.3, 16: 0.5}, 32)
    assert [resolutions.size(epoch, 10) for epoch in range(10)] == [16] * 5 + [24] * 3 + [32] * 2
    images = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
    assert resolutions.resize(images, 0, 10).shape == (2, 3, 16, 16)
    assert resolutions.resize(images, 9, 10).shape == (2, 3, 32, 32)


@pytest.mark.parametrize(
    ("shares", "words"),
    [
        ({32: 0.5}, "sizes of 8 to 31"),
        ({4: 0.5}, "sizes of 8 to 31"),
        ({16: 0.5, 24: 0.5}, "leave epochs for the full size"),
        ({16: 0.0}, "shares of the epochs in"),
    ],
)
def test_wrong_resolutions_are_told(shares: dict[int, float], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Resolutions(shares, 32)


def test_a_training_on_growing_images_runs(fit: Any, colours: Path) -> None:
    more = ["--data.image_size=16", "--data.progressive_resizing={8: 0.5}", "--trainer.max_epochs=2"]
    assert fit("--model=resnet20", *more) == 0


def test_a_network_of_one_size_refuses_growing_images_before_the_training(
    fit: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fit("--model=linear", "--data.image_size=16", "--data.progressive_resizing={8: 0.5}") == 2
    printed = capsys.readouterr().err
    assert "progressive_resizing needs a network that takes images of any size" in printed
    assert not list(Path("runs").iterdir())


def test_a_run_that_was_killed_goes_on_in_its_folder(fit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What differs afterwards is only what the clock says."""
    more = ["--model=fcnn", "--trainer.max_epochs=3", "--data.validation=0", "--trainer.log_every_n_steps=1"]
    assert fit(*more, "--run=runs/whole") == 0

    def killed_here(run: RunFolder, trainer: Trainer, *args: Any) -> None:
        if (trainer.current_epoch, trainer.fit_loop.batch_idx) == (1, 1):
            raise RuntimeError("killed")
        run.images += 16

    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="killed"):
        patch.setattr(RunFolder, "on_train_batch_end", killed_here)
        fit(*more, "--run=runs/killed")
    assert not Path("runs/killed/summary.json").exists()
    more = ["--trainer.enable_progress_bar=false"]
    assert main(["fit", "--config=runs/killed/config.yaml", "--ckpt_path=last", *more]) == 0
    whole, killed = (load(f"runs/{name}").state_dict() for name in ("whole", "killed"))
    assert all(torch.equal(whole[name], killed[name]) for name in whole)
    assert Path("runs/whole/metrics.csv").read_text() == Path("runs/killed/metrics.csv").read_text()
    summaries = [json.loads(Path(f"runs/{name}/summary.json").read_text()) for name in ("whole", "killed")]
    clock = ("train_seconds", "images_per_second", "finished")
    assert all(summaries[0][key] == summaries[1][key] for key in summaries[0] if key not in clock)


def test_last_without_the_config_of_a_run_is_told(fit: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert fit("--ckpt_path=last") == 2
    assert "goes on with the run whose config is given" in capsys.readouterr().err


def test_last_is_the_last_epoch_also_if_it_is_not_the_best(fit: Any) -> None:
    assert fit("--model=fcnn", "--optimizer=SGD", "--optimizer.lr=0", "--trainer.max_epochs=3", "--run=run") == 0
    steps = {name: torch.load(f"run/{name}.ckpt", weights_only=True)["global_step"] for name in ("best", "last")}
    assert steps["last"] == 3 * steps["best"] > 0


def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before_it(
    fit: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fit("--model=linear", "--run=run") == 0
    before = Path("run/last.ckpt").read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match=r"last.ckpt cannot be written \(No space left on device\); the one before"):
            WholeCheckpoints().save_checkpoint({"weights": torch.zeros(3)}, "run/last.ckpt")
    assert Path("run/last.ckpt").read_bytes() == before
    assert not [path for path in Path("run").iterdir() if path.name.startswith(".")]


def test_runs_write_their_checkpoints_whole(fit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[Path] = []
    monkeypatch.setattr("cvcc_zoo.runs.checkpoints.write_whole", lambda path, data: written.append(path))
    assert fit("--model=linear", "--data.validation=0", "--run=run") == 0
    assert {path.name for path in written} == {"last.ckpt"}


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_step_and_the_run_goes_on_from_there(
    fit: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], number: signal.Signals, code: int
) -> None:
    more = ["--model=fcnn", "--trainer.max_epochs=2", "--data.batch_size=4"]
    assert fit(*more, "--run=runs/whole") == 0
    count = RunFolder.on_train_batch_end

    def interrupted(run: RunFolder, trainer: Trainer, *args: Any) -> None:
        count(run, trainer, *args)
        if trainer.global_step == 3:
            os.kill(os.getpid(), number)

    before = signal.getsignal(number)
    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "on_train_batch_end", interrupted)
        assert fit(*more, "--run=runs/stopped") == code
    assert signal.getsignal(number) is before
    printed = capsys.readouterr().err
    assert f"{number.name}: stopped after 3 steps" in printed
    assert "`cvcc-zoo fit --config=runs/stopped/config.yaml --ckpt_path=last` goes on" in printed
    assert main(["fit", "--config=runs/stopped/config.yaml", "--ckpt_path=last"]) == 0
    assert Path("runs/whole/metrics.csv").read_bytes() == Path("runs/stopped/metrics.csv").read_bytes()
    whole, stopped = (load(f"runs/{name}/last.ckpt").state_dict() for name in ("whole", "stopped"))
    assert all(torch.equal(whole[name], stopped[name]) for name in whole)


def test_changed_options_are_named_and_refused_unless_told(fit: Any, capsys: pytest.CaptureFixture[str]) -> None:
    more = ["--model=fcnn", "--optimizer=SGD", "--optimizer.lr=0.1", "--lr_scheduler=null", "--trainer.max_epochs=2"]
    assert fit(*more, "--run=run") == 0
    go_on = ["fit", "--config=run/config.yaml", "--ckpt_path=last", "--trainer.enable_progress_bar=true"]
    changed = [*go_on, "--optimizer.lr=0.01", "--trainer.max_epochs=4"]
    assert main(changed) == 2
    printed = capsys.readouterr().err
    assert (
        "trainer.max_epochs was 2 and is 4, optimizer.lr was 0.1 and is 0.01" in printed
        and "--allow_changes" in printed
    )
    assert main([*changed, "--allow_changes=true"]) == 0
    content = torch.load("run/last.ckpt", weights_only=True)
    assert content["optimizer_states"][0]["param_groups"][0]["lr"] == 0.01
    rows = Path("run/metrics.csv").read_text().splitlines()
    assert any(",0.1," in row for row in rows) and any(",0.01," in row for row in rows)  # the learning rate
    assert main(go_on) == 0  # what was changed is what is now
    capsys.readouterr()
    assert main([*go_on, "--optimizer=AdamW", "--allow_changes=true"]) == 2
    assert "the state of one optimizer is of no use to another" in capsys.readouterr().err


def test_a_changed_length_stretches_the_schedule(fit: Any) -> None:
    """The new schedule holds from the place that the training has come to."""
    more = ["--model=fcnn", "--optimizer=SGD", "--optimizer.lr=1", "--lr_scheduler=Linear", "--trainer.max_epochs=2"]
    assert fit(*more, "--run=run", "--trainer.log_every_n_steps=1") == 0
    go_on = ["fit", "--config=run/config.yaml", "--ckpt_path=last", "--trainer.max_epochs=4", "--allow_changes=true"]
    assert main(go_on) == 0
    assert fit(*more, "--run=long", "--trainer.log_every_n_steps=1", "--trainer.max_epochs=4") == 0
    lines = [Path(f"{run}/metrics.csv").read_text().splitlines() for run in ("run", "long")]
    column = lines[0][0].split(",").index("lr-SGD")
    rates = [[float(row.split(",")[column]) for row in rows[1:] if row.split(",")[column]] for rows in lines]
    half = len(rates[0]) // 2
    assert rates[0][half:] == pytest.approx(rates[1][half:]) and rates[0][1:half] != pytest.approx(rates[1][1:half])


def test_an_edited_config_is_seen(fit: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert fit("--model=fcnn", "--run=run") == 0
    config = Path("run/config.yaml")
    config.write_text(config.read_text().replace("seed_everything: 0", "seed_everything: 1"))
    assert main(["fit", "--config=run/config.yaml", "--ckpt_path=last"]) == 2
    assert "seed_everything was 0 and is 1" in capsys.readouterr().err


def test_one_command_starts_a_run_and_goes_on_with_it(fit: Any) -> None:
    """What torchrun and a queue do: the same command again."""
    command = ["--model=fcnn", "--trainer.max_epochs=2", "--run=run", "--ckpt_path=last"]
    assert fit(*command) == 0
    before = Path("run/last.ckpt").read_bytes()
    assert fit(*command) == 0
    contents = [
        torch.load(io.BytesIO(data), weights_only=True) for data in (before, Path("run/last.ckpt").read_bytes())
    ]
    assert contents[0]["global_step"] == contents[1]["global_step"] > 0


def test_a_run_killed_before_its_first_checkpoint_starts_again(fit: Any) -> None:
    assert fit("--model=fcnn", "--run=run") == 0
    before = Path("run/metrics.csv").read_bytes()
    for path in Path("run").iterdir():
        if path.name != "config.yaml":
            path.unlink()
    assert main(["fit", "--config=run/config.yaml", "--ckpt_path=last"]) == 0
    assert Path("run/metrics.csv").read_bytes() == before


def test_a_folder_of_other_files_is_no_run(fit: Any, capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine").mkdir()
    Path("mine/notes.txt").write_text("dear diary")
    assert fit("--run=mine", "--ckpt_path=last") == 2
    assert "mine is not a run folder: it has no config.yaml, but other files" in capsys.readouterr().err
    assert [path.name for path in Path("mine").iterdir()] == ["notes.txt"]


def test_two_processes_cannot_train_in_one_folder(fit: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert fit("--model=fcnn", "--run=run") == 0
    other = RunFolder(Path("run"), "", resumed=True)
    other.begin()
    assert main(["fit", "--config=run/config.yaml", "--ckpt_path=last"]) == 2
    assert "another process is training in run" in capsys.readouterr().err
    other.end()
    assert Path("run/last.ckpt").is_file() and not Path("run/.lock").exists()


def test_a_run_goes_on_in_a_folder_that_was_moved(fit: Any) -> None:
    more = ["--model=fcnn", "--optimizer=SGD", "--optimizer.lr=0", "--run=old/run"]
    assert fit(*more) == 0
    Path("old").rename("new")
    assert main(["fit", "--config=new/run/config.yaml", "--ckpt_path=last"]) == 0
    assert not Path("old").exists() and json.loads(Path("new/run/summary.json").read_text())["tested"] == "best.ckpt"


def test_what_a_kill_left_of_a_checkpoint_is_removed(fit: Any) -> None:
    assert fit("--model=fcnn", "--run=run") == 0
    Path("run/.last.ckpt-123").write_bytes(b"half")
    more = ["--trainer.max_epochs=2", "--allow_changes=true"]
    assert main(["fit", "--config=run/config.yaml", "--ckpt_path=last", *more]) == 0
    assert not Path("run/.last.ckpt-123").exists()


def test_a_row_of_metrics_that_a_kill_cut_off_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    path.write_bytes(b"epoch,step,train/loss\r\n0,1,0.5\r\n0,2")
    assert read_rows(path) == (["epoch", "step", "train/loss"], [{"epoch": "0", "step": "1", "train/loss": "0.5"}])


@pytest.mark.parametrize("minutes", ["0", "-1"])
def test_a_wrong_time_between_checkpoints_is_told(fit: Any, capsys: pytest.CaptureFixture[str], minutes: str) -> None:
    assert fit(f"--checkpoint_minutes={minutes}") == 2
    assert "checkpoint_minutes is a time above 0" in capsys.readouterr().err
