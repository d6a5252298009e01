"""Names on the command line and in YAML become what jsonargparse reads; its errors become short ones."""

import json
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import yaml
from jsonargparse import ArgumentParser, get_loader, set_dumper, set_loader
from lightning.pytorch.cli import LightningArgumentParser
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from cvcc_zoo.choices import check_not_of_model
from cvcc_zoo.classifier import ImageClassifier
from cvcc_zoo.manual import WithExamples
from cvcc_zoo.models.catalogue import architecture, describe, family_options
from cvcc_zoo.optim.build import TIMM
from cvcc_zoo.refusals import check_keys, in_one_line
from cvcc_zoo.registry import ALIASES, ENTRIES, FAMILIES, as_spec, as_typed, find, import_class, pick, unknown

MODE = "cvcc_zoo"
EVALUATIONS = ("validate", "test", "predict")
DEFAULT_OPTIMIZER = {"name": "AdamW", "lr": 0.004, "weight_decay": 0.05}
DEFAULT_SCHEDULE = {"name": "OneCycleLR"}
IMPORTED = {"optimizer": Optimizer, "lr_scheduler": LRScheduler}
OPTIMIZER_OPTIONS = {"optimizer.lr", "optimizer.weight_decay", "optimizer.momentum"}  # which no parser lists
SPEC_FLAGS = ("--optimizer", "--lr_scheduler", "--model.loss", "--data.whitening")


def expand_model(name: str) -> dict[str, Any]:
    """A registered name, a family's, or an import path, as `class_path` and all `init_args` that shape it."""
    if name not in FAMILIES and (model := as_typed(name, [*ENTRIES, *ALIASES])):
        family, options = describe(model)
    else:
        family = import_class("model", name, ImageClassifier).__name__ if "." in name else name
        family = pick("model", family, [*FAMILIES, *ENTRIES, *ALIASES], "`cvcc-zoo list` shows all models")
        options = architecture(FAMILIES[family]().hparams)
    return {"class_path": path_of(family), "init_args": options}


def split_weights(name: str) -> tuple[str, str | None]:
    """The model of `resnet20.cifar10`, and that name as the weights; without a known model in front, the name alone."""
    model = as_typed(name.partition(".")[0], [*ENTRIES, *ALIASES])
    if "." in name and model:
        return model, f"{find(model).name}.{name.partition('.')[2]}"
    return name, None


def expand_args(args: Sequence[str]) -> list[str]:
    """Rewrite `--model=resnet20`, `--optimizer=SGD` and the like, and `--run=FOLDER` of an evaluation."""
    expanded = []
    for flag, value in _pairs(args):
        if flag == "--model" and value is not None and not value.lstrip().startswith("{"):
            value, weights = split_weights(value)
            if weights:
                expanded.append(f"--weights={weights}")
            model = expand_model(value)
            expanded.append(f"--model={model['class_path']}")
            for option, setting in model["init_args"].items():
                text = setting if isinstance(setting, str) else json.dumps(setting)
                expanded.append(f"--model.{option}={text}")
        elif flag == "--model.help" and value:
            expanded.append(f"{flag}={expand_model(value)['class_path']}")
        elif flag in SPEC_FLAGS and value and re.fullmatch(r"[A-Za-z_][\w.]*", value) and value not in ("null", "None"):
            expanded.append(f"{flag}={json.dumps({'name': value})}")
        elif flag == "--run" and value and args and args[0] in EVALUATIONS:
            expanded += _evaluate_run(Path(value).expanduser())
        else:
            expanded.append(flag if value is None else f"{flag}={value}")
    return expanded


def _pairs(args: Sequence[str]) -> Iterable[tuple[str, str | None]]:
    """Each `--flag=value`, and each `--flag value` of the flags that are rewritten, as (flag, value)."""
    rest = list(args)
    while rest:
        flag, equals, value = rest.pop(0).partition("=")
        if equals:
            yield flag, value
        elif flag in ("--model", "--model.help", "--run", *SPEC_FLAGS) and rest:
            yield flag, rest.pop(0)
        else:
            yield flag, None


def _evaluate_run(folder: Path) -> list[str]:
    config = folder / "config.yaml"
    if not config.is_file():
        raise FileNotFoundError(f"{folder} is not a run folder: it has no config.yaml")
    return [f"--config={config}", f"--ckpt_path={folder}"]


