"""Recipes by name, such as cifar10/resnet20: files of options in the package, whose heads say what to expect."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from cvcc_zoo.cli.dotted import nested
from cvcc_zoo.cli.expansion import expand_model, options_beside_networks, options_of
from cvcc_zoo.files.own import expanded, shown
from cvcc_zoo.registry import CLOSE, as_typed, closest, unknown
from cvcc_zoo.zoo.names import resolve

PLACES = (Path(__file__).parents[1] / "recipes", Path(__file__).parents[2] / "configs")
"""The folder of the recipes in an installed package, and in a checkout."""
HEAD = re.compile(
    r"# cvcc-zoo fit --config configs/(?P<name>\S+)\.yaml\n"
    r"# test accuracy: (?P<accuracy>\d+\.\d\d %|not measured)(?:, .+)?\n"
    r"# time: (?P<time>[\d,]+ (?:s|minutes|hours)(?: an epoch)?)(?: after compilation)?, (?:about )?[\d,]+ images/s\n"
    r"# hardware: (?P<hardware>one core|two cores|an? [^,\n]+)(?:, .+)?\n"
)
"""The first lines of every recipe."""


@dataclass(frozen=True)
class Recipe:
    """What the head of a recipe says: test accuracy, time of training and hardware; and its number of epochs."""

    name: str
    accuracy: str
    epochs: str
    time: str
    hardware: str


@cache
def recipes() -> dict[str, Path]:
    """Return the files of all recipes by name."""
    folder = next((place for place in PLACES if place.is_dir()), PLACES[0])
    return {f"{path.parent.name}/{path.stem}": path for path in sorted(folder.glob("*/*.yaml"))}


def read_head(name: str) -> Recipe:
    """Return what the head of a recipe says. Raises ValueError if it does not have the form of HEAD."""
    text = recipes()[name].read_text(encoding="utf-8")
    found = HEAD.match(text)
    if found is None or found["name"] != name:
        raise ValueError(f"the head of {recipes()[name]} does not have the form of the other recipes; correct it")
    epochs = yaml.safe_load(text).get("trainer", {}).get("max_epochs", "-")
    return Recipe(name, found["accuracy"], str(epochs), found["time"], found["hardware"])


def config_file(asked: str) -> str:
    """Return the file that `--config` names: a file, or else the recipe of this name.

    A recipe is named as cifar10/resnet20, cifar10/resnet20.yaml or configs/cifar10/resnet20.yaml. Raises ValueError,
    with the nearest names, if there is neither, and for a pipe, which can be read only once. A folder is returned, and
    refused when it is read; so is YAML.
    """
    if expanded(asked).is_fifo():
        raise ValueError(f"--config takes a file, and {shown(asked)} is a pipe; write its lines into a file first")
    for path in (expanded(asked), expanded(f"{asked}.yaml")):
        if path.is_file():
            return str(path)
    if (found := named(asked)) is not None:
        return str(recipes()[found])
    if expanded(asked).exists() or re.search(r":\s|^\s*\{", asked):
        return asked
    name = _plain(asked)
    if closest(name, recipes(), CLOSE) or any(name in recipe for recipe in recipes()):
        raise unknown("file or recipe", name, recipes(), "`cvcc-zoo recipes` lists them")
    raise ValueError(f"there is no file {shown(asked)}, which --config names")


def weights_alone(file: str, before: str | None) -> str | None:
    """Return the `weights` of a config file that has no model, or else those of a file `before` it."""
    config = _options(file)
    found = before if "model" in config else config.get("weights", before)
    return found if isinstance(found, str) else None


def options_alone(file: str, before: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the options of a config file for any model beside those of a file `before` it; none if it names one."""
    model = _options(file).get("model", {})
    return {**before, **options_of(model)} if isinstance(model, dict) and "class_path" not in model else {}


def has_model_alone(file: str) -> bool:
    """Return whether a config file names a model without weights, and says nothing of weights itself."""
    config = _options(file)
    model = config.get("model")
    name = model.get("class_path") if isinstance(model, dict) else model
    try:
        return isinstance(name, str) and "weights" not in config and not resolve(name).trained
    except ValueError:  # which the parser tells
        return False


def network_options_in(file: str, before: set[str] | None) -> set[str] | None:
    """Return `options_beside_networks` of the model that a config file names, or else those of a file `before` it."""
    model = _options(file).get("model")
    name = model.get("class_path") if isinstance(model, dict) else model
    try:
        return options_beside_networks(expand_model(name)[0]["class_path"]) if isinstance(name, str) else before
    except (OSError, ValueError):  # which the parser tells
        return None


def _options(file: str) -> dict[str, Any]:
    """Return the options in a config file, none if it cannot be read: the parser tells why."""
    try:
        config = yaml.safe_load(Path(file).read_text())
        return nested(config) if isinstance(config, dict) else {}
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        return {}


def named(asked: str) -> str | None:
    """Return the name of the recipe that is meant, or None."""
    return as_typed(_plain(asked), recipes())


def recipe_folder(asked: str) -> Path:
    """Return a folder of recipes: an existing one, or else that of the package, for cifar10 or configs/cifar10.

    Raises FileNotFoundError, with the nearest names, if there is none, or if there are no recipes in it.
    """
    path = expanded(asked)
    folders = {recipe.parent.name: recipe.parent for recipe in recipes().values()}
    found = as_typed(_plain(asked), folders)
    if path.is_dir():
        if not any(path.glob("*.yaml")):
            of_package = f"; those of the package are --recipes=configs/{found}" if found else "; choose another one"
            raise FileNotFoundError(f"the folder {shown(asked)} has no recipes (*.yaml){of_package}")
        return path
    if found is None:
        advice = unknown("folder of recipes", _plain(asked), folders)
        raise FileNotFoundError(f"there is no folder {shown(asked)}, and {advice}")
    return folders[found]


def _plain(asked: str) -> str:
    return asked.removeprefix("./").removeprefix("configs/").removesuffix(".yaml").rstrip("/")
