"""What files of options say, one after the other."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from cvcc_zoo.cli.dotted import nested
from cvcc_zoo.cli.expansion import expand_model, in_one_line, options_beside_networks, options_of
from cvcc_zoo.registry import as_spec
from cvcc_zoo.zoo.names import resolve

SPECS = {
    "--optimizer": ("", "optimizer"),
    "--lr_scheduler": ("", "lr_scheduler"),
    "--model.loss": ("model", "loss"),
    "--model.ridge": ("model", "ridge"),
    "--data.whitening": ("data", "whitening"),
}
"""Flags of what has a name and options: the group of options in a file, and the name there."""


def weights_alone(file: str, before: str | None) -> str | None:
    """Return the `weights` of a config file that has no model, or else those of a file `before` it."""
    config = options_in(file)
    found = before if "model" in config else config.get("weights", before)
    return found if isinstance(found, str) else None


def options_alone(file: str, before: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the options of a config file for any model beside those of a file `before` it; none if it names one."""
    model = options_in(file).get("model", {})
    if not isinstance(model, dict) or "class_path" in model:
        return {}
    now = options_of(model)
    return {**before, **now, **{name: added(name, before[name], now[name]) for name in before.keys() & now.keys()}}


def has_model_alone(file: str) -> bool:
    """Return whether a config file names a model without weights, and says nothing of weights itself."""
    config = options_in(file)
    model = config.get("model")
    name = model.get("class_path") if isinstance(model, dict) else model
    try:
        return isinstance(name, str) and "weights" not in config and not resolve(name).trained
    except ValueError:  # which the parser tells
        return False


def network_options_in(file: str, before: set[str] | None) -> set[str] | None:
    """Return `options_beside_networks` of the model that a config file names, or else those of a file `before` it."""
    model = options_in(file).get("model")
    name = model.get("class_path") if isinstance(model, dict) else model
    try:
        return options_beside_networks(expand_model(name)[0]["class_path"]) if isinstance(name, str) else before
    except (OSError, ValueError):  # which the parser tells
        return None


def is_yaml(text: str) -> bool:
    """Return whether what `--config` names is not a file, but the options themselves."""
    return bool(re.search(r":\s|^\s*\{", text)) and not Path(text).exists()


def options_in(file: str) -> dict[str, Any]:
    """Return the options in a config file, or in YAML; none if it cannot be read: the parser tells why."""
    try:
        config = yaml.safe_load(file if is_yaml(file) else Path(file).read_text(encoding="utf-8"))
        return nested(config) if isinstance(config, dict) else {}
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        return {}


def added(kind: str, before: Any, now: Any) -> Any:
    """Return a loss or the like of a file: options without a name belong to what a file before it names."""
    if not isinstance(now, Mapping) or {"name", "class_path"} & now.keys() or not isinstance(before, str | Mapping):
        return now
    if isinstance(before, str) or {"name", "class_path"} & before.keys():
        before = as_spec(kind, before)
    return {**before, **now}


def with_names(words: Sequence[str]) -> list[str]:
    """Put what files name before flags and files that have only options for it, such as `--model.loss.l2=0.1`.

    The parser would replace it. Raises ValueError for options of an optimizer or a schedule that no file names.
    """
    words = list(words)
    files = [options_in(word.partition("=")[2]) for word in words if word.startswith("--config=")]
    files += [{"data": options_in(word.partition("=")[2])} for word in words if word.startswith("--data=")]
    for flag, (group, kind) in SPECS.items():
        found: Any = None
        is_added = False
        for file in files:
            options = _group(file, group)
            if kind in options:
                now = added(kind, found, options[kind])
                found, is_added = now, now is not options[kind]
        if kind in ("optimizer", "lr_scheduler") and isinstance(found, Mapping):
            found = as_spec(kind, found)
        named = [number for number, word in enumerate(words) if word == flag or word.startswith(f"{flag}=")]
        for number in named:
            value = _value(words[number])
            if (whole := added(kind, found, value)) is not value:
                words[number] = f"{flag}={in_one_line(whole)}"
        more = [number for number, word in enumerate(words) if word.startswith(f"{flag}.")]
        if not named and (is_added or (more and isinstance(found, str))):
            words.insert(more[0] if more else len(words), f"{flag}={in_one_line(as_spec(kind, found))}")
    return words


def _value(word: str) -> Any:
    """Return the value of a flag; None if it is not YAML, which the parser tells."""
    try:
        return yaml.safe_load(word.partition("=")[2])
    except yaml.YAMLError:
        return None


def _group(file: Mapping[str, Any], group: str) -> Mapping[str, Any]:
    """Return the options of a group in a file; those of no group for an empty name."""
    options = file.get(group) if group else file
    if not isinstance(options, Mapping):
        return {}
    return options_of(options) if group == "model" else options