def add_own_options(parser: LightningArgumentParser, checkpoint_minutes: float) -> None:
    """The options that belong to neither model, data nor trainer."""
    parser.add_argument(
        "--optimizer",
        type=dict[str, Any],
        default=DEFAULT_OPTIMIZER,
        help="Name of an optimizer of this package (`cvcc-zoo optimizers` shows them), of torch or of timm "
        "(timm.lamb), or an import path; its options as --optimizer.lr=0.1. Norms and biases are decayed only with "
        "--optimizer.decay_norms_and_biases=true.",
    )
    parser.add_argument(
        "--lr_scheduler",
        type=dict[str, Any] | None,
        default=DEFAULT_SCHEDULE,
        help="Name of a schedule of this package (Step, QuarterCosine, Cosine, Linear, OneCycle, WSD) or of torch, "
        "or null; its options as --lr_scheduler.warmup=0.1. Its length and the max_lr of OneCycleLR are filled in; "
        "interval is step or epoch.",
    )
    parser.add_argument(
        "--run",
        type=str | None,
        default=None,
        help="fit: the new folder of this run (default: runs/<model>-<dataset>, numbered). "
        "Others: the run folder whose config and best checkpoint are taken.",
    )
    parser.add_argument(
        "--weights",
        type=str | None,
        default=None,
        help="Weights to start from: a name of `cvcc-zoo list --pretrained`, the path of a card, a run folder or a "
        "checkpoint. --model=resnet20.cifar10 sets both. The classifier is new where the classes are others.",
    )
    parser.add_argument(
        "--checkpoint_minutes",
        type=float,
        default=checkpoint_minutes,
        help="fit: last.ckpt is written at the start of every epoch, and within one whenever this time is over.",
    )
    parser.add_argument(
        "--allow_changes",
        type=bool,
        default=False,
        help="fit: go on from a checkpoint with other options than those that it was made with.",
    )
    parser.add_argument(
        "--test",
        type=bool,
        default=True,
        help="fit: whether the test images are tested at the end; without it none of them is read.",
    )


def path_of(family: str) -> str:
    """The import path of a registered family."""
    return f"{FAMILIES[family].__module__}.{family}"


def asked_model(model: Any) -> tuple[str, dict[str, Any]]:
    """A model's class and options, without the whitening, which is linked to that of the data."""
    return model.class_path, {key: value for key, value in vars(model.init_args).items() if key != "whitening"}


def list_of(value: Any) -> list[Any]:
    """What the trainer takes as one, as several or as None."""
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]


def load_yaml(text: str) -> Any:
    """YAML as jsonargparse reads it, with names of models, optimizers and schedules expanded at its top level."""
    check_keys(text)
    value = get_loader("yaml")(text)
    return expand_config(value) if isinstance(value, dict) else value


def expand_config(config: dict[str, Any]) -> dict[str, Any]:
    """`model: resnet20`, `model: {class_path: resnet20, init_args: ...}` and `optimizer: SGD` in full."""
    model = config.get("model")
    if isinstance(model, str):
        model, weights = split_weights(model)
        config["model"] = expand_model(model)
        if weights:
            config["weights"] = weights
    elif isinstance(model, dict) and isinstance(model.get("class_path"), str):
        expanded = expand_model(model["class_path"])
        given = model.get("init_args") or {}
        for option in given:
            check_not_of_model(option)
        config["model"] = {"class_path": expanded["class_path"], "init_args": {**expanded["init_args"], **given}}
    for key in ("optimizer", "lr_scheduler"):
        if isinstance(config.get(key), str | dict):
            config[key] = as_spec(key, config[key])
    return config


def install_yaml() -> None:
    """Make jsonargparse read and write YAML with names in it."""
    set_loader(MODE, load_yaml, (yaml.YAMLError,))
    set_dumper(MODE, dump_yaml)


def dump_yaml(config: Any) -> str:
    """Plain YAML, in the order of the options."""
    text: str = yaml.dump(config, Dumper=_WithoutAliases, sort_keys=False, width=120)
    return text


class _WithoutAliases(yaml.SafeDumper):
    """Writes what stands in two places twice; a config that refers to its own parts is not read again."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


class CommandParser(WithExamples, ArgumentParser):
    """For commands that are a function: `auto_cli(function, parser_class=CommandParser)`."""


class ZooParser(WithExamples, LightningArgumentParser):
    """Answers an error by one message, without the usage of some hundred options."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"parser_mode": MODE, "allow_abbrev": False, **kwargs})

    def parse_args(self, *args: Any, **kwargs: Any) -> Any:
        """Parse, and import what a user names by an import path for a training; nobody does that for a file."""
        config = super().parse_args(*args, **kwargs)
        if config.get("subcommand") == "fit":
            for kind, base in IMPORTED.items():
                name = (config.fit.get(kind) or {}).get("name", "")
                if "." in name and not TIMM.fullmatch(name):
                    import_class(kind, name, base)
        return config

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print what is wrong and exit with code 2."""
        explained = self._explain(message)
        print(f"cvcc-zoo: error: {explained}", file=sys.stderr)
        refused = SystemExit(2)
        refused.add_note(explained)  # for a search, which goes on
        raise refused

    def _explain(self, message: str) -> str:
        if found := re.search(r"class_path '([\w.]+)':\s+Option '([\w.]+)' is not accepted", message):
            path, option = found.groups()
            family = FAMILIES.get(path.rpartition(".")[2])
            if family:
                return str(unknown(f"option of {family.__name__}", option, family_options(family)))
        if found := re.search(
            r"unrecognized arguments: (.*)|[Kk]ey \"([\w.]+)\" is not|Option '([\w.]+)' is not", message
        ):
            first = next(part for part in found.groups() if part).split()[0]
            name = first.lstrip("-").partition("=")[0]
            own = {option.lstrip("-") for action in self._actions for option in action.option_strings}
            known = {option for option in own if "-->" not in option} | OPTIMIZER_OPTIONS  # the former are links
            return str(unknown("option", name, known, "`cvcc-zoo COMMAND --help` shows all"))
        return in_one_line(message) or message.strip()
