"""The options of a training run for loggers: one flat table of plain values, under their names as flags.

Lightning passes the table to every logger, in a script as in `cvcc-zoo fit`, unless `enable_autolog_hparams` is false.
"""

import inspect
import json
import os
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.loggers import MLFlowLogger, TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_info

from cvcc_zoo.classifier.epochs import EpochMetrics
from cvcc_zoo.classifier.metrics import StageMetrics
from cvcc_zoo.data.datamodule import ImageDataModule
from cvcc_zoo.internals.averages import training_epochs
from cvcc_zoo.internals.lightning import callbacks_of, trainer_of
from cvcc_zoo.internals.torch import open_writer

Plain = bool | int | float | str
ELSEWHERE = ("callbacks", "logger", "plugins", "profiler", "default_root_dir", "enable_autolog_hparams")
"""Options of the Trainer that do not affect training, or are not plain values."""
LONGEST = 250  # characters of a value that MLFlowLogger passes on
LATER = ("batch_size", "sampler", "seed")
"""Options of an ImageDataModule that may be changed after it was built, as by Lightning's BatchSizeFinder."""


class LogsOptions(LightningModule):
    """A model whose loggers are told all options of its training."""

    metrics: StageMetrics
    command_options: Mapping[str, Plain] | None = None  # of `cvcc-zoo fit`, as `of_command` returns them

    @property
    def hparams_initial(self) -> Any:
        """The options of the whole training run as one flat table; Lightning passes it to the loggers.

        In an evaluation after a training by the same Trainer they are those of the training, because Lightning passes
        them again.
        """
        trainer, name = trainer_of(self), type(self).__name__
        if trainer is None:
            return table_of(self, None)
        for each in callbacks_of(trainer) if trainer.state.fn != "fit" else ():
            if isinstance(each, EpochMetrics) and each.model == (name, dict(self.hparams)):
                return unchanged(each.options, trainer)
        return unchanged(table_of(self, trainer), trainer)

    def on_fit_start(self) -> None:
        """Keep the options of the training, after callbacks such as BatchSizeFinder may have changed some."""
        super().on_fit_start()
        table = table_of(self, self.trainer)
        for each in callbacks_of(self.trainer):
            if isinstance(each, EpochMetrics):
                each.model, each.options = (type(self).__name__, dict(self.hparams)), table
        declare_metrics(self.trainer, table, (name for name in self.metrics if not name.startswith("train/")))


def table_of(model: LogsOptions, trainer: Trainer | None) -> dict[str, Plain]:
    """Return the options of a model, its optimizer and schedule, the trainer, its data and the command."""
    own = dict(model.hparams)
    trained = {name: own.pop(name) for name in ("optimizer", "lr_scheduler")}
    found: dict[str, Plain] = {"model": type(model).__name__, **flat("model", own)}
    for name, spec in trained.items():
        found |= flat(name, spec)
    if trainer is None:
        return found
    data = getattr(trainer, "datamodule", None)
    if isinstance(data, ImageDataModule):
        later = {name: getattr(data, name) for name in LATER}
        found |= flat("data", {**data.options, **later, "title": data.dataset.title})
    if seed := os.environ.get("PL_GLOBAL_SEED"):
        found["seed_everything"] = int(seed)
    return found | dict(model.command_options or {}) | flat("trainer", _options_of(trainer))


def of_command(config: Mapping[str, Any]) -> dict[str, Plain]:
    """Return what only the options of `cvcc-zoo fit` say: seed, weights, monitor, and all options of the Trainer."""
    found: dict[str, Plain] = {}
    for name in ("seed_everything", "weights", "monitor"):
        found |= flat(name, config[name])
    trainer = {name: value for name, value in config["trainer"].items() if name not in ELSEWHERE}
    found |= flat("trainer", trainer)
    callbacks = config["trainer"]["callbacks"] or []
    for number, each in enumerate(callbacks if isinstance(callbacks, list) else [callbacks]):
        found[name := f"trainer.callbacks.{number}"] = each["class_path"].rpartition(".")[2]
        for option, value in each.get("init_args", {}).items():
            found |= flat(f"{name}.{option}", value)
    return found


def unchanged(table: dict[str, Plain], trainer: Trainer) -> dict[str, Plain]:
    """Return a table without the options that the trainer's run of MLflow has with other values: it refuses changes.

    Such a run is validated before the training, trained longer, or resumed.
    """
    told: dict[str, str] = {}
    for logger in trainer.loggers if trainer.enable_autolog_hparams else ():
        if isinstance(logger, MLFlowLogger) and trainer.is_global_zero:
            told |= logger.experiment.get_run(logger.run_id).data.params
    texts = {name: str(value)[:LONGEST] for name, value in table.items()}
    changed = {name for name, text in texts.items() if told.get(name, text) != text}
    if changed:
        rank_zero_info(f"MLflow keeps the first values of a run, also of {', '.join(sorted(changed))}.")
    return {name: value for name, value in table.items() if name not in changed}


def _options_of(trainer: Trainer) -> dict[str, Any]:
    """Return the options that the Trainer stores, and what it chose for the others."""
    names = [name for name in inspect.signature(Trainer.__init__).parameters if name not in ELSEWHERE]
    kept = {name: getattr(trainer, name) for name in names if hasattr(trainer, name)}
    return kept | {
        "max_epochs": training_epochs(trainer),
        "accelerator": type(trainer.accelerator).__name__,
        "strategy": type(trainer.strategy).__name__,
        "devices": trainer.num_devices,
        "callbacks": [type(each).__name__ for each in callbacks_of(trainer) if not isinstance(each, EpochMetrics)],
        "deterministic": (False, "warn", True)[torch.get_deterministic_debug_mode()],
    }


def flat(name: str, value: Any) -> dict[str, Plain]:
    """Return a value under its name; spread a dict, a list of dicts, or a choice with options over several names.

    `{"name": "SGD", "lr": 0.1}` under `optimizer` becomes `optimizer: SGD` and `optimizer.lr: 0.1`. None and lists of
    plain values are written as in YAML: null, [1, 2].
    """
    if isinstance(value, list | tuple) and any(isinstance(each, Mapping) for each in value):
        value = dict(enumerate(value))
    if isinstance(value, Mapping) and value:
        found: dict[str, Plain] = {}
        for key, each in value.items():
            found |= flat(name if key == "name" else f"{name}.{key}", each)
        return found
    if type(value) in (bool, int, float, str):
        return {name: value}
    return {name: json.dumps(value) if value is None or isinstance(value, list | tuple | dict) else str(value)}


def declare_metrics(trainer: Trainer, table: Mapping[str, Plain], metrics: Iterable[str]) -> None:
    """Add columns for these metrics to TensorBoard's table of runs.

    TensorBoard takes the first table of a run, and the only metric in Lightning's is `hp_metric`.
    """
    for logger in trainer.loggers if trainer.enable_autolog_hparams else ():
        if isinstance(logger, TensorBoardLogger) and trainer.is_global_zero:
            from torch.utils.tensorboard import SummaryWriter
            from torch.utils.tensorboard.summary import hparams

            if isinstance(logger.experiment, SummaryWriter):
                writer = open_writer(logger.experiment)
                for part in hparams(dict(table), dict.fromkeys(metrics, 0.0)):  # type: ignore[no-untyped-call]
                    writer.add_summary(part)
