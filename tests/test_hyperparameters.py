"""Loggers are told with which options a training was made, in one flat table."""

import importlib.util
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch
import yaml
from lightning import Callback, Trainer
from lightning.pytorch.callbacks import BatchSizeFinder, GradientAccumulationScheduler
from lightning.pytorch.loggers import CSVLogger, MLFlowLogger, TensorBoardLogger
from lightning.pytorch.loggers.logger import DummyLogger

from cvcc_zoo import ImageDataModule, create
from cvcc_zoo.classifier.hyperparameters import flat
from tests.conftest import Fit

QUIET: dict[str, Any] = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}


class Notebook(DummyLogger):
    """Keeps what it is told."""

    tables: ClassVar[list[dict[str, Any]]] = []
    metrics: ClassVar[dict[str, float]] = {}

    def log_hyperparams(self, params: Any, *rest: Any, **options: Any) -> None:
        Notebook.tables.append(dict(params))

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        Notebook.metrics = {**Notebook.metrics, **metrics}


@pytest.fixture(autouse=True)
def empty() -> None:
    Notebook.tables, Notebook.metrics = [], {}


def train(colours: Path, validation: float = 0.1, **options: Any) -> Trainer:
    model = create(
        "linear", num_classes=2, image_size=8, loss={"name": "hinge", "l2": 0.01},
        optimizer={"name": "SGD", "lr": 0.1}, lr_scheduler="OneCycleLR",
    )  # fmt: skip
    augmentations: list[dict[str, Any] | str] = [{"name": "Cutout", "size": 2}, "HorizontalFlip"]
    data = ImageDataModule(root=str(colours), batch_size=18, validation=validation, augmentations=augmentations)
    trainer = Trainer(**{"max_epochs": 2, "accelerator": "cpu", "log_every_n_steps": 1, **QUIET, **options})
    trainer.fit(model, data)
    trainer.test(model, data, verbose=False)
    return trainer


WANTED = {
    "model": "Linear", "model.loss": "hinge", "model.loss.l2": 0.01, "model.image_size": 8, "optimizer": "SGD",
    "optimizer.lr": 0.1, "lr_scheduler": "OneCycleLR", "data.batch_size": 18, "data.title": "colours",
    "data.augmentations.0": "Cutout", "data.augmentations.0.size": 2, "data.augmentations.1": "HorizontalFlip",
    "data.validation": 0.1, "trainer.max_epochs": 2, "trainer.precision": "32-true",
    "trainer.gradient_clip_val": "null",
}  # fmt: skip


def test_a_logger_has_all_options_of_a_training_in_python_as_one_flat_table_of_plain_values(colours: Path) -> None:
    train(colours, logger=Notebook())
    table = Notebook.tables[0]
    assert {name: table.get(name) for name in WANTED} == WANTED
    assert {type(value) for value in table.values()} <= {bool, int, float, str}
    assert {"val/accuracy", "test/accuracy"} <= Notebook.metrics.keys()
    assert all(other == table for other in Notebook.tables)  # MLflow refuses a value that changes


@pytest.mark.parametrize("deterministic", [False, True, "warn"])
def test_a_logger_is_told_whether_only_a_warning_is_given(colours: Path, deterministic: bool | str) -> None:
    torch.use_deterministic_algorithms(bool(deterministic), warn_only=deterministic == "warn")  # as a Trainer does
    try:
        train(colours, logger=Notebook(), max_epochs=0)
        assert Notebook.tables[0]["trainer.deterministic"] == deterministic
    finally:
        torch.use_deterministic_algorithms(False)


def test_a_test_of_another_model_tells_a_logger_its_own_options(colours: Path) -> None:
    trainer = train(colours, logger=Notebook())
    other = create("linear", num_classes=2, image_size=8, loss="cross_entropy", whitening="none")
    trainer.test(other, ImageDataModule(root=str(colours), batch_size=18), verbose=False)
    assert [table["model.loss"] for table in Notebook.tables] == ["hinge", "hinge", "cross_entropy"]


@pytest.mark.filterwarnings("ignore:When using `Trainer.accumulate_grad_batches")
@pytest.mark.parametrize("callback", [None, GradientAccumulationScheduler({0: 1, 1: 2})], ids=["none", "accumulates"])
@pytest.mark.parametrize("validation", [0.0, 0.1])
def test_a_test_tells_a_logger_nothing_new_about_the_training(
    colours: Path, validation: float, callback: Callback | None
) -> None:
    """MLflow refuses a value that changes."""
    train(colours, validation, logger=Notebook(), callbacks=callback)
    first, second = Notebook.tables
    assert first == second and first["data.validation"] == validation


