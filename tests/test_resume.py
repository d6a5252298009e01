"""A training that was interrupted ends as if it had not been."""

import json
import os
import resource
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint

import cvcc_zoo
from cvcc_zoo import load
from cvcc_zoo.__main__ import main
from cvcc_zoo.cli.lightning import main as lightning
from cvcc_zoo.files.own import write_whole
from cvcc_zoo.runs import RunFolder, WholeCheckpoints
from cvcc_zoo.runs.changes import changed_options
from cvcc_zoo.runs.metrics_file import MetricsFile, read_metrics
from cvcc_zoo.runs.run_folder import HEADER
from tests.conftest import QUICK, SMALL

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
    assert content["ImageDataModule"] == {"epoch": 0, "batches": 3, "batch_size": 9}
    content["ImageDataModule"]["batches"] = 2
    torch.save(content, checkpoint)
    wrong, _ = train(colours, seed=2, resumed=checkpoint)
    assert not all(torch.equal(whole[name], tensor) for name, tensor in wrong.items())


@pytest.mark.filterwarnings("ignore:Be aware that when using")  # the callback that saved the checkpoint
def test_a_training_after_the_test_of_a_checkpoint_skips_nothing(colours: Path) -> None:
    _, saved = train(colours, seed=1)
    data = cvcc_zoo.ImageDataModule("folder", root=str(colours), batch_size=9)
    quiet: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = Trainer(max_epochs=1, accelerator="cpu", enable_checkpointing=False, **quiet)
    model = cvcc_zoo.FCNN(hidden=(16,), dropout=0.5, num_classes=2, image_size=8)
    for run in (trainer.test, trainer.validate):
        run(model, data, ckpt_path=saved / "step=1.ckpt", weights_only=True, verbose=False)
        data.setup("fit")
        assert len(list(data.train_dataloader())) == STEPS


