"""Expand names of models, optimizers and schedules; read and write YAML with such names for jsonargparse."""

import math
import re
from collections.abc import Iterator, Mapping
from contextlib import chdir, contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import get_loader, set_dumper, set_loader

from cvcc_zoo.classifier import ImageClassifier
from cvcc_zoo.classifier.compatibility import complete
from cvcc_zoo.classifier.wrapped import import_network
from cvcc_zoo.cli.choices import OF_IMAGES, SAID_ELSEWHERE, check_not_of_data, check_not_of_model
from cvcc_zoo.cli.refusals import check_keys
from cvcc_zoo.internals.jsonargparse import read_files_as_utf8
from cvcc_zoo.models.timm import PREFIX
from cvcc_zoo.registry import FAMILIES, as_spec, family_options
from cvcc_zoo.weights.card import list_cards
from cvcc_zoo.zoo.catalogue import architecture, describe
from cvcc_zoo.zoo.creation import read_weights
from cvcc_zoo.zoo.names import resolve

MODE = "cvcc_zoo"
OF_CLASS = ("class_path", "init_args", "dict_kwargs")
"""The keys by which jsonargparse takes a class with its options."""
_working: ContextVar[Path | None] = ContextVar("working", default=None)


def expand_model(name: str) -> tuple[dict[str, Any], str | None]:
    """Return the `class_path` and `init_args` that a name stands for, and the name of its weights or None.

    The options are those that shape the model, with which its weights fit, its `init` and dropout, and those that
    belong to its name: all that may be left of another model before it. Raises ValueError with the nearest names if
    there is no such model, and as `read_weights` does.
    """
    source = resolve(name)
    weights: str | None = None
    given: dict[str, Any] = {}
    kept = {"init", "dropout"}
    if source.kind == "model":
        family, given = describe(source.name)
        kept |= given.keys() - {*SAID_ELSEWHERE, *OF_IMAGES}
    elif source.kind == "import path":
        found, path = import_network(source.name)
        is_family = isinstance(found, type) and issubclass(found, ImageClassifier)
        family, given = (found.__name__, {}) if is_family else ("Wrapped", {"network": path})
    elif source.kind == "timm":
        family, given = "Timm", {"network": source.name.removeprefix(PREFIX)}
    elif source.trained:
        there = read_weights(source)
        family, given = there.family, dict(there.hparams)
        if given.get("patch_whitening") is not None:  # its filters are among the weights
            kept.add("patch_whitening")
        by_name = source.kind == "checkpoint" or list_cards().get(source.name) == source.path
        weights = source.name if by_name else str(source.path)  # of a repository, too, which is then asked once
    else:
        family = source.name
    whole = complete(family, given)
    options = architecture(whole) | {option: whole[option] for option in whole if option in kept}
    return {"class_path": path_of(family), "init_args": options}, weights


def options_beside_networks(class_path: str) -> set[str] | None:
    """Return the options of a model around a network of others, which has more of its own; None for other models."""
    family = FAMILIES.get(class_path.rpartition(".")[2])
    return set(family_options(family)) if family and getattr(family, "network_of_others", False) else None


