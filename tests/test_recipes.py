"""Every recipe opens with what a reader wants to know, and trains unchanged on an image folder."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from cvcc_zoo.__main__ import main
from cvcc_zoo.classifier.compatibility import complete
from cvcc_zoo.cli.arguments import parse, rewrite
from cvcc_zoo.cli.choices import OF_IMAGES, SAID_ELSEWHERE
from cvcc_zoo.cli.lightning import build
from cvcc_zoo.cli.options import parser
from cvcc_zoo.cli.recipes import config_file, read_head, recipe_folder, recipes
from cvcc_zoo.weights.card import list_cards, model_and_tag, read_card
from cvcc_zoo.zoo.catalogue import describe, name_of
from cvcc_zoo.zoo.creation import load
from tests.conftest import MakeFolder, message

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


def label(path: Path) -> str:
    """The name of a recipe: cifar10/resnet20."""
    return f"{path.parent.name}/{path.stem}"


OWN = [path for path in RECIPES if not is_that_of_cifar10(path)]
TRAINED = {  # one of each family, and every way to fit a linear classifier; the others are slow
    "cifar10/fcnn", "cifar10/resnet20", "cifar10/resnext20_16x4d", "cifar10/wrn16_4", "fast/cnn_fast",
    "linear/hinge", "linear/hog", "linear/patches", "linear/ridge",
}  # fmt: skip


def test_there_is_a_recipe_for_every_family() -> None:
    names = {label(path) for path in RECIPES}
    families = ("linear", "fcnn", "cnn", "resnet20", "wrn16_4", "resnext29_32x4d", "resnext20_16x4d")
    assert names >= {f"cifar10/{name}" for name in families}
    assert names >= {f"fashion_mnist/{name}" for name in ("linear", "fcnn", "cnn")}
    assert names >= {f"linear/{name}" for name in ("ridge", "hinge", "hog", "patches")}
    both = ("linear", "fcnn", "cnn", "cnn_fast", "resnet20", "resnet56", "resnet18", "wrn16_4", "resnext29_32x4d")
    assert names >= {f"{dataset}/{name}" for dataset in ("cifar10", "cifar100") for name in both}


def test_a_recipe_of_every_family_is_trained_quickly() -> None:
    families = {label(path): describe(checked(path)[1])[0] for path in OWN}
    assert {families[name] for name in TRAINED} == set(families.values()), "add a recipe to TRAINED"


def test_recipes_of_cifar100_say_if_their_settings_are_those_of_cifar10() -> None:
    wrong = []
    for path in (path for path in RECIPES if path.parent.name == "cifar100"):
        if yaml.safe_load(path.read_text())["data"]["dataset"] != "cifar100":
            wrong.append(f"{path.name} trains on another data set")
        if (f"are those of cifar10/{path.name}" in path.read_text()) != is_that_of_cifar10(path):
            wrong.append(f"{path.name} says wrongly whether its settings are those of cifar10/{path.name}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("path", RECIPES, ids=label)
def test_recipes_open_with_their_command_accuracy_time_and_hardware(path: Path) -> None:
    head = read_head(label(path))
    assert recipes()[label(path)] == path and head.hardware
    assert head.epochs == str(yaml.safe_load(path.read_text()).get("trainer", {}).get("max_epochs", "-"))
    assert max(map(len, path.read_text().splitlines())) <= 120


HEAD = """# cvcc-zoo fit --config configs/cifar10/mine.yaml
# test accuracy: 91.23 %
# time: 2.5 hours, 560 images/s
# hardware: four cores, no GPU
"""


@pytest.mark.parametrize(
    ("line", "wrong"),
    [("# cvcc-zoo fit", "# cvcc fit"), ("91.23 %", "91 %"), ("2.5 hours", "2.5 h"), ("# hardware: four cores", "")],
)
def test_a_recipe_without_a_head_is_named_with_its_wrong_line_below_the_others(
    line: str, wrong: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = {"cifar10/mine": tmp_path / "mine.yaml", "cifar10/resnet20": ROOT / "configs/cifar10/resnet20.yaml"}
    for module in ("commands", "cli"):
        monkeypatch.setattr(f"cvcc_zoo.{module}.recipes.recipes", lambda: found)
    found["cifar10/mine"].write_text(f"{HEAD}model: [\n")
    assert main(["recipes"]) == 0 and "2.5 hours   four cores" in capsys.readouterr().out
    found["cifar10/mine"].write_text(HEAD.replace(line, wrong))
    assert main(["recipes"]) == 2
    out, error = capsys.readouterr()
    assert "cifar10/resnet20" in out and "mine" not in out
    number, form = next((number, form) for number, form in enumerate(HEAD.splitlines(), start=1) if line in form)
    assert f"line {number} of" in error and f"; write it like '{form}'" in error


def test_recipes_of_published_weights_have_the_options_of_their_models() -> None:
    for name, path in list_cards().items():
        model, tag = model_and_tag(name)
        if (recipe := ROOT / f"configs/{tag}/{model}.yaml").exists():
            card = read_card(path)
            there = complete(card.family, card.hparams)
            made = parse(parser("fit"), rewrite([f"--config={recipe}"], "fit")).model.init_args.as_dict()
            options = made.keys() - {*OF_IMAGES, *SAID_ELSEWHERE}
            assert {key: made[key] for key in options} == {key: there[key] for key in options}, name


def test_a_recipe_is_found_by_every_form_of_its_name_and_a_file_of_the_same_name_wins(tmp_path: Path) -> None:
    own = ROOT / "configs/cifar10/resnet20.yaml"
    for name in ("cifar10/resnet20", "cifar10/resnet20.yaml", "configs/cifar10/resnet20.yaml", "CIFAR-10/ResNet20"):
        assert config_file(name) == str(own)
    Path("cifar10").mkdir()
    Path("cifar10/resnet20.yaml").touch()
    assert config_file("cifar10/resnet20") == config_file("cifar10/resnet20.yaml") == "cifar10/resnet20.yaml"
    assert recipe_folder("configs/cifar100") == recipe_folder("cifar100") == ROOT / "configs/cifar100"
    assert recipe_folder("cifar10") == Path("cifar10")


def test_a_config_that_is_no_file_is_told_as_what_it_is() -> None:
    Path("runs/resnet20").mkdir(parents=True)
    assert config_file("runs/resnet20") == "runs/resnet20"  # which the parser calls a folder
    assert config_file('{"model":"linear"}') == '{"model":"linear"}'  # which it parses
    with pytest.raises(ValueError, match=r"there is no file \*\.yaml, which --config names"):
        config_file("*.yaml")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="absent")
def test_a_config_from_a_pipe_is_refused_as_it_would_be_read_twice() -> None:
    os.mkfifo("pipe")
    with pytest.raises(ValueError, match="--config takes a file, and pipe is a pipe; write its lines into a file"):
        config_file("pipe")


def test_fit_takes_a_recipe_by_name(colours: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = ["--data.dataset=folder", f"--data.root={colours}"]
    for flag in (["--config", "fashion_mnist/linear"], ["-c=configs/fashion_mnist/linear.yaml"]):
        assert build([*flag, *folder]).config.data.batch_size == 512
    assert "did you mean fashion_mnist/linear" in message(capsys, ["fit", "--config=fashion_mnist/liner"])
    assert "runs/x/config.yaml, which --config names" in message(capsys, ["fit", "--config=runs/x/config.yaml"])
    assert main(["recipes", "CIFAR-10"]) == 0 and "cifar10/resnet20" in capsys.readouterr().out
    train_zoo = ["train-zoo", "--recipes=cifar1000"]
    assert "no folder of recipes named 'cifar1000'; did you mean cifar100" in message(capsys, train_zoo)


def test_the_list_of_recipes_has_all_of_them_and_prints_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes"]) == 0
    rows = capsys.readouterr().out.splitlines()
    for path in RECIPES:
        assert any(line.split()[:1] == [label(path)] for line in rows)
    assert max(map(len, rows)) <= 80
    assert main(["recipes", "fashion_mnist"]) == 0
    assert "cifar10" not in capsys.readouterr().out
    assert main(["recipes", "cifar10/resnet20"]) == 0
    assert capsys.readouterr().out == (ROOT / "configs/cifar10/resnet20.yaml").read_text()
    assert "no recipe named 'cifar10/resnt20'; did you mean cifar10/resnet20" in message(
        capsys, ["recipes", "cifar10/resnt20"]
    )


def checked(path: Path) -> tuple[Any, str]:
    """A recipe and the name of its model, which is that of its file unless its folder is about something else."""
    recipe = yaml.safe_load(path.read_text())
    model = recipe["model"] if isinstance(recipe["model"], str) else recipe["model"]["class_path"]
    if path.parent.name == "linear":  # ways to fit one model to one data set
        assert model in ("linear", "ridge") and recipe["data"]["dataset"] == "cifar10"
    else:
        dataset = "cifar10" if path.parent.name == "fast" else path.parent.name
        assert model == path.stem and recipe["data"]["dataset"] == dataset
    return recipe, model


@pytest.mark.parametrize("path", [path for path in OWN if label(path) not in TRAINED], ids=label)
def test_a_recipe_builds_its_model_and_optimizer_for_an_image_folder(path: Path, make_folder: MakeFolder) -> None:
    """The others are trained below."""
    recipe, model = checked(path)
    smaller = {"progressive_resizing", "progressive_cropping"} & recipe["data"].keys()
    root = make_folder(size=32 if smaller else 16)
    built = build(["--config", str(path), "--data.dataset=folder", f"--data.root={root}"]).model
    assert built.hparams["optimizer"] == recipe.get("optimizer") or model == "ridge"
    if path.parent.name not in ("linear", "fast"):  # its weights are published under this name
        assert name_of(type(built).__name__, built.hparams) == model


@pytest.mark.parametrize(
    "path",
    [path if label(path) in TRAINED else pytest.param(path, marks=pytest.mark.slow) for path in OWN],
    ids=label,
)
def test_a_recipe_trains_unchanged_on_an_image_folder(path: Path, make_folder: MakeFolder) -> None:
    recipe, model = checked(path)
    smaller = {"progressive_resizing", "progressive_cropping"} & recipe["data"].keys()
    root = make_folder(size=32 if smaller else 16)
    folder = ["--data.dataset=folder", f"--data.root={root}"]
    quick = ["--trainer.max_epochs=1", "--trainer.enable_progress_bar=false", "--trainer.accelerator=cpu"]
    if path.stem == "patches":  # of 80 images, which have no 400 patches to choose from
        quick.append("--model.features=[{name: Patches, filters: 20}, Standardize]")
    assert main(["fit", "--config", str(path), *folder, *quick, "--run=run"]) == 0
    trained = load("run").hparams
    assert trained["optimizer"] == recipe.get("optimizer") or model == "ridge"
    if path.parent.name not in ("linear", "fast"):
        assert json.loads(Path("run/summary.json").read_text())["model"] == model
