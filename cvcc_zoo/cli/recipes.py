"""Recipes by name, such as cifar10/resnet20: files of options in the package, whose heads say what to expect."""

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from cvcc_zoo.cli.files import is_yaml, options_in
from cvcc_zoo.files.own import expanded, shown
from cvcc_zoo.registry import CLOSE, as_typed, closest, unknown

PLACES = (Path(__file__).parents[1] / "recipes", Path(__file__).parents[2] / "configs")
"""The folder of the recipes in an installed package, and in a checkout."""
FORMS = {
    "# test accuracy: 91.23 %": r"# test accuracy: (?P<accuracy>\d+\.\d\d %|not measured)(?:, .+)?",
    "# time: 2.5 hours, 560 images/s": (
        r"# time: (?P<time>[\d,.]+ (?:s|minutes?|hours?)(?: an epoch)?)(?: after compilation)?, "
        r"(?:about )?[\d,.]+ images/s"
    ),
    "# hardware: four cores, no GPU": r"# hardware: (?P<hardware>[^,]+)(?:, .+)?",
}
"""An example and the form of the lines after the first, which is the command."""


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
    """Return what the head of a recipe says. Raises ValueError for the first line that does not have its form."""
    path, command = recipes()[name], f"# cvcc-zoo fit --config configs/{name}.yaml"
    lines = [*path.read_text(encoding="utf-8").splitlines(), "", "", "", ""]
    said: dict[str, str] = {}
    for number, (example, form) in enumerate({command: re.escape(command), **FORMS}.items()):
        if (found := re.fullmatch(form, lines[number])) is None:
            raise ValueError(f"line {number + 1} of {shown(path)} is {lines[number]!r}; write it like {example!r}")
        said |= found.groupdict()
    trainer = options_in(str(path)).get("trainer")
    epochs = trainer.get("max_epochs", "-") if isinstance(trainer, dict) else "-"
    return Recipe(name, epochs=str(epochs), **said)


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
    if expanded(asked).exists() or is_yaml(asked):
        return asked
    name = _plain(asked)
    if closest(name, recipes(), CLOSE) or any(name in recipe for recipe in recipes()):
        raise unknown("file or recipe", name, recipes(), "`cvcc-zoo recipes` lists them")
    raise ValueError(f"there is no file {shown(asked)}, which --config names")


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