def test_a_run_that_was_killed_goes_on_in_its_folder(fit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What differs afterwards is only what the clock says."""
    more = [*SMALL, "--trainer.max_epochs=3", "--data.validation=0", "--trainer.log_every_n_steps=1"]
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


def test_a_run_that_was_killed_before_it_wrote_its_config_starts(fit: Any) -> None:
    Path("run").mkdir()
    Path("run/.lock").touch()
    assert fit("--model=linear", "--run=run", "--ckpt_path=last") == 0
    assert Path("run/summary.json").is_file()


def test_last_without_the_config_of_a_run_is_told(fit: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert fit("--ckpt_path=last") == 2
    assert "resumes the run whose config is given" in capsys.readouterr().err


def test_last_is_the_last_epoch_also_if_it_is_not_the_best(fit: Any) -> None:
    assert fit(*SMALL, "--optimizer=SGD", "--optimizer.lr=0", "--trainer.max_epochs=3", "--run=run") == 0
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
        with pytest.raises(OSError, match=r"last.ckpt cannot be written \(No space left on device\); the previous one"):
            WholeCheckpoints().save_checkpoint({"weights": torch.zeros(3)}, "run/last.ckpt")
    assert Path("run/last.ckpt").read_bytes() == before
    assert not [path for path in Path("run").iterdir() if path.name.startswith(".")]


def test_a_real_limit_of_the_disk_leaves_the_checkpoint_before_it(tmp_path: Path) -> None:
    path, limits = tmp_path / "last.ckpt", resource.getrlimit(resource.RLIMIT_FSIZE)
    (tmp_path / "config.yaml").write_text(HEADER)
    WholeCheckpoints().save_checkpoint({"weights": torch.zeros(3)}, path)
    before = path.read_bytes()
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(OSError, match=r"cannot be written \(File too large\); the previous one is unchanged"):
            WholeCheckpoints().save_checkpoint({"weights": torch.zeros(30_000)}, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before
    found = {file.name for file in tmp_path.iterdir()}
    assert found == {"config.yaml", "last.ckpt", "previous.ckpt"}  # two names of one file


def test_a_users_own_last_checkpoint_leaves_no_previous_one(fit: Any) -> None:
    more = ["--trainer.callbacks+=ModelCheckpoint", "--trainer.callbacks.save_last=true", "--trainer.max_epochs=2"]
    assert fit("--model=linear", *more, "--run=run") == 0
    assert Path("run/checkpoints/last.ckpt").is_file() and not [*Path("run").rglob("previous.ckpt")]


@pytest.mark.parametrize("optimizer", ["SGD", "AdamW", "Muon", "torch.optim.Adagrad"])
def test_a_checkpoint_of_any_number_of_tensors_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, optimizer: str
) -> None:
    """That of ResNet-1202 has more than 10,000, with those of its optimizer."""
    monkeypatch.setattr("cvcc_zoo.files.plain.MOST_OPERATIONS", 0)  # beside those of the tensors
    model: Any = cvcc_zoo.create("resnet20", optimizer={"name": optimizer}, whitening="none")
    rule = model.configure_optimizers()
    model(torch.zeros(2, 3, 32, 32)).sum().backward()
    rule.step()
    saved = {"state_dict": model.state_dict(), "optimizer_states": [rule.state_dict()]}
    WholeCheckpoints().save_checkpoint(saved, tmp_path / "last.ckpt")
    found = WholeCheckpoints().load_checkpoint(tmp_path / "last.ckpt")["state_dict"]
    assert all(torch.equal(tensor, found[name]) for name, tensor in model.state_dict().items())


def test_metrics_that_cannot_be_written_say_where(tmp_path: Path) -> None:
    logger = MetricsFile(tmp_path / "run")
    (tmp_path / "run" / "metrics.csv").mkdir(parents=True)  # in the way
    logger.log_metrics({"train/loss": 1.0}, step=1)
    with pytest.raises(OSError, match=r"run/metrics.csv cannot be written \(Is a directory\)"):
        logger.save()


def test_a_file_of_metrics_goes_on_with_new_columns_and_is_written_at_the_end(tmp_path: Path) -> None:
    file = tmp_path / "metrics.csv"
    file.write_text("step,x\n0,1\n")
    logger = MetricsFile(tmp_path)
    logger.log_metrics({"x": torch.tensor(2.0)}, 1)
    logger.save()
    assert file.read_text().splitlines() == ["step,x", "0,1", "1,2.0"]
    logger.log_metrics({"y": 3.0}, 2)
    logger.finalize("success")
    assert file.read_text().splitlines() == ["step,x,y", "0,1,", "1,2.0,", "2,,3.0"]


class AtTheEnd(Callback):
    """Logs at the end of every epoch, after its last step."""

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        trainer.loggers[0].log_metrics({"mine": trainer.current_epoch}, step=trainer.global_step)


def test_what_a_callback_logs_after_the_last_step_stays_beside_the_numbers_of_a_test_that_is_made_again(
    colours: Path,
) -> None:
    words = ["--model=linear", "--data.dataset=folder", f"--data.root={colours}", "--data.validation=0", *QUICK]
    assert lightning(["fit", *words, "--run=run"], callbacks=[AtTheEnd()]) == 0
    steps = json.loads(Path("run/summary.json").read_text())["steps"]
    Path("run/summary.json").unlink()  # so that the run is tested again
    assert lightning(["fit", "--config=run/config.yaml", "--ckpt_path=last"], callbacks=[AtTheEnd()]) == 0
    curves = read_metrics(Path("run/metrics.csv"))
    assert curves["mine"] == ([steps], [0]) and curves["test/loss"][0] == [steps]


def test_runs_write_their_checkpoints_whole(fit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[Path] = []

    def write(path: Path, data: bytes) -> None:
        written.append(path)
        write_whole(path, data)

    monkeypatch.setattr("cvcc_zoo.runs.checkpoints.write_whole", write)
    assert fit("--model=linear", "--data.validation=0", "--run=run") == 0
    assert {path.name for path in written} == {"last.ckpt"}


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130)])  # SIGTERM: reliability/test_signals.py
def test_a_signal_ends_the_step_and_the_run_goes_on_from_there(
    fit: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], number: signal.Signals, code: int
) -> None:
    more = [*SMALL, "--trainer.max_epochs=2", "--data.batch_size=4"]
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
    assert "`cvcc-zoo fit --config=runs/stopped/config.yaml --ckpt_path=last` resumes it" in printed
    assert main(["fit", "--config=runs/stopped/config.yaml", "--ckpt_path=last"]) == 0
    assert Path("runs/whole/metrics.csv").read_bytes() == Path("runs/stopped/metrics.csv").read_bytes()
    whole, stopped = (load(f"runs/{name}/last.ckpt").state_dict() for name in ("whole", "stopped"))
    assert all(torch.equal(whole[name], stopped[name]) for name in whole)


def test_a_finished_run_that_is_trained_further_has_no_summary_until_that_has_ended(
    fit: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fit("--model=linear", "--data.batch_size=4", "--run=run") == 0
    steps = json.loads(Path("run/summary.json").read_text())["steps"]
    count = RunFolder.on_train_batch_end

    def interrupted(run: RunFolder, trainer: Trainer, *args: Any) -> None:
        count(run, trainer, *args)
        if trainer.global_step == steps + 2:
            os.kill(os.getpid(), signal.SIGTERM)

    goes_on = ["fit", "--config=run/config.yaml", "--ckpt_path=last"]
    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "on_train_batch_end", interrupted)
        assert main([*goes_on, "--trainer.max_epochs=2", "--allow_changes=true"]) == 143
    capsys.readouterr()
    assert main(["publish", "run", "--folder=weights"]) == 2
    assert "run is not the folder of a finished run: it has no summary.json" in capsys.readouterr().err
    assert main(goes_on) == 0
    assert json.loads(Path("run/summary.json").read_text())["steps"] == 2 * steps


def test_a_plateau_schedule_steps_at_the_end_of_an_epoch_that_was_gone_on_with(
    fit: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = [*SMALL, "--trainer.max_epochs=2", "--data.batch_size=4", "--optimizer=SGD", "--optimizer.lr=0"]
    more += ["--lr_scheduler=ReduceLROnPlateau", "--lr_scheduler.monitor=val/loss", "--lr_scheduler.patience=0"]
    assert fit(*more, "--run=runs/whole") == 0
    count = RunFolder.on_train_batch_end

    def interrupted(run: RunFolder, trainer: Trainer, *args: Any) -> None:
        count(run, trainer, *args)
        if trainer.global_step == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "on_train_batch_end", interrupted)
        assert fit(*more, "--run=runs/stopped") == 143
    assert main(["fit", "--config=runs/stopped/config.yaml", "--ckpt_path=last"]) == 0
    states = [torch.load(f"runs/{name}/last.ckpt", weights_only=True)["lr_schedulers"] for name in ("whole", "stopped")]
    assert states[0] == states[1] and states[0][0]["last_epoch"] == 2


def test_a_training_that_goes_on_elsewhere_takes_its_best_checkpoint_along(
    fit: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ["--model=linear", "--optimizer.lr=0", "--lr_scheduler=null"]  # so that no later epoch is better
    assert fit(*more, "--run=old") == 0
    longer = [*more, "--trainer.max_epochs=3", "--allow_changes=true"]
    assert fit(*longer, "--run=new", "--ckpt_path=old/last.ckpt") == 0
    assert Path("new/best.ckpt").read_bytes() == Path("old/best.ckpt").read_bytes()
    old, new = (json.loads(Path(f"{run}/summary.json").read_text()) for run in ("old", "new"))
    assert new["epochs"] == 3 and new["tested"] == "best.ckpt" and new["val_accuracy"] == old["val_accuracy"]
    capsys.readouterr()
    assert fit(*more, "--run=none", "--ckpt_path=old/last.ckpt") == 2
    assert "the run of old/last.ckpt has finished training; train it further" in capsys.readouterr().err
    assert not Path("none").exists()


def test_the_best_weights_by_other_validation_images_are_compared_no_more(
    fit: Any, caplog: pytest.LogCaptureFixture
) -> None:
    more = ["--model=linear", "--optimizer.lr=0", "--lr_scheduler=null", "--test=false"]  # so that no epoch is better
    assert fit(*more, "--data.validation=0.5", "--run=run") == 0
    go_on = ["fit", "--config=run/config.yaml", "--ckpt_path=last", "--data.split_seed=5", "--allow_changes=true"]
    for epochs in (1, 2):
        assert main([*go_on, f"--trainer.max_epochs={epochs}"]) == 0
        assert torch.load("run/best.ckpt", weights_only=True)["epoch"] == epochs - 1
    assert "run/best.ckpt is removed: other validation images chose it; another is chosen" in caplog.text


@pytest.mark.parametrize("further", ["--trainer.max_steps=-1", "--trainer.max_steps=99"])
def test_after_an_epoch_that_was_cut_off_the_next_one_is_whole(fit: Any, further: str) -> None:
    more = [*SMALL, "--data.batch_size=4", "--optimizer=SGD", "--optimizer.lr=1", "--lr_scheduler=Linear"]
    more += ["--trainer.max_epochs=2", "--trainer.log_every_n_steps=1", "--test=false"]
    assert fit(*more, "--trainer.max_steps=2", "--run=run") == 0
    assert main(["fit", "--config=run/config.yaml", "--ckpt_path=last", further, "--allow_changes=true"]) == 0
    (_, rates), (validated, _) = (read_metrics(Path("run/metrics.csv"))[name] for name in ("lr-SGD", "val/loss"))
    steps = 2 + 9  # the second epoch has nine batches
    assert len(rates) == steps and rates[-1] == pytest.approx(1 / steps) and validated[-1] == steps - 1


def test_a_finished_run_names_the_limits_of_its_length(fit: Any, capsys: pytest.CaptureFixture[str]) -> None:
    limits = ["--trainer.max_epochs=-1", "--trainer.max_steps=2", "--trainer.max_time=00:01:00:00"]
    assert fit("--model=linear", *limits, "--run=run") == 0
    assert main(["fit", "--config=run/config.yaml", "--ckpt_path=last"]) == 0
    further = "--trainer.max_steps=... --trainer.max_time=... --allow_changes=true"
    assert f"to train it further: {further}" in " ".join(capsys.readouterr().out.split())
    assert fit("--model=linear", *limits, "--run=new", "--ckpt_path=run/last.ckpt") == 2
    assert f"train it further ({further})" in capsys.readouterr().err


@pytest.mark.parametrize("epochs", [1, 2])
def test_a_run_that_goes_on_without_validation_has_the_weights_of_its_last_step(
    fit: Any, caplog: pytest.LogCaptureFixture, epochs: int
) -> None:
    assert fit("--model=linear", "--run=run") == 0
    assert Path("run/best.ckpt").is_file()
    longer = [f"--trainer.max_epochs={epochs}", "--data.validation=0", "--allow_changes=true"]
    assert main(["fit", "--config=run/config.yaml", "--ckpt_path=last", *longer]) == 0
    assert "run/best.ckpt is removed: without validation" in caplog.text
    summary = json.loads(Path("run/summary.json").read_text())
    assert summary["tested"] == "the weights of the last step" and summary["epochs"] == epochs
    assert not Path("run/best.ckpt").exists()


def test_a_run_does_not_go_on_without_checkpoints_beside_those_from_before(
    fit: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fit("--model=linear", "--run=run") == 0
    before = {path: path.read_bytes() for path in Path("run").iterdir()}
    more = ["--trainer.max_epochs=2", "--trainer.enable_checkpointing=false", "--allow_changes=true"]
    assert main(["fit", "--config=run/config.yaml", "--ckpt_path=last", *more]) == 2
    assert "leave out --trainer.enable_checkpointing=false, or resume in another folder" in capsys.readouterr().err
    assert before == {path: path.read_bytes() for path in Path("run").iterdir()}
    assert fit("--model=linear", "--run=new", "--ckpt_path=run/last.ckpt", *more) == 0
    assert not list(Path("new").glob("*.ckpt"))


def test_a_run_that_starts_again_keeps_no_best_checkpoint_from_before(
    fit: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert fit("--model=linear", "--run=run") == 0
    Path("run/last.ckpt").unlink()

    def killed(*args: Any) -> None:
        raise RuntimeError("killed")

    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="killed"):
        patch.setattr(RunFolder, "on_train_batch_end", killed)
        fit("--model=linear", "--run=run", "--ckpt_path=last")
    assert Path("run/last.ckpt").is_file() and not Path("run/best.ckpt").exists()


def test_a_lost_best_checkpoint_is_told_before_the_training_goes_on(
    fit: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fit("--model=linear", "--run=old") == 0
    Path("old/best.ckpt").unlink()
    longer = ["--model=linear", "--trainer.max_epochs=2", "--trainer.limit_test_batches=1"]
    for run in ("new", "old"):
        checkpoint = "last" if run == "old" else "old/last.ckpt"
        before = sorted(Path("old").iterdir())
        capsys.readouterr()
        assert fit("--model=linear", f"--run={run}", f"--ckpt_path={checkpoint}") == 2
        printed = capsys.readouterr().err
        assert "whose best weights so far were in best.ckpt, but there is no such file beside it" in printed
        assert sorted(Path("old").iterdir()) == before and not Path("new").exists()
    assert fit(*longer, "--run=new", "--ckpt_path=old/last.ckpt", "--allow_changes=true") == 0
    assert json.loads(Path("new/summary.json").read_text())["tested"] == "best.ckpt"


def test_a_run_that_was_started_before_a_model_had_all_options_goes_on(fit: Any) -> None:
    later = ("norm", "activation", "pool", "init")
    options = ["--model=ResNet", "--model.depth=8", "--data.image_size=8"]
    assert fit(*options) == 0
    folder = Path("runs/resnet-colours")
    config, last = folder / "config.yaml", folder / "last.ckpt"
    now = config.read_text()
    before = "\n".join(line for line in now.splitlines() if line.strip().split(":")[0] not in later)
    assert len(before.splitlines()) == len(now.splitlines()) - len(later) and not changed_options(before, now)
    config.write_text(before)
    content = torch.load(last, weights_only=True)
    content["hyper_parameters"] = {k: v for k, v in content["hyper_parameters"].items() if k not in later}
    content["callbacks"]["RunFolder"]["config"] = before
    torch.save(content, last)
    assert load(last).hparams["norm"] == "batch"
    more = [f"--config={config}", "--ckpt_path=last", "--trainer.max_epochs=2", "--allow_changes=true"]
    assert main(["fit", *more, "--trainer.enable_progress_bar=false", "--trainer.accelerator=cpu"]) == 0
    assert main(["test", f"--run={folder}", "--trainer.enable_progress_bar=false", "--trainer.accelerator=cpu"]) == 0
