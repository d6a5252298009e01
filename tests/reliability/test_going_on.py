"""Where and with which options a run goes on."""

import importlib
import io
import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning import Trainer
from lightning.pytorch.accelerators import CPUAccelerator, CUDAAccelerator, MPSAccelerator

from cvcc_zoo import create
from cvcc_zoo.__main__ import main
from cvcc_zoo.internals.lightning import batches_begun
from cvcc_zoo.optim import make_lr_scheduler
from cvcc_zoo.runs import RunFolder
from cvcc_zoo.runs.changes import changed_options, check_unchanged
from cvcc_zoo.runs.metrics_file import read_metrics, read_rows
from cvcc_zoo.runs.progress import ProgressBar
from cvcc_zoo.runs.summary import commit, conditions, processor, same_bits, trained_on
from tests.conftest import SMALL


def test_changed_options_are_named_and_refused_unless_told(fit: Any, capsys: pytest.CaptureFixture[str]) -> None:
    more = [*SMALL, "--optimizer=SGD", "--optimizer.lr=0.1", "--lr_scheduler=null", "--trainer.max_epochs=2"]
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
    assert "an optimizer cannot use the state of another one" in capsys.readouterr().err


def test_a_run_that_is_only_tested_with_other_options_was_trained_with_its_own(fit: Any) -> None:
    assert fit("--model=linear", "--test=false", "--run=run") == 0
    go_on = ["fit", "--config=run/config.yaml", "--ckpt_path=last", "--allow_changes=true", "--trainer.devices=1"]
    summary = Path("run/summary.json")
    assert main([*go_on, "--test=true"]) == 0
    assert json.loads(summary.read_text())["changed"] == ""
    assert main([*go_on, "--trainer.max_epochs=2"]) == 0
    trained = "trainer.devices was 'auto' and is '1', trainer.max_epochs was 1 and is 2"
    assert sorted(json.loads(summary.read_text())["changed"].split(", ")) == trained.split(", ")


def test_a_state_of_another_rank_is_refused() -> None:
    before, now = (f"optimizer: {{name: LowRankAdam, rank: {rank}}}" for rank in (4, 2))
    with pytest.raises(ValueError, match=r"rank was 4 and is 2: an optimizer cannot use the state of .* another rank"):
        check_unchanged(before, now, allowed=True)


def test_a_changed_length_stretches_the_schedule(fit: Any) -> None:
    """The new schedule holds from the place that the training has come to."""
    more = [*SMALL, "--optimizer=SGD", "--optimizer.lr=1", "--lr_scheduler=Linear", "--trainer.max_epochs=2"]
    assert fit(*more, "--run=run", "--trainer.log_every_n_steps=1") == 0
    go_on = ["fit", "--config=run/config.yaml", "--ckpt_path=last", "--trainer.max_epochs=4", "--allow_changes=true"]
    assert main(go_on) == 0
    assert fit(*more, "--run=long", "--trainer.log_every_n_steps=1", "--trainer.max_epochs=4") == 0
    lines = [Path(f"{run}/metrics.csv").read_text().splitlines() for run in ("run", "long")]
    column = lines[0][0].split(",").index("lr-SGD")
    rates = [[float(row.split(",")[column]) for row in rows[1:] if row.split(",")[column]] for rows in lines]
    half = len(rates[0]) // 2
    assert rates[0][half:] == pytest.approx(rates[1][half:]) and rates[0][1:half] != pytest.approx(rates[1][1:half])


