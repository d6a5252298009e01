"""What cannot work is told before the first step, in one line; Lightning's own tools work with our models."""

import gc
import importlib.util
import json
import os
import sys
import weakref
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Callback, Trainer
from lightning.pytorch.accelerators import CPUAccelerator
from lightning.pytorch.callbacks import (
    BaseFinetuning,
    BatchSizeFinder,
    EarlyStopping,
    LearningRateFinder,
    ModelCheckpoint,
)
from lightning.pytorch.strategies import FSDPStrategy
from lightning.pytorch.tuner.tuning import Tuner

from cvcc_zoo import ImageDataModule, create
from cvcc_zoo.__main__ import main
from cvcc_zoo.cli.choices import told_in_one_line
from cvcc_zoo.data.images import Images
from cvcc_zoo.data.loader import TensorLoader
from cvcc_zoo.runs import OptimizerMonitor
from tests.conftest import Fit, message
from tests.test_choices import folder, linear, quick

PLATEAU = "--lr_scheduler=ReduceLROnPlateau"
STOP = "--trainer.callbacks+=EarlyStopping"


@pytest.mark.parametrize(
    ("arguments", "advice"),
    [
        (["--trainer.accelerator=gpu"], "leave --trainer.accelerator and --trainer.devices out"),
        (["--trainer.strategy=nonsense"], "You selected an invalid strategy name"),
        (["--trainer.strategy=ddp_spawn"], "--trainer.strategy=ddp starts the command once for each device"),
        (["--trainer.barebones=true"], "barebones turns off metrics and checkpoints"),
        (["--trainer.max_epochs=0"], "--trainer.max_epochs=0 trains nothing"),
        (["--trainer.accumulate_grad_batches=0"], "--trainer.accumulate_grad_batches=0 trains nothing"),
        (["--trainer.min_epochs=3"], "min_epochs=3 is more than max_epochs=1"),
        (["--trainer.limit_test_batches=0"], "to train without a test: --test=false"),
        (["--trainer.limit_test_batches=0.0"], "to train without a test: --test=false"),
        (["--trainer.val_check_interval=100"], "(100) must be less than or equal to the number of the training"),
        (
            [STOP, "--trainer.callbacks.monitor=val_loss"],
            "no metric to be watched by EarlyStopping named 'val_loss'; did",
        ),
        ([STOP, "--trainer.callbacks.monitor=val/loss", "--data.validation=0"], "but nothing is validated"),
        (
            [PLATEAU, "--lr_scheduler.monitor=val_loss"],
            "watched by ReduceLROnPlateau named 'val_loss'; did you",
        ),
        ([PLATEAU, "--lr_scheduler.interval=step"], "ReduceLROnPlateau watches one value per epoch"),
        (
            [PLATEAU, "--trainer.check_val_every_n_epoch=null", "--trainer.val_check_interval=9"],
            "not every epoch is validated",
        ),
        ([PLATEAU, "--trainer.val_check_interval=00:00:10:00"], "but with a time as val_check_interval not every"),
        (["--trainer.callbacks+=LearningRateFinder"], "Tuner(trainer).lr_find(model, datamodule=data), and pass"),
        (
            ["--trainer.callbacks+=torch.nn.Linear"],
            "trainer.callbacks takes a class below Callback, not torch.nn.Linear",
        ),
        (["--trainer.logger=torch.nn.Linear"], "trainer.logger takes a class below Logger, not torch.nn.Linear"),
        (["--trainer.callbacks=[EMA, torch.nn.Linear]"], "takes a class below Callback, not torch.nn.Linear"),
        (["--optimizer=SGD, lr=0.1"], "not 'SGD, lr=0.1': --optimizer=NAME --optimizer.OPTION=VALUE"),
        (["--optimizer=SGD\r"], "not 'SGD\\r': --optimizer=NAME"),
        (["--lr_scheduler="], "--lr_scheduler has no value; give it one, or"),
        (["--optimizer=no"], "no optimizer is named false; write the name of one, or leave it out"),
        (["--lr_scheduler=false"], "no lr_scheduler is named false"),
        (["--model.loss=no"], "cvcc-zoo: error: no loss is named false"),
        (["--data.progressive_resizing=16"], "data.progressive_resizing takes {key: value, ...} or null, not 16"),
        (["--seed_everything="], "--seed_everything has no value"),
        (["--optimizer.lr", "=", "0.1"], "an equals sign stands alone; write --option=value without spaces"),
        (["-optimizer.lr=0.1"], "'-optimizer.lr=0.1' belongs to no option; write --optimizer.lr=0.1, and"),
        (["\u2014optimizer.lr=0.1"], "write --optimizer.lr=0.1, and"),
        ([""], "an argument is empty; fill it, or leave it out"),
        (["--trainer.callbacks+=BatchSizeFinder"], "Tuner(trainer).scale_batch_size(model, datamodule=data), and pass"),
    ],
)
def test_what_cannot_work_is_told_before_the_first_step(
    fit: Fit, arguments: list[str], advice: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code: object = fit("--model=linear", *arguments)
    except SystemExit as stop:
        code = stop.code
    printed = capsys.readouterr().err
    errors = [line for line in printed.splitlines() if line.startswith("cvcc-zoo: error: ")]
    assert code == 2 and len(errors) == 1 and advice in errors[0] and printed.rstrip().endswith(errors[0])
    assert not Path("runs").exists() or not list(Path("runs").iterdir())


def test_what_no_command_could_load_is_told_before_the_training(
    fit: Fit, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cvcc_zoo.kinds.MOST_CLASSES", 1)
    assert fit("--model=linear", "--run=run") == 2
    assert "train on fewer classes or smaller images, as no checkpoint" in (said := capsys.readouterr().err)
    assert "num_classes is 2, but files may have at most 1" in said and not Path("run").exists()


def test_a_config_that_could_not_repeat_its_run_is_refused(
    fit: Fit, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("with_device.py").write_text(
        "import torch\nfrom lightning import Callback\nclass Mine(Callback):\n"
        "    def __init__(self, device: torch.device | str = torch.device('cpu')) -> None: pass\n"
    )
    monkeypatch.syspath_prepend(Path.cwd())
    mine = ["--model=linear", "--trainer.callbacks+=with_device.Mine"]
    assert fit(*mine, "--run=run") == 2
    assert "the option device is cpu by default, an object of Python" in capsys.readouterr().err
    assert not Path("run").exists()
    with monkeypatch.context() as patch:
        patch.setattr("cvcc_zoo.cli.refusals.LONGEST_CONFIG", 1_000)
        assert fit("--model=linear", "--run=run") == 2
        assert "characters, of which at most 1,000 are read again" in capsys.readouterr().err
        assert not Path("run").exists()
    assert fit(*mine, "--trainer.callbacks.device=cpu", "--run=run") == 0
    assert main(["fit", "--config=run/config.yaml", "--run=again"]) == 0
    configs = [Path(run, "config.yaml").read_text() for run in ("run", "again")]
    assert configs[0] == configs[1] and "device: cpu" in configs[0]


def test_an_evaluation_of_no_image_is_refused(fit: Fit, capsys: pytest.CaptureFixture[str]) -> None:
    assert fit("--model=linear", "--trainer.limit_test_batches=0", "--test=false", "--run=run") == 0
    for command, stage in (("test", "test"), ("validate", "val"), ("predict", "predict")):
        for limit in ("0", "0.0"):
            assert main([command, "--run=run", f"--trainer.limit_{stage}_batches={limit}"]) == 2
            assert f"limit_{stage}_batches=0 leaves no images; give more" in capsys.readouterr().err


def test_images_that_are_not_validated_leave_the_weights_of_the_last_step(fit: Fit) -> None:
    assert fit("--model=linear", "--trainer.limit_val_batches=0", "--run=run") == 0
    summary = json.loads(Path("run/summary.json").read_text())
    assert summary["tested"] == "the weights of the last step" and summary["val_accuracy"] is None


@pytest.mark.parametrize(
    ("logger", "package"), [("TensorBoardLogger", "tensorboard"), ("WandbLogger", "wandb"), ("MLFlowLogger", "mlflow")]
)
def test_a_logger_that_is_not_installed_names_its_extra(
    fit: Fit, logger: str, package: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if importlib.util.find_spec(package):
        pytest.skip(f"{package} is installed")
    more = ["--trainer.logger.save_dir=logs"] if package == "tensorboard" else []
    csv = ["--trainer.logger+=CSVLogger", "--trainer.logger.save_dir=logs"]
    for chosen in ([f"--trainer.logger={logger}"], [*csv, f"--trainer.logger+={logger}"]):
        assert fit("--model=linear", *chosen, *more) == 2
        assert f"this logger needs {package}: pip install 'cvcc_zoo[{package}]'" in capsys.readouterr().err


@pytest.fixture
def mine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A module with a callback that refuses its default option, and with callbacks whose state is no plain data."""
    Path("of_mine.py").write_text(MINE)
    monkeypatch.syspath_prepend(Path.cwd())


MINE = """
import numpy as np
from lightning import Callback
class Refuses(Callback):
    def __init__(self, every: int = 0) -> None:
        if not every:
            raise ValueError("every must be positive")
class OfNumpy(Callback):
    def state_dict(self):
        return {"scores": [np.float64(1)]}
class OfObjects(Callback):
    def state_dict(self):
        return {"other": Callback()}
"""


@pytest.mark.parametrize("before", [[], ["--trainer.callbacks+=EMA"]])
def test_what_a_callback_says_as_it_is_made_is_told_in_one_line(
    fit: Fit, mine: None, before: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert fit("--model=linear", *before, "--trainer.callbacks+=of_mine.Refuses") == 2
    printed = capsys.readouterr().err
    assert printed.endswith("cvcc-zoo: error: a class that was chosen cannot be made: every must be positive\n")
    assert fit("--model=linear", *before, "--trainer.callbacks+=EMA", "--trainer.callbacks.decay=2") == 2
    assert "cvcc-zoo: error: " in (printed := capsys.readouterr().err) and "decay" in printed
    assert "a class that was chosen" not in printed


@pytest.mark.parametrize(("name", "place"), [("OfNumpy", "scores"), ("OfObjects", "other")])
def test_a_state_that_could_not_be_read_again_stops_the_training_at_its_first_checkpoint(
    fit: Fit, mine: None, name: str, place: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fit("--model=linear", "--run=run", f"--trainer.callbacks+=of_mine.{name}") == 2
    printed = capsys.readouterr().err
    assert "the checkpoint run/last.ckpt could not be read again: it would have " in printed
    assert f" in callbacks.{name}.{place}; the state of a callback" in printed
    assert not list(Path("run").glob("*.ckpt"))


def test_a_plateau_counts_epochs_that_were_validated(fit: Fit) -> None:
    assert fit("--model=linear", PLATEAU, "--trainer.check_val_every_n_epoch=2", "--trainer.max_epochs=3") == 0


@pytest.mark.parametrize("schedule", [None, "Linear"])
def test_a_strategy_that_makes_vectors_of_the_parameters_is_refused(
    monkeypatch: pytest.MonkeyPatch, schedule: str | None
) -> None:
    model, trainer = linear(lr_scheduler=schedule), quick(max_epochs=1)
    monkeypatch.setattr(Trainer, "strategy", FSDPStrategy(accelerator=CPUAccelerator()))
    model.trainer = trainer
    with pytest.raises(ValueError, match=r"strategy=fsdp turns .* train with --trainer\.strategy=ddp"):
        model.configure_optimizers()


class Thawing(BaseFinetuning):
    """Train the bias only after the first epoch."""

    def freeze_before_training(self, pl_module: Any) -> None:
        pl_module.network.fc.bias.requires_grad_(False)

    def finetune_function(self, pl_module: Any, epoch: int, optimizer: Any) -> None:
        if epoch == 1:
            bias = pl_module.network.fc.bias.requires_grad_(True)
            optimizer.add_param_group({"params": [bias], "lr": 0.1})


def test_parameters_that_are_added_later_are_trained_without_a_schedule(colours: Path) -> None:
    """Schedules of ours have one rate for each group of parameters that there is at the start."""
    with pytest.raises(ValueError, match=r"Thawing adds parameters .*--lr_scheduler=null.* --model\.freeze=0"):
        quick(callbacks=[Thawing()], max_epochs=2).fit(linear(lr_scheduler="OneCycle"), folder(colours))
    for schedule in (None, "StepLR"):
        model = linear(lr_scheduler=schedule and {"name": schedule, "step_size": 1})
        quick(callbacks=[Thawing()], max_epochs=2).fit(model, folder(colours))
        assert model.network.get_parameter("fc.bias").abs().min() > 0


def test_numbers_that_users_log_themselves_may_be_watched(colours: Path) -> None:
    class Mine(EarlyStopping):
        def on_train_epoch_end(self, trainer: object, pl_module: object) -> None:
            pl_module.log("mine", 1.0)  # type: ignore[attr-defined]

    quick(callbacks=[Mine("mine")], max_epochs=1).fit(linear(), folder(colours))


def test_what_callbacks_of_ours_and_lightnings_count_may_be_watched(colours: Path) -> None:
    saver = ModelCheckpoint("kept", "{step}", monitor="step", mode="max", save_top_k=2, every_n_train_steps=1)
    watching = [saver, OptimizerMonitor(), EarlyStopping("train/grad_norm", mode="min")]
    quick(callbacks=watching, enable_checkpointing=True, log_every_n_steps=1).fit(linear(), folder(colours))
    assert sorted(file.name for file in Path("kept").iterdir()) == ["step=3.ckpt", "step=4.ckpt"]
    with pytest.raises(ValueError, match="no metric to be watched by EarlyStopping named 'train/grad_norm'"):
        quick(callbacks=[EarlyStopping("train/grad_norm")]).fit(linear(), folder(colours))
    with pytest.raises(ValueError, match="no metric to be watched by EarlyStopping named 'step'"):
        quick(callbacks=[EarlyStopping("step")]).fit(linear(), folder(colours))


def test_a_training_whose_eps_is_0_in_its_precision_says_so(colours: Path) -> None:
    model = create("linear", num_classes=2, image_size=8, optimizer="RMSprop")
    trainer = Trainer(
        max_steps=9, precision="16-true", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, log_every_n_steps=1, accelerator="cpu",
    )  # fmt: skip
    with pytest.raises(FloatingPointError, match=r"In float16 eps=1e-08 is 0: choose --trainer\.precision=bf16-mixed"):
        trainer.fit(model, ImageDataModule("folder", str(colours)))


def test_a_checkpoint_can_be_saved_before_a_training(colours: Path, tmp_path: Path) -> None:
    model, data, trainer = linear(), folder(colours), quick()
    quick(limit_train_batches=1).fit(model, data)
    trainer.validate(model, data, verbose=False)
    trainer.save_checkpoint(tmp_path / "validated.ckpt")
    assert (tmp_path / "validated.ckpt").is_file()


def test_the_copies_of_images_on_an_accelerator_are_given_back_after_a_run(
    colours: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copies = []

    def copied(data: Images, device: torch.device, kept: dict[int, Images]) -> Images:
        if id(data) not in kept:
            kept[id(data)] = Images(data.images.clone(), data.labels)
            copies.append(weakref.ref(kept[id(data)].images))
        return kept[id(data)]

    monkeypatch.setattr("cvcc_zoo.data.datamodule.on_accelerator", copied)
    model, data, trainer = linear(), folder(colours), quick()
    trainer.fit(model, data)
    trainer.test(model, data, verbose=False)
    gc.collect()
    assert len(copies) == 2 and copies[0]() is None  # training and validation share one


@pytest.mark.parametrize("fails", [False, True])
def test_a_trainer_validates_other_images_after_a_training_without_validation(colours: Path, fails: bool) -> None:
    class Fail(Callback):
        def on_train_end(self, trainer: Trainer, pl_module: object) -> None:
            if fails:
                raise RuntimeError("failed")

    model, data, trainer = linear(), folder(colours, validation=0), quick(callbacks=[Fail()])
    with pytest.raises(RuntimeError, match="failed") if fails else nullcontext():
        trainer.fit(model, data)
    assert trainer.limit_val_batches == 1.0 and "val/loss" not in trainer.callback_metrics
    (found,) = trainer.validate(model, TensorLoader(*data.training_images(), batch_size=8), verbose=False)
    assert "val/loss" in found


def test_processes_that_would_train_on_the_same_images_are_refused(
    colours: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = folder(colours, validation=0.2)
    data.prepare_data()
    for stage in ("fit", "test"):
        data.setup(stage)
    train, val = TensorLoader(*data.training_images(), batch_size=8), data.val_dataloader()
    model = linear(whitening="none")
    quick().fit(model, train, val)
    monkeypatch.setattr(Trainer, "world_size", 2)
    told = r"2 processes would all get the same images.*fit\(model, datamodule=data"
    with pytest.raises(ValueError, match=told):
        quick(num_sanity_val_steps=0).fit(model, train, val)
    with pytest.raises(ValueError, match=told):
        quick().validate(model, val)
    with pytest.raises(ValueError, match=told):
        quick().test(model, data.test_dataloader())


def test_a_trainer_does_not_train_on_the_loader_of_a_data_module_without_its_augmentations(colours: Path) -> None:
    data = folder(colours, validation=0.2)
    data.setup("fit")
    told = r"would train without its augmentations, .*; give it the DataModule instead, as in trainer.fit\(model, data"
    with pytest.raises(ValueError, match=told):
        quick().fit(linear(whitening="none"), data.train_dataloader(), data.val_dataloader())


def test_a_data_module_does_not_follow_the_trainer_of_its_last_run(
    colours: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, fresh = (folder(colours, validation=0.2) for _ in range(2))
    quick(overfit_batches=2, limit_test_batches=1).fit(linear(), data)
    monkeypatch.setattr(Trainer, "world_size", 2)
    monkeypatch.setattr("cvcc_zoo.data.datamodule.on_accelerator", None)  # would fail if it was called
    for each in (data, fresh):
        each.prepare_data()
        each.setup("fit")
        each.setup("test")
    for stage in ("val", "test", "predict"):
        found, expected = ([batch.samples.tolist() for batch in getattr(each, f"{stage}_dataloader")()]
                           for each in (data, fresh))  # fmt: skip
        assert found == expected and sum(map(len, found)) == (8 if stage == "val" else 12)
    kinds = {type(each.train_dataloader().sampler) for each in (data, fresh)}
    assert len(kinds) == 1 and data.train_dataloader().world_size == 1


@pytest.mark.filterwarnings("ignore")
def test_lightnings_tuner_finds_rates_and_batches(colours: Path) -> None:
    model, data = linear(optimizer={"name": "SGD", "lr": 1e-5}, lr_scheduler="OneCycleLR"), folder(colours)
    trainer = quick(max_epochs=20)
    found = Tuner(trainer).lr_find(model, datamodule=data, num_training=30)
    assert found is not None and model.lr == found.suggestion() == model.hparams["optimizer"]["lr"] != 1e-5
    size = Tuner(trainer).scale_batch_size(model, datamodule=data, steps_per_trial=1, max_trials=2, init_val=2)
    assert size == data.batch_size != 8
    trainer.fit(model, data)
    assert trainer.current_epoch == 20


@pytest.mark.filterwarnings("ignore")
def test_a_schedule_peaks_at_the_rate_that_a_callback_has_found(colours: Path) -> None:
    finder = LearningRateFinder(num_training_steps=20)
    model = create("linear", num_classes=2, image_size=8, optimizer="SGD", lr_scheduler="OneCycleLR")
    trainer = quick(callbacks=[finder], max_epochs=2)
    trainer.fit(model, folder(colours))
    assert trainer.optimizers[0].param_groups[0]["max_lr"] == model.lr


@pytest.mark.filterwarnings("ignore")
def test_a_model_is_trained_after_a_callback_has_found_the_batch_size(colours: Path) -> None:
    rates = {}

    class Watch(Callback):
        def on_train_batch_start(self, trainer: Trainer, *args: object) -> None:
            rates[trainer.global_step] = trainer.optimizers[0].param_groups[0]["lr"]

    finder = BatchSizeFinder(steps_per_trial=1, max_trials=2, init_val=2)
    model, data = linear(optimizer={"name": "SGD", "lr": 1.0}, lr_scheduler="Linear"), folder(colours)
    trainer = quick(callbacks=[finder, Watch()], max_epochs=3)
    trainer.fit(model, data)
    assert rates == pytest.approx({step: 1 - step / trainer.global_step for step in range(trainer.global_step)})
    assert data.batch_size == finder.optimal_batch_size == 4
    assert (trainer.current_epoch, trainer.global_step) == (3, 3 * len(data.train_dataloader()))


@pytest.mark.parametrize(
    ("package", "options", "advice"),
    [
        ("datasets", ["--data.dataset=hf:mine"], "pip install 'cvcc_zoo[hf]'"),
        ("h5py", ["--data.dataset=torchvision.PCAM", "--data.root=pcam"], "please run pip install h5py"),
    ],
)
def test_a_data_set_that_needs_a_package_says_how_to_install_it(
    package: str, options: list[str], advice: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    found = message(capsys, ["fit", "--model=linear", *options])
    assert advice in found and found.strip().splitlines()[-1].startswith("cvcc-zoo: error: ")


@pytest.mark.parametrize("option", ["deterministic=true", "deterministic=warn", "benchmark=true"])
def test_a_run_leaves_torch_as_it_was(fit: Fit, monkeypatch: pytest.MonkeyPatch, option: str) -> None:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    settings = torch.backends.flags_frozen.__globals__  # the test tools of torch, which others import, freeze them
    monkeypatch.setitem(settings, "__allow_nonbracketed_mutation_flag", True)
    assert fit("--model=linear", f"--trainer.{option}", "--trainer.fast_dev_run=true") == 0
    assert torch.get_deterministic_debug_mode() == 0 and not torch.backends.cudnn.benchmark
    assert not torch._inductor.config.deterministic
    assert "CUBLAS_WORKSPACE_CONFIG" not in os.environ


def test_tasks_of_slurm_that_nothing_started_are_told_in_one_line(
    fit: Fit, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    slurm = {"NTASKS": 4, "JOB_ID": 1, "JOB_NAME": "train", "PROCID": 0, "LOCALID": 0, "NODEID": 0, "NNODES": 1}
    for name, value in slurm.items():
        monkeypatch.setenv(f"SLURM_{name}", str(value))
    assert fit("--model=linear") == 2
    assert "unset SLURM_NTASKS" in capsys.readouterr().err


@pytest.mark.parametrize(
    "said",
    [
        "[gloo/transport/tcp/pair.cc:561] Connection closed by peer [127.0.0.1]:16809. GLHF!",
        "[gloo/transport/tcp/pair.cc:534] Read error [127.0.0.1]:33012: Connection reset by peer",
        "NCCL error: remote process exited or there was a network error, NCCL version 2.27.5",
    ],
)
def test_that_another_process_has_ended_is_told_in_one_line(said: str) -> None:
    with pytest.raises(ValueError, match="another process ended with an error"), told_in_one_line():
        raise RuntimeError(said)