class MLflow(MLFlowLogger):
    """A run of MLflow, which refuses a value that changes; in memory."""

    name = version = run_id = "1"
    save_dir = None

    def __init__(self) -> None:
        self.params: dict[str, str] = {}

    @property
    def experiment(self) -> Any:
        """The client."""
        return SimpleNamespace(get_run=lambda run: SimpleNamespace(data=SimpleNamespace(params=self.params)))

    def log_hyperparams(self, params: Any) -> None:
        """Keep the values."""
        for name, value in params.items():
            assert self.params.setdefault(name, str(value)[:250]) == str(value)[:250], name

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        """Keep no metrics."""

    def finalize(self, status: str = "") -> None:
        """Close nothing."""

    def after_save_checkpoint(self, checkpoint_callback: Any) -> None:
        """Keep no files."""


def test_a_run_of_mlflow_may_be_validated_first_and_trained_longer(
    colours: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    monkeypatch.setattr("cvcc_zoo.classifier.hyperparameters.rank_zero_info", seen.append)
    logger, data = MLflow(), ImageDataModule(root=str(colours), batch_size=18, validation=0.1)
    model = create("linear", num_classes=2, image_size=8)
    model.whitening.fit(torch.zeros(1, 3, 8, 8, dtype=torch.uint8))
    trainer = Trainer(max_epochs=1, accelerator="cpu", logger=logger, log_every_n_steps=1, **QUIET)
    trainer.validate(model, data, verbose=False)
    trainer.fit(model, data)
    trainer.fit_loop.max_epochs = 2
    trainer.fit(model, data)
    trainer.test(model, data, verbose=False)
    assert trainer.current_epoch == 2 and logger.params["trainer.max_epochs"] == "1"
    assert any("MLflow keeps the first values" in line and "trainer.max_epochs" in line for line in seen)


def test_a_logger_is_told_what_was_changed_after_the_data_were_built(colours: Path) -> None:
    data = ImageDataModule(root=str(colours), batch_size=18)
    data.batch_size = 4
    finder = BatchSizeFinder(mode="binsearch", init_val=3, max_trials=1, steps_per_trial=1)
    cases: tuple[list[Callback], ...] = ([], [finder])
    for callbacks in cases:
        trainer = Trainer(
            max_epochs=1, accelerator="cpu", logger=Notebook(), log_every_n_steps=1, callbacks=callbacks, **QUIET
        )
        trainer.fit(create("linear", num_classes=2, image_size=8), data)
        assert Notebook.tables[-1]["data.batch_size"] == data.batch_size != 18
    assert data.batch_size != 4


class Look(Callback):
    """A callback of a user that looks for the logger."""

    seen: ClassVar[list[Any]] = []

    def on_train_start(self, trainer: Trainer, pl_module: object) -> None:
        Look.seen.extend([trainer.loggers[1], trainer.log_dir])


def test_callbacks_of_the_command_line_find_the_logger_in_the_second_place_and_save_into_the_run(fit: Fit) -> None:
    logger, callback = (f"{each.__module__}.{each.__name__}" for each in (Notebook, Look))
    options = [f"--trainer.logger={logger}", f"--trainer.callbacks+={callback}", "--trainer.callbacks+=ModelCheckpoint"]
    assert fit("--model=linear", *options, "--run=run", "--test=false") == 0
    assert isinstance(Look.seen[0], Notebook) and Path(Look.seen[1]).resolve() == Path("run").resolve()
    assert list(Path("run/checkpoints").glob("*.ckpt"))


def test_a_logger_of_the_command_line_has_the_same_table(fit: Fit) -> None:
    name = f"{Notebook.__module__}.{Notebook.__name__}"
    more = ["--optimizer=SGD", "--optimizer.lr=0.1", "--model.loss=hinge", "--model.loss.l2=0.01"]
    assert fit("--model=linear", f"--trainer.logger={name}", "--seed_everything=7", *more) == 0
    table = Notebook.tables[0]
    wanted = {"model": "Linear", "model.loss": "hinge", "model.loss.l2": 0.01, "optimizer": "SGD", "optimizer.lr": 0.1}
    wanted |= {"seed_everything": 7, "data.seed": 7, "data.batch_size": 16, "trainer.max_epochs": 1}
    assert {name: table.get(name) for name in wanted} == wanted
    assert {"val/accuracy", "test/accuracy"} <= Notebook.metrics.keys()


class Named(Callback):
    def __init__(self, name: str) -> None:
        self.name = name


def test_a_logger_of_the_command_line_has_the_options_that_no_trainer_keeps(fit: Fit) -> None:
    name = f"{Notebook.__module__}.{Notebook.__name__}"
    more = ["--trainer.callbacks+=EMA", "--trainer.callbacks.decay=0.9", "--monitor=val/f1"]
    more += ["--trainer.max_time=01:00:00:00", f"--trainer.callbacks+={__name__}.Named"]
    more.append("--trainer.callbacks.name=mine")
    assert fit("--model=linear", f"--trainer.logger={name}", *more, "--test=false") == 0
    wanted = {"monitor": "val/f1", "weights": "null", "trainer.callbacks.0": "EMA", "trainer.callbacks.0.decay": 0.9}
    wanted |= {"trainer.callbacks.1": "Named", "trainer.callbacks.1.name": "mine", "trainer.max_time": "01:00:00:00"}
    assert {name: Notebook.tables[0].get(name) for name in wanted} == wanted


def test_the_metrics_file_of_a_run_has_no_second_writer(fit: Fit, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--trainer.logger=CSVLogger", "--trainer.logger.save_dir=run"]
    words += ["--trainer.logger.name=", "--trainer.logger.version="]
    assert fit("--model=linear", "--run=run", *words) == 2
    assert "metrics.csv, which the run writes anyway; leave it out" in capsys.readouterr().err


def test_a_csv_logger_writes_the_table(colours: Path) -> None:
    trainer = train(colours, logger=CSVLogger("logs"))
    table = yaml.safe_load((Path(str(trainer.log_dir)) / "hparams.yaml").read_text())
    assert {name: table.get(name) for name in WANTED} == WANTED


def test_no_table_is_written_where_that_is_turned_off(colours: Path) -> None:
    train(colours, logger=Notebook(), enable_autolog_hparams=False)
    assert not Notebook.tables and Notebook.metrics


def test_a_logger_that_cannot_be_made_is_told_in_one_line(
    fit: Fit, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(path: object) -> str:
        raise RuntimeError("no store there;\nuse another one")

    monkeypatch.setattr("lightning.pytorch.loggers.csv_logs.os", SimpleNamespace(fspath=refuse))
    assert fit("--model=linear", "--trainer.logger=CSVLogger", "--trainer.logger.save_dir=logs") == 2
    printed = capsys.readouterr().err
    assert "cvcc-zoo: error: this logger cannot be made: no store there; use another one\n" in printed
    assert "Traceback" not in printed and not Path("runs").exists()


@pytest.mark.skipif(importlib.util.find_spec("tensorboard") is None, reason="needs tensorboard")
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # from its dependencies
def test_tensorboard_has_the_final_metrics_beside_the_options(colours: Path) -> None:
    from tensorboard.backend.event_processing.event_multiplexer import EventMultiplexer
    from tensorboard.plugins.hparams import metadata

    trainer = train(colours, logger=TensorBoardLogger("logs"))
    events = EventMultiplexer().AddRunsFromDirectory("logs")
    events.Reload()
    (run,) = events.Runs()
    content = events.SummaryMetadata(run, metadata.EXPERIMENT_TAG).plugin_data.content
    experiment = metadata.parse_experiment_plugin_data(content)
    columns = [info.name.tag for info in experiment.metric_infos]
    assert {"val/loss", "val/accuracy", "test/loss", "test/accuracy"} <= {*columns}
    assert set(WANTED) <= {info.name for info in experiment.hparam_infos}
    for column in columns:
        last = events.Scalars(run, column)[-1].value
        assert column.startswith("val/") or last == pytest.approx(float(trainer.callback_metrics[column]))
    trainer.fit_loop.max_epochs = 3
    data = trainer.datamodule  # type: ignore[attr-defined]
    trainer.fit(trainer.lightning_module, data)  # Lightning closed the file after the test
    assert trainer.current_epoch == 3


@pytest.mark.parametrize(
    ("value", "table"),
    [
        ({"name": "SGD", "lr": 0.1}, {"x": "SGD", "x.lr": 0.1}),
        ({"name": "zca", "contrast": {"scale": 2}}, {"x": "zca", "x.contrast.scale": 2}),
        ({16: 0.5}, {"x.16": 0.5}),
        ([1, 2], {"x": "[1, 2]"}),
        ((1, 2), {"x": "[1, 2]"}),
        (["light", {"name": "Cutout"}], {"x.0": "light", "x.1": "Cutout"}),
        ({}, {"x": "{}"}),
        (None, {"x": "null"}),
        (True, {"x": True}),
        (Path("images"), {"x": "images"}),
    ],
)
def test_options_are_written_flat_under_the_names_of_their_flags(value: Any, table: dict[str, Any]) -> None:
    assert flat("x", value) == table
    assert json.loads(json.dumps(table)) == table
