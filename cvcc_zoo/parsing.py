"""Names on the command line and in YAML become what jsonargparse reads; its errors become short ones."""

import json
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import yaml
from jsonargparse import get_loader, set_dumper, set_loader
from lightning.pytorch.cli import LightningArgumentParser

from cvcc_zoo.classifier import ImageClassifier
from cvcc_zoo.registry import ALIASES, ENTRIES, FAMILIES, as_spec, find, import_class, unknown
from cvcc_zoo.zoo import architecture, describe, family_options

MODE = "cvcc_zoo"
EVALUATIONS = ("validate", "test", "predict")
SPEC_FLAGS = ("--optimizer", "--lr_scheduler", "--model.loss", "--data.whitening")


def expand_model(name: str) -> dict[str, Any]:
    """A registered name, a family's, or an import path, as `class_path` and all `init_args` that shape it."""
    if name in ENTRIES or name in ALIASES:
        family, options = describe(name)
    else:
        family = import_class("model", name, ImageClassifier).__name__ if "." in name else name
        if family not in FAMILIES:
            raise unknown("model", name, [*ENTRIES, *ALIASES, *FAMILIES], "`cvcc-zoo list` shows all models")
        options = architecture(FAMILIES[family]().hparams)
    return {"class_path": f"{FAMILIES[family].__module__}.{family}", "init_args": options}


def split_weights(name: str) -> tuple[str, str | None]:
    """The model of `resnet20.cifar10`, and that name as the weights; without a known model in front, the name alone."""
    model = name.partition(".")[0]
    if "." in name and (model in ENTRIES or model in ALIASES):
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


def load_yaml(text: str) -> Any:
    """YAML as jsonargparse reads it, with names of models, optimizers and schedules expanded at its top level."""
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
    text: str = yaml.safe_dump(config, sort_keys=False, width=120)
    return text


class ZooParser(LightningArgumentParser):
    """Answers an error by one message, without the usage of some hundred options."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"parser_mode": MODE, "allow_abbrev": False, **kwargs})

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print what is wrong and exit with code 2."""
        print(f"cvcc-zoo: error: {self._explain(message)}", file=sys.stderr)
        raise SystemExit(2)

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
            known = {option.lstrip("-") for action in self._actions for option in action.option_strings}
            return str(unknown("option", name, known, "`cvcc-zoo COMMAND --help` shows all"))
        return message.strip()