@pytest.mark.parametrize("before", ["OneCycleLR", "Cosine", "ReduceLROnPlateau", "null"])
@pytest.mark.parametrize(
    "schedule",
    [
        {"name": "Cosine"},
        {"name": "CyclicLR", "base_lr": 0.1, "max_lr": 1.0},
        {"name": "OneCycleLR"},
        {"name": "ReduceLROnPlateau"},
    ],
)
def test_another_schedule_holds_from_the_step_that_the_training_has_come_to(
    fit: Any, before: str, schedule: dict[str, Any]
) -> None:
    more = ["--model=linear", "--optimizer=SGD", "--optimizer.lr=1", "--trainer.log_every_n_steps=1", "--test=false"]
    assert fit(*more, f"--lr_scheduler={before}", "--run=run") == 0
    after = ["--trainer.max_epochs=2", f"--lr_scheduler={json.dumps(schedule)}", "--allow_changes=true"]
    assert main(["fit", "--config=run/config.yaml", "--ckpt_path=last", *after]) == 0
    rates = dict(zip(*read_metrics(Path("run/metrics.csv"))["lr-SGD"], strict=True))
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1)
    steps = len(rates)
    made = make_lr_scheduler(schedule, optimizer, steps, 2)["scheduler"]
    for step in range(steps):
        if step >= steps // 2:
            assert rates[step] == pytest.approx(optimizer.param_groups[0]["lr"])
        optimizer.step()
        made.step(*([0.0] if schedule["name"] == "ReduceLROnPlateau" else []))


def killed(at: tuple[int, int]) -> Any:
    """RunFolder's hook at the end of a batch, which fails in this batch of this epoch."""
    count = RunFolder.on_train_batch_end

    def on_train_batch_end(run: RunFolder, trainer: Any, *args: Any) -> None:
        if (trainer.current_epoch, trainer.fit_loop.batch_idx) == at:
            raise RuntimeError("killed")
        count(run, trainer, *args)

    return on_train_batch_end


@pytest.mark.parametrize(
    ("schedule", "change", "steps"),
    [
        ("OneCycleLR", "--data.batch_size=8", 14 + 3 + 2 * 5),
        ("Linear", "--data.batch_size=2", 14 + 12 + 2 * 20),
        ("Linear", "--trainer.accumulate_grad_batches=2", 14 + 3 + 2 * 5),
    ],
)
def test_a_schedule_spans_the_steps_made_and_those_to_come_if_epochs_get_other_numbers_of_them(
    fit: Any, monkeypatch: pytest.MonkeyPatch, schedule: str, change: str, steps: int
) -> None:
    """Ten steps in an epoch at first, of which 14 are made; the run is stopped again after the change."""
    more = ["--model=linear", "--data.batch_size=4", "--data.validation=0", "--trainer.max_epochs=4", "--test=false"]
    more += ["--optimizer=SGD", "--optimizer.lr=1", f"--lr_scheduler={schedule}", "--trainer.log_every_n_steps=1"]
    for at, args in (
        ((1, 4), [*more, "--checkpoint_minutes=1e-9", "--run=run"]),
        ((2, 2), ["--config=run/config.yaml", "--ckpt_path=last", change, "--allow_changes=true"]),
    ):
        with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="killed"):
            patch.setattr(RunFolder, "on_train_batch_end", killed(at))
            fit(*args) if at == (1, 4) else main(["fit", *args])
    shown: list[float] = []  # the share of the bar at the end
    end = "on_train_end"
    monkeypatch.setattr(ProgressBar, end, lambda bar, trainer, _: shown.append(batches_begun(trainer) / bar._batches))
    assert main(["fit", "--config=run/config.yaml", "--ckpt_path=last", "--trainer.enable_progress_bar=true"]) == 0
    assert shown == [1]
    rates = dict(zip(*read_metrics(Path("run/metrics.csv"))["lr-SGD"], strict=True))
    assert json.loads(Path("run/summary.json").read_text())["steps"] == steps and max(rates) == steps - 1
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1)
    made = make_lr_scheduler({"name": schedule}, optimizer, steps, 4)["scheduler"]
    for step in range(steps):
        if step >= 14:
            assert rates[step] == pytest.approx(optimizer.param_groups[0]["lr"])
        optimizer.step()
        made.step()


