"""What loggers are told of a training: all its options as one flat table of plain values, under their names as flags.

Lightning hands the table to every logger, of a script as of `cvcc-zoo fit`, unless `enable_autolog_hparams` is false.
"""

import inspect
import json
import os
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from lightning import Trainer
from lightning.pytorch.loggers import TensorBoardLogger

from cvcc_zoo.data.datamodule import ImageDataModule
from cvcc_zoo.internals.lightning import callbacks_of

Plain = bool | int | float | str
ELSEWHERE = ("callbacks", "logger", "plugins", "profiler", "default_root_dir", "enable_autolog_hparams")
"""Options of the Trainer that shape no training, or are no plain values."""


def table_of(model: str, hparams: Mapping[str, Any], trainer: Trainer | None) -> dict[str, Plain]:
    """The options of a model of the family `model`, its optimizer and schedule, and of the trainer with its data."""
    own = dict(hparams)
    trained = {name: own.pop(name) for name in ("optimizer", "lr_scheduler")}
    found: dict[str, Plain] = {"model": model, **flat("model", own)}
    for name, spec in trained.items():
        found |= flat(name, spec)
    if trainer is None:
        return found
    data = getattr(trainer, "datamodule", None)
    if isinstance(data, ImageDataModule):
        found |= flat("data", {**data.options, "title": data.dataset.title})
    if seed := os.environ.get("PL_GLOBAL_SEED"):
        found["seed_everything"] = int(seed)
    return found | flat("trainer", _options_of(trainer))


def _options_of(trainer: Trainer) -> dict[str, Any]:
    """Those of the Trainer that it remembers, and what became of the others."""
    names = [name for name in inspect.signature(Trainer.__init__).parameters if name not in ELSEWHERE]
    kept = {name: getattr(trainer, name) for name in names if hasattr(trainer, name)}
    return kept | {
        "accelerator": type(trainer.accelerator).__name__,
        "strategy": type(trainer.strategy).__name__,
        "devices": trainer.num_devices,
        "callbacks": [type(callback).__name__ for callback in callbacks_of(trainer)],
        "deterministic": torch.are_deterministic_algorithms_enabled(),
    }


def flat(name: str, value: Any) -> dict[str, Plain]:
    """A value under its name; a thing chosen by name with its options, a dict, or a list of these, as several.

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
    """Let TensorBoard's table of runs have columns for these metrics, which then come by the names they are logged by.

    It takes the first table of a run, and in Lightning's there are no metrics but `hp_metric`.
    """
    for logger in trainer.loggers if trainer.enable_autolog_hparams else ():
        if isinstance(logger, TensorBoardLogger) and trainer.is_global_zero:
            from torch.utils.tensorboard import SummaryWriter
            from torch.utils.tensorboard.summary import hparams

            if isinstance(logger.experiment, SummaryWriter):
                writer: Any = logger.experiment.file_writer
                for part in hparams(dict(table), dict.fromkeys(metrics, 0.0)):  # type: ignore[no-untyped-call]
                    writer.add_summary(part)
