"""Every recipe opens with what a reader wants to know, and trains unchanged on an image folder."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from cvcc_zoo.__main__ import main
from cvcc_zoo.zoo.creation import load
from tests.conftest import MakeFolder

ROOT = Path(__file__).parents[1]
RECIPES = sorted((ROOT / "configs").glob("*/*.yaml"))


def settings(path: Path) -> Any:
    """A recipe without the name of its data set."""
    recipe = yaml.safe_load(path.read_text())
    del recipe["data"]["dataset"]
    return recipe


def is_that_of_cifar10(path: Path) -> bool:
    """Whether a recipe of CIFAR-100 has nothing of its own."""
    other = path.parents[1] / "cifar10" / path.name
    return path.parent.name == "cifar100" and settings(path) == settings(other)


OWN = [path for path in RECIPES if not is_that_of_cifar10(path)]


def test_there_is_a_recipe_for_every_family() -> None:
    names = {f"{path.parent.name}/{path.stem}" for path in RECIPES}
    families = ("linear", "fcnn", "cnn", "resnet20", "wrn16_4", "resnext29_32x4d", "resnext20_16x4d")
    assert names >= {f"cifar10/{name}" for name in families}
    assert names >= {f"fashion_mnist/{name}" for name in ("linear", "fcnn", "cnn")}
    assert names >= {f"linear/{name}" for name in ("ridge", "hinge", "hog", "patches")}
    both = ("linear", "fcnn", "cnn", "cnn_fast", "resnet20", "resnet56", "resnet18", "wrn16_4", "resnext29_32x4d")
    assert names >= {f"{dataset}/{name}" for dataset in ("cifar10", "cifar100") for name in both}


@pytest.mark.parametrize("path", [path for path in RECIPES if path.parent.name == "cifar100"], ids=lambda p: p.stem)
def test_a_recipe_of_cifar100_says_if_its_settings_are_those_of_cifar10(path: Path) -> None:
    assert yaml.safe_load(path.read_text())["data"]["dataset"] == "cifar100"
    assert (f"are those of cifar10/{path.name}" in path.read_text()) == is_that_of_cifar10(path)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_recipe_opens_with_its_command_accuracy_time_and_hardware(path: Path) -> None:
    head = [line for line in path.read_text().splitlines() if line.startswith("#")]
    assert head[0] == f"# cvcc-zoo fit --config configs/{path.parent.name}/{path.name}"
    words = " ".join(head[1:])
    assert "test accuracy" in words and "images/s" in words and "two cores" in words


@pytest.mark.parametrize("path", OWN, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_recipe_trains_unchanged_on_an_image_folder(path: Path, make_folder: MakeFolder) -> None:
    recipe = yaml.safe_load(path.read_text())
    model = recipe["model"] if isinstance(recipe["model"], str) else recipe["model"]["class_path"]
    if path.parent.name == "linear":  # ways to fit one model to one data set
        assert model in ("linear", "ridge") and recipe["data"]["dataset"] == "cifar10"
    else:
        dataset = "cifar10" if path.parent.name == "fast" else path.parent.name
        assert model == path.stem and recipe["data"]["dataset"] == dataset
    smaller = {"progressive_resizing", "progressive_cropping"} & recipe["data"].keys()
    root = make_folder(size=32 if smaller else 16)
    folder = ["--data.dataset=folder", f"--data.root={root}"]
    quick = ["--trainer.max_epochs=1", "--trainer.enable_progress_bar=false", "--trainer.accelerator=cpu"]
    if path.stem == "patches":  # of 80 images, which have no 400 patches to choose from
        quick.append("--model.features=[{name: Patches, filters: 20}, Standardize]")
    assert main(["fit", "--config", str(path), *folder, *quick, "--run=run"]) == 0
    trained = load("run").hparams
    assert trained["optimizer"] == recipe.get("optimizer") or model == "ridge"
    if path.parent.name not in ("linear", "fast"):  # its weights are published under this name
        assert json.loads(Path("run/summary.json").read_text())["model"] == model