@pytest.mark.parametrize(
    ("done", "size", "start", "count"),
    [(4, 8, 16, 16), (4, 2, 16, 16), (5, 8, 16, 16), (7, 12, 12, 12), (1, 8, 0, 32)],
)
def test_batches_of_another_size_go_on_at_the_same_image_or_at_the_start_of_theirs(
    fit: Any, monkeypatch: pytest.MonkeyPatch, done: int, size: int, start: int, count: int
) -> None:
    """An epoch has 32 images; one batch at least is left, so that it ends with a validation."""
    seen: list[float] = []
    end = RunFolder.on_train_batch_end

    def on_train_batch_end(run: RunFolder, trainer: Any, *args: Any) -> None:
        if len(seen) == 4 * done:
            raise RuntimeError("killed")
        seen.extend(round(total, 2) for total in args[2][0].sum((1, 2, 3)).tolist())  # which tells images apart
        end(run, trainer, *args)

    more = ["--model=linear", "--data.batch_size=4", "--data.validation=0.2", "--data.augmentations=none"]
    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="killed"):
        patch.setattr(RunFolder, "on_train_batch_end", on_train_batch_end)
        fit(*more, "--test=false", "--checkpoint_minutes=1e-9", "--run=run")
    before, done = list(seen), -1
    seen.clear()
    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "on_train_batch_end", on_train_batch_end)
        words = ["fit", "--config=run/config.yaml", "--ckpt_path=last", f"--data.batch_size={size}"]
        assert main([*words, "--allow_changes=true"]) == 0
    again = len(before) - start
    assert seen[:again] == before[start : start + count] and len(seen) == count
    assert not {*seen[again:]} & {*before}
    assert read_metrics(Path("run/metrics.csv"))["val/loss"]


def test_the_test_of_a_run_that_slurm_interrupted_is_that_of_its_last_weights(
    fit: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = ["--model=linear", "--data.validation=0", "--trainer.max_epochs=2"]
    assert fit(*more, "--run=whole") == 0
    monkeypatch.setenv("SLURM_NTASKS", "1")
    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="killed"):
        patch.setattr(RunFolder, "on_train_batch_end", killed((1, 0)))
        fit(*more, "--run=run")
    shutil.copy("run/last.ckpt", "run/hpc_ckpt_1.ckpt")  # as Lightning writes it at SIGUSR1
    assert main(["fit", "--config=run/config.yaml", "--ckpt_path=last"]) == 0
    losses = [json.loads(Path(run, "summary.json").read_text())["test_loss"] for run in ("whole", "run")]
    assert losses[0] == losses[1] and not list(Path("run").glob("hpc_*"))


