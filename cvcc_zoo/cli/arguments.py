"""Arguments as users write them become arguments that jsonargparse reads, in one pass: `rewrite`.

| command | written | read |
|---|---|---|
| `fit` | `resnet20` first | `--model=resnet20` |
| evaluations | a run folder, a checkpoint or a name first | `--run=`, `--ckpt_path=` or `--model=` |
| evaluations | `--run=FOLDER` | `--config=FOLDER/config.yaml --ckpt_path=FOLDER` |
| evaluations | `--data.root=here --run=FOLDER` | the run first |
| all | `--optimizer.lr=0.1 --optimizer=SGD --config=a.yaml` | files, then names, then their options |
| `fit`, evaluations | `--weights=a.ckpt --model=resnet20` | the model first |
| `fit`, evaluations | `--config=cifar10/resnet20` | the file of the recipe |
| `fit`, evaluations | `--model.optimizer=SGD` | refused, with the option that is meant |
| all | `--model.drop_rate=0.1` after `--model=timm.resnet18` (or in a file) | `--model.network_options.drop_rate=0.1` |
| all | `--model.init_args.depth=26` | `--model.depth=26` |
| all | `--model=resnet20` | its class, all options that shape it, and its `--weights` or null |
| all | `--model={class_path: resnet20, init_args: {freeze: 2}}` | the same with these options, as YAML |
| all | `--model.help=resnet20` | `--model.help=` its class |
| all | `--optimizer=SGD`, and those in SPECS | `--optimizer={"name": "SGD"}` |
| all | `--lr_scheduler=none` | `--lr_scheduler=null` |
| all | `--optimizer={class_path: SGD, init_args: {lr: 0.1}}` | `--optimizer={name: SGD, lr: 0.1}` |

Options without a name, such as `--model.loss.l2=0.1`, belong to what a file before them names, or to the one by
default. `search` and `train-zoo` pass options on to `fit` as their own `--options`.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from jsonargparse import ArgumentParser, Namespace

from cvcc_zoo.cli.choices import check_not_of_model
from cvcc_zoo.cli.expansion import expand_model, in_one_line, is_none, load_yaml, options_beside_networks
from cvcc_zoo.cli.files import SPECS, has_model_alone, network_options_in, options_alone, weights_alone, with_names
from cvcc_zoo.cli.recipes import config_file
from cvcc_zoo.files.own import expanded
from cvcc_zoo.registry import as_spec, as_typed
from cvcc_zoo.weights.card import list_cards
from cvcc_zoo.zoo.averaging import Average
from cvcc_zoo.zoo.trained import Trained

EVALUATIONS = ("validate", "test", "predict")
CONFIG = ("-c", "--config")
DEFAULTS = {"model.init_args.loss": "cross_entropy", "data.whitening": "standardize"}
"""The names by default of what takes a name or `{name: ..., option: value}`."""


def rewrite(args: Sequence[str], command: str = "") -> list[str]:
    """Rewrite the arguments of a command as the table above says. Raises ValueError for those that it refuses."""
    args = [re.sub(r"^--model\.init_args\.", "--model.", word) for word in args]
    if command == "fit" or command in EVALUATIONS:
        check_owned(args)
        args = name_as_option(command, args)
    return _expand(owners_first(args, (*CONFIG, "--run") if command in EVALUATIONS else CONFIG), command)


def check_owned(args: Sequence[str]) -> None:
    """Raise ValueError for an option of the model on the command line that is taken from elsewhere."""
    for word in args:
        if found := re.match(r"--model\.(\w+)", word):
            check_not_of_model(found[1])


def owners_first(args: Sequence[str], files: Sequence[str] = CONFIG) -> list[str]:
    """Move the flags that name files of options first, and each name before the options that belong to it."""
    groups: list[list[str]] = []
    for word in args:
        if not groups or re.match(r"--?[A-Za-z]", word):
            groups.append([word])
        else:
            groups[-1].append(word)
    flags = [group[0].partition("=")[0] for group in groups]

    def place(flag: str) -> int:
        if not flag.startswith("-"):
            return 0  # the command
        if flag in files:
            return 1
        owned = ("--weights",) if flag == "--model" else ()  # a model takes away the weights before it
        owns = any(other.startswith((f"{flag}.", f"{flag}+", *owned)) for other in flags)
        return 2 + flag.count(".") if owns else len(args) + 2

    order = sorted(range(len(groups)), key=lambda number: place(flags[number]))
    return [word for number in order for word in groups[number]]


def name_as_option(command: str, args: Sequence[str]) -> list[str]:
    """Turn a first argument without a flag into an option: `--model=resnet20`, or `--run=runs/mine`.

    Published weights come before a folder or file of their name.
    """
    if not args or args[0].startswith("-"):
        return list(args)
    path, flag = expanded(args[0]), "--model"
    if command != "fit" and as_typed(args[0], list_cards()) is None:
        flag = "--run" if path.is_dir() else "--ckpt_path" if path.is_file() else flag
    return [f"{flag}={args[0]}", *args[1:]]


def _expand(args: Sequence[str], command: str) -> list[str]:
    """Expand the names of models, optimizers and the like, and `--run=FOLDER` of an evaluation."""
    words: list[str] = []
    known: set[str] | None = None  # the options of a model around a network of others, which has its own, too
    alone: str | None = None  # the weights of a file without a model, which a model without weights starts from
    for_any: Mapping[str, Any] = {}  # options in files for any model, which one that is named gets
    for flag, value in _pairs(args):
        option = re.fullmatch(r"--model\.(\w+)(.*)", flag)
        if known is not None and option and option[1] not in {*known, "help", "init_args"}:
            flag = f"--model.network_options.{option[1]}{option[2]}"
        if flag == "--model.init_args" and value is not None:
            flag, value = "--model", f"{{init_args: {value}}}"
        if flag == "--model" and value is not None and value.lstrip().startswith("{"):
            model, weights = _model_of(value)
            if "class_path" in model:
                words += _weights(weights or alone, command)
                known = options_beside_networks(model["class_path"])
            words.append(f"--model={in_one_line(model)}")
        elif flag == "--model" and value is not None:
            model, weights = expand_model(value)
            words += _weights(weights or alone, command)
            chosen = f"--model={model['class_path']}"
            if for_any:  # the file is checked against the options of this model
                words.insert(min(i for i, word in enumerate(words) if word.startswith("--config=")), chosen)
            words.append(chosen)
            known = options_beside_networks(model["class_path"])
            for name, setting in {**model["init_args"], **for_any}.items():
                more = name in for_any or any(word.startswith(f"--model.{name}.") for word in args)
                if isinstance(setting, str) and more and f"--model.{name}" in SPECS:
                    setting = {"name": setting}  # to which options alone can be added
                text = setting if isinstance(setting, str) else json.dumps(setting)
                inner = "" if known is None or name in known else "network_options."
                words.append(f"--model.{inner}{name}={text}")
        elif flag == "--model.help" and value:
            words.append(f"{flag}={expand_model(value)[0]['class_path']}")
        elif flag == "--lr_scheduler" and is_none(value):
            words.append(f"{flag}=null")
        elif flag in SPECS and value and re.fullmatch(r"[A-Za-z_][\w.]*", value) and value not in ("null", "None"):
            words.append(f"{flag}={json.dumps({'name': value})}")
        elif flag in SPECS and value and value.lstrip().startswith("{"):
            words.append(f"{flag}={_named(flag, value)}")
        elif flag == "--run" and value and command in EVALUATIONS:
            words += _evaluate_run(expanded(value))
        elif flag in CONFIG and value and (command == "fit" or command in EVALUATIONS):
            file = config_file(value)
            words.append(f"--config={file}")
            if alone and has_model_alone(file):
                words.append(f"--weights={alone}")
            alone, for_any = weights_alone(file, alone), options_alone(file, for_any)
            known = network_options_in(file, known)
        else:
            words.append(flag if value is None else f"{flag}={value}")
    return with_names(words)


def _weights(found: str | None, command: str) -> list[str]:
    """Return the flag for the weights of a model; one that has none takes away those of a model or file before it."""
    trains = command == "fit" or command in EVALUATIONS  # and so has this flag
    return [f"--weights={found or 'null'}"] if found or trains else []


def _model_of(value: str) -> tuple[dict[str, Any], str | None]:
    """Return `{class_path: resnet20, init_args: {freeze: 2}}` with its name expanded, and the name of its weights."""
    try:
        config = load_yaml(f"{{model: {value}}}")
    except yaml.YAMLError as error:
        raise ValueError(
            f"--model is not valid YAML ({' '.join(str(error).split())}); write it like "
            "--model='{class_path: ResNet, init_args: {depth: 26}}'"
        ) from error
    return config["model"], config.get("weights")


def _named(flag: str, value: str) -> str:
    """Return `{class_path: SGD, init_args: {lr: 0.1}}` as `{name: SGD, lr: 0.1}`, and other values as they are."""
    try:
        spec = load_yaml(value)
    except yaml.YAMLError:  # which the parser tells
        return value
    if not isinstance(spec, dict) or "class_path" not in spec:
        return value
    return in_one_line(as_spec(flag.rpartition(".")[2].lstrip("-"), spec))


def _pairs(args: Sequence[str]) -> Iterable[tuple[str, str | None]]:
    """Yield (flag, value) for each `--flag=value`, and for each `--flag value` of the flags that are rewritten."""
    rest = list(args)
    while rest:
        flag, equals, value = rest.pop(0).partition("=")
        if equals:
            yield flag, value
        elif flag in ("--model", "--model.init_args", "--model.help", "--run", "--data", *CONFIG, *SPECS) and rest:
            yield flag, rest.pop(0)
        else:
            yield flag, None


def _evaluate_run(folder: Path) -> list[str]:
    config = folder / "config.yaml"
    if not config.is_file():
        raise FileNotFoundError(f"{folder} is not a run folder: it has no config.yaml")
    return [f"--config={config}", f"--ckpt_path={folder}"]


def parse(parser: Any, args: Sequence[str]) -> Any:
    """Parse rewritten arguments. Options of a loss or whitening without a name belong to the one by default."""
    config = parser.parse_args(args)
    for key, default in DEFAULTS.items():
        options = config.get(key)
        if isinstance(options, Mapping) and not {"name", "class_path"} & options.keys():
            config[key] = {"name": default, **options}
    return config


T = TypeVar("T", Trained, Average)


def with_its_images(parser: ArgumentParser, args: Sequence[str], find: Callable[[str], T]) -> tuple[Namespace, T]:
    """Return the options of a command on the model that its option `name` names, and the model as `find` returns it.

    The images are by default those that the model of a run was trained on, and others are prepared as in training. This
    changes defaults of the parser, which therefore must not be shared. Raises as `find` does.
    """
    words = rewrite(args)
    config = parse(parser, words)
    trained = find(config.name)
    options = trained.image_options(config.data.dataset)
    parser.set_defaults({f"data.{option}": value for option, value in options.items() if option in config.data})
    return parse(parser, words), trained