def own_or_networks(class_path: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Move options that a model around a network of others does not have to `network_options`.

    A network of your own at an import path is imported: the user has named it, on the command line or in a file.
    """
    known = options_beside_networks(class_path)
    if known is None:
        return dict(options)
    if class_path == path_of("Wrapped") and isinstance(path := options.get("network"), str):
        import_network(path)
    others = {option: value for option, value in options.items() if option not in known}
    kept = {option: value for option, value in options.items() if option in known}
    return kept | ({"network_options": {**(options.get("network_options") or {}), **others}} if others else {})


def path_of(family: str) -> str:
    """Return the import path of a registered family."""
    return f"{FAMILIES[family].__module__}.{family}"


@contextmanager
def names_from_here() -> Iterator[None]:
    """Let names in files of options mean what they mean in this working folder.

    While jsonargparse reads a file, the working folder is that of the file.
    """
    before = _working.set(_working.get() or Path.cwd())
    try:
        yield
    finally:
        _working.reset(before)


def load_yaml(text: str) -> Any:
    """Read YAML for jsonargparse, and expand names of models, optimizers and schedules at its top level."""
    try:
        check_keys(text)
        value = get_loader("yaml")(text)
    except RecursionError as error:
        raise yaml.YAMLError("it is nested too deeply") from error
    if not isinstance(value, dict):
        return value
    with chdir(_working.get() or "."):
        return expand_config(value)


def expand_config(config: dict[str, Any]) -> dict[str, Any]:
    """Expand `model: resnet20`, `model: {class_path: resnet20, init_args: ...}` and `optimizer: SGD` in place.

    Raises ValueError as `expand_model` does, for options that the commands take from elsewhere, and for what would be
    lost beside a name.
    """
    if is_none(config.get("lr_scheduler")):
        config["lr_scheduler"] = None
    model = {"class_path": config["model"]} if isinstance(config.get("model"), str) else config.get("model")
    if isinstance(model, dict):
        given = options_of(model)
        if isinstance(name := model.get("class_path"), str):
            expanded, weights = expand_model(name)
            options = own_or_networks(expanded["class_path"], {**expanded["init_args"], **given})
            config["model"] = {**model, "class_path": expanded["class_path"], "init_args": options}
            if weights and config.get("weights") not in (None, weights):
                other = config["weights"]
                raise ValueError(
                    f"the model {name} has its own weights; leave weights: {other} out, or name a model without them"
                )
            if weights or "weights" not in config:  # or those of a file before would stay
                config["weights"] = weights
    if isinstance(data := config.get("data"), dict):
        check_not_of_data(data)
    for key in ("optimizer", "lr_scheduler"):
        spec = config.get(key)
        if isinstance(spec, str) or (isinstance(spec, dict) and {"name", "class_path"} & spec.keys()):
            config[key] = as_spec(key, spec)
    return config


def is_none(schedule: Any) -> bool:
    """Return whether somebody typed that there is no schedule."""
    return isinstance(schedule, str) and schedule.lower() == "none"


def options_of(model: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the options in `{class_path: NAME, init_args: {option: value}}`, or in `{option: value}` for any model.

    Raises ValueError for those that the commands take from elsewhere, and for those beside `class_path`.
    """
    whole = [key for key in OF_CLASS if key in model]
    beside = [key for key in model if key not in OF_CLASS]
    if whole and beside:
        raise ValueError(
            f"model has {beside[0]} beside {whole[0]}, where it is lost; write model: {{class_path: NAME, init_args: "
            f"{{{beside[0]}: ...}}}}"
        )
    options = (model.get("init_args") or {}) if whole else model
    if not isinstance(options, Mapping):
        raise ValueError(f"init_args of model are options by name, {{option: value}}, not {options!r}")
    for option in options:
        check_not_of_model(option)
    return options


def install_yaml() -> None:
    """Register `load_yaml` and `dump_yaml` in jsonargparse as the parser mode MODE, for files in UTF-8."""
    read_files_as_utf8()
    set_loader(MODE, load_yaml, (yaml.YAMLError,))
    set_dumper(MODE, dump_yaml)


def dump_yaml(config: Any) -> str:
    """Write plain YAML, in the order of the options."""
    text: str = yaml.dump(config, Dumper=_WithoutAliases, sort_keys=False, width=120)
    return text


def in_one_line(value: Any) -> str:
    """Write plain YAML in one line, as the value of a flag."""
    options: dict[str, Any] = {"sort_keys": False, "default_flow_style": True, "width": math.inf}
    return str(yaml.dump(value, Dumper=_WithoutAliases, **options)).rstrip("\n")


class _WithoutAliases(yaml.SafeDumper):
    """Write a value that occurs twice in full each time: a config with YAML aliases could not be read again."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


# The loader of jsonargparse reads numbers without a point, such as 1e-3, which PyYAML would write without quotes.
_WithoutAliases.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"(?:[-+]?[0-9][0-9_]*(?:\.[0-9_]*)?[eE][-+]?[0-9]+|\.[0-9_]+(?:[eE][-+][0-9]+)?)$"),
    list("-+0123456789."),
)