def test_an_edited_config_is_seen(fit: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert fit(*SMALL, "--run=run") == 0
    config = Path("run/config.yaml")
    config.write_text(config.read_text().replace("seed_everything: 0", "seed_everything: 1"))
    assert main(["fit", "--config=run/config.yaml", "--ckpt_path=last"]) == 2
    assert "seed_everything was 0 and is 1" in capsys.readouterr().err


def test_one_command_starts_a_run_and_goes_on_with_it(fit: Any) -> None:
    """What torchrun and a queue do: the same command again."""
    command = [*SMALL, "--trainer.max_epochs=2", "--run=run", "--ckpt_path=last"]
    assert fit(*command) == 0
    before = Path("run/last.ckpt").read_bytes()
    assert fit(*command) == 0
    contents = [
        torch.load(io.BytesIO(data), weights_only=True) for data in (before, Path("run/last.ckpt").read_bytes())
    ]
    assert contents[0]["global_step"] == contents[1]["global_step"] > 0


def test_a_run_killed_before_its_first_checkpoint_starts_again(fit: Any) -> None:
    assert fit(*SMALL, "--run=run") == 0
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
    assert "mine is not a run folder: it has files, but no config.yaml" in capsys.readouterr().err
    assert [path.name for path in Path("mine").iterdir()] == ["notes.txt"]


def test_two_processes_cannot_train_in_one_folder(fit: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert fit(*SMALL, "--run=run") == 0
    other = RunFolder(Path("run"), "", resumed=True)
    with other.opened():
        assert main(["fit", "--config=run/config.yaml", "--ckpt_path=last"]) == 2
    assert "another process is training in run" in capsys.readouterr().err
    assert Path("run/last.ckpt").is_file() and not Path("run/.lock").exists()


def test_a_run_goes_on_in_a_folder_that_was_moved(fit: Any) -> None:
    more = [*SMALL, "--optimizer=SGD", "--optimizer.lr=0", "--run=old/run"]
    assert fit(*more) == 0
    Path("old").rename("new")
    assert main(["fit", "--config=new/run/config.yaml", "--ckpt_path=last"]) == 0
    assert not Path("old").exists() and json.loads(Path("new/run/summary.json").read_text())["tested"] == "best.ckpt"


def test_a_training_goes_on_with_its_images_in_another_place_and_with_no_others(
    fit: Any, colours: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="killed"):
        patch.setattr(RunFolder, "on_train_batch_end", killed((1, 0)))
        fit("--model=linear", "--trainer.max_epochs=2", "--run=run")
    shutil.copytree(colours.rename("moved"), "others")
    Path("others/train/red/000.png").unlink()
    go_on = ["fit", "--config=run/config.yaml", "--ckpt_path=last"]
    assert main([*go_on, "--data.root=others"]) == 2
    assert "the training images are not those of the checkpoint" in capsys.readouterr().err
    assert main([*go_on, "--data.root=moved", "--data.follow_links=true", "--data.max_pixels=100"]) == 0
    assert json.loads(Path("run/summary.json").read_text())["changed"] == ""
    assert main([*go_on, "--data.root=others"]) == 2  # although there is nothing left to do
    assert "data.root was 'moved' and is 'others'" in capsys.readouterr().err


def test_every_process_names_the_folder_that_the_first_one_has_made() -> None:
    made = Path("runs/linear-colours-2")
    run, strategy = RunFolder(Path("runs/linear-colours"), ""), SimpleNamespace(broadcast=lambda folder: made)
    run.setup(SimpleNamespace(strategy=strategy), create("linear"), "fit")  # type: ignore[arg-type]
    assert run.folder == made


def test_what_a_kill_left_of_a_checkpoint_is_removed(fit: Any) -> None:
    assert fit(*SMALL, "--run=run") == 0
    left = Path(f"run/.last.ckpt-{'0' * 16}.unfinished")
    left.write_bytes(b"half")
    more = ["--trainer.max_epochs=2", "--allow_changes=true"]
    assert main(["fit", "--config=run/config.yaml", "--ckpt_path=last", *more]) == 0
    assert not left.exists()


def test_a_row_of_metrics_that_a_kill_cut_off_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    path.write_bytes(b"epoch,step,train/loss\r\n0,1,0.5\r\n0,2")
    assert read_rows(path) == (["epoch", "step", "train/loss"], [{"epoch": "0", "step": "1", "train/loss": "0.5"}])


@pytest.mark.parametrize("minutes", ["0", "-1"])
def test_a_wrong_time_between_checkpoints_is_told(fit: Any, capsys: pytest.CaptureFixture[str], minutes: str) -> None:
    assert fit(f"--checkpoint_minutes={minutes}") == 2
    assert "checkpoint_minutes must be above 0" in capsys.readouterr().err


BOMB = "a: &a [x, x, x]\n" + "".join(
    f"{name}: &{name} {{p: *{of}, q: *{of}, r: *{of}, s: *{of}}}\n"
    for of, name in zip("abcdefghijk", "bcdefghijkl", strict=True)
)


@pytest.mark.parametrize(
    "text", [BOMB, "[" * 100_000, "x: {" * 5000, "- a", "a: b\0", "x: y\n" * 250_000, None, 3, {"x": "y"}]
)
def test_the_config_in_a_hostile_checkpoint_is_refused(text: Any) -> None:
    with pytest.raises(ValueError, match="the checkpoint's config"):
        changed_options(text, "x: 1")


def test_the_summary_says_where_the_same_bits_come_out() -> None:
    cpu, gpu = SimpleNamespace(accelerator=CPUAccelerator()), SimpleNamespace(accelerator=CUDAAccelerator())
    assert same_bits(cpu) == "with the same commit, versions, hardware, threads and number of processes"  # type: ignore[arg-type]
    assert same_bits(gpu) == "not guaranteed; use --trainer.deterministic=true"  # type: ignore[arg-type]
    torch.use_deterministic_algorithms(True)
    try:
        assert same_bits(gpu) == same_bits(cpu)  # type: ignore[arg-type]
        torch.use_deterministic_algorithms(True, warn_only=True)
        assert same_bits(gpu) == "not guaranteed; use --trainer.deterministic=true"  # type: ignore[arg-type]
    finally:
        torch.use_deterministic_algorithms(False)


def test_the_summary_says_on_what_a_run_was_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.get_device_name", lambda: "a GPU")
    monkeypatch.setattr("torch.backends.mps.get_name", lambda: "Apple M2")
    accelerators = (CPUAccelerator(), CUDAAccelerator(), MPSAccelerator())
    found = [trained_on(SimpleNamespace(accelerator=each)) for each in accelerators]  # type: ignore[arg-type]
    assert found == [processor(), "a GPU", "Apple M2"]


def test_the_summary_says_on_how_many_processes_a_run_was_trained() -> None:
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_model_summary=False)
    assert conditions(trainer, {})["processes"] == 1
    assert conditions(trainer, {"processes": "2"})["processes"] == "2; then 1"


def test_the_commit_is_not_that_of_a_user_who_keeps_the_package_in_a_checkout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    who = ["-c", "user.name=A", "-c", "user.email=a@b"]
    subprocess.run(["git", "-C", str(tmp_path), *who, "commit", "-qm", "mine", "--allow-empty"], check=True)
    monkeypatch.setattr("cvcc_zoo.runs.summary.__file__", str(tmp_path / "cvcc_zoo/runs/summary.py"))
    assert commit() is None
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "theirs"\n')
    assert commit() is None
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "cvcc_zoo"\n')
    assert len(commit() or "") >= 40


def test_what_is_logged_and_shown_may_change_when_a_run_goes_on() -> None:
    before = "trainer: {logger: null, profiler: null, log_every_n_steps: 50, max_epochs: 1}"
    now = (
        "trainer: {logger: [{class_path: CSVLogger, init_args: {save_dir: logs}}], profiler: {class_path: Simple}, "
        "log_every_n_steps: 1, max_epochs: 2}"
    )
    assert changed_options(before, now) == {"trainer.max_epochs": (1, 2)}


def test_the_hardware_and_versions_of_a_run_are_those_that_trained_it(
    fit: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def on(machine: str, *more: str) -> dict[str, Any]:
        monkeypatch.setattr("cvcc_zoo.runs.summary.trained_on", lambda trainer: machine)
        monkeypatch.setattr("cvcc_zoo.runs.summary.commit", lambda: f"commit of {machine}")
        assert fit("--model=linear", "--run=run", "--ckpt_path=last", *more) == 0
        found: dict[str, Any] = json.loads(Path("run/summary.json").read_text())
        return found

    first, tested = on("a GPU", "--test=false"), on("a laptop")
    assert tested["test_accuracy"] is not None
    assert (tested["hardware"], tested["commit"]) == ("a GPU", "commit of a GPU")
    assert {"processes", "precision", "same_bits", "versions", "winograd"} < first.keys()
    longer = [f"--trainer.max_epochs={epochs}" for epochs in (2, 3)]
    after = on("a laptop", longer[0], "--allow_changes=true")
    assert (after["hardware"], after["commit"]) == ("a GPU; then a laptop", "commit of a laptop")
    again = on("a GPU", longer[1], "--allow_changes=true", "--trainer.precision=bf16-mixed")
    assert (again["hardware"], again["precision"]) == ("a GPU; then a laptop", "32-true; then bf16-mixed")


def test_without_ray_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray.train", None)
    monkeypatch.delitem(sys.modules, "cvcc_zoo.integrations.ray", raising=False)
    with pytest.raises(ImportError, match=r"training on Ray needs `pip install 'cvcc_zoo\[ray\]'`"):
        importlib.import_module("cvcc_zoo.integrations.ray")
