"""Names as people type them: case, "-", "_" and blanks do not matter, and what is unlike every name gets no guess."""

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

import cvcc_zoo
from cvcc_zoo import ImageDataModule, create, list_models, load
from cvcc_zoo.__main__ import main
from cvcc_zoo.cli.arguments import name_as_option
from cvcc_zoo.registry import as_typed, pick, unknown
from cvcc_zoo.zoo.catalogue import name_of, names_of
from cvcc_zoo.zoo.names import resolve
from tests.conftest import QUICK, Fit, message


def test_a_name_is_found_as_it_is_typed() -> None:
    known = ["resnet20", "cnn", "cnn_fast", "AdamW", "Adam"]
    typed = {
        "ResNet-20": "resnet20",
        "resnet_20": "resnet20",
        "CNN Fast": "cnn_fast",
        "adam-w": "AdamW",
        "ADAM": "Adam",
    }
    assert {name: as_typed(name, known) for name in typed} == typed
    assert (
        as_typed("resnet2", known) is as_typed("", known) is as_typed(3, known) is as_typed("cnn." * 99, known) is None
    )


def test_an_exact_name_wins_and_two_that_are_alike_are_not_guessed() -> None:
    assert as_typed("CNN", ["CNN", "cnn"]) == "CNN" and as_typed("cnn", ["CNN", "cnn"]) == "cnn"
    assert as_typed("Cnn", ["CNN", "cnn"]) is None
    with pytest.raises(ValueError, match="no model named 'Cnn'; did you mean"):
        pick("model", "Cnn", ["CNN", "cnn"])


def test_what_is_unlike_every_name_gets_no_nearest_one() -> None:
    assert "known are: " in str(unknown("model", "mobilenet_v2", list_models()))
    assert "did you mean resnet" in str(unknown("model", "resnet21", list_models()))


def test_models_weights_and_families_are_built_by_names_as_typed() -> None:
    model = create("ResNet-20", num_classes=3)
    assert name_of(type(model).__name__, model.hparams) == "resnet20"
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    expected = create("linear.cifar10")(images)
    for other in (create("Linear.CIFAR-10"), create("linear", pretrained="CIFAR10"), load("linear.cifar10")):
        assert torch.equal(other(images), expected)
    assert create("ResNet", depth=26).hparams["depth"] == 26
    with pytest.raises(ValueError, match="no option of ResNet named 'deep'; did you mean depth"):
        create("ResNet", deep=26)
    with pytest.raises(ValueError, match="weights belong to a named model, not to the family ResNet"):
        create("ResNet", pretrained="cifar10")


def test_published_weights_come_before_a_folder_of_images_of_that_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("cifar10").mkdir()
    for pretrained in ("cifar10", True):
        assert create("linear", pretrained=pretrained).classes == create("linear.cifar10").classes


def test_pretrained_is_not_ignored_for_a_network_of_ones_own() -> None:
    name = "torchvision.models.shufflenet_v2_x0_5"
    for pretrained in ("cifar10", True):
        with pytest.raises(ValueError, match=f"pretrained='?{pretrained}.* and {name} is a network of your own"):
            create(name, pretrained=pretrained)
    assert create(name, pretrained=False).num_classes == 10


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("cnn_small", {"dropout": 0.3}),
        ("cnn_small", {"norm": "none", "activation": "gelu"}),
        ("cnn", {"dropout": 0.3}),
        ("cnn_fast", {"activation": "gelu", "norm": "layer"}),
        ("ridge", {"ridge": 3.0}),
        ("ridge", {"features": ["HOG"]}),
        ("linear", {"ridge": None}),
        ("linear", {"features": ["HOG"]}),
        ("resnet20", {"norm": "group"}),
        ("plain20", {"norm": "group"}),
    ],
)
def test_options_that_do_not_belong_to_a_name_leave_a_model_its_name(name: str, changed: dict[str, Any]) -> None:
    assert name_of(*_shape(name, **changed)) == name


def test_options_that_belong_to_a_name_make_another_model() -> None:
    assert name_of(*_shape("CNN", channels=(32, 64, 128), convolutions=2)) == "cnn_small"
    assert names_of(*_shape("CNN", channels=(32, 64, 128), convolutions=2)) == ["cnn_small"]
    assert names_of(*_shape("cnn_small", norm="none")) == ["cnn_small", "cnn"]  # its weights may be loaded as either
    assert name_of(*_shape("ResNet", depth=26)) == "resnet" and name_of(*_shape("ridge", ridge=None)) == "linear"


def _shape(name: str, **options: Any) -> tuple[str, dict[str, Any]]:
    model = create(name, **options)
    return type(model).__name__, dict(model.hparams)


def test_a_function_of_a_script_is_named_by_main(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "__main__", ModuleType("__main__"))
    assert resolve("__main__.small").kind == "import path"


def test_a_path_with_a_drive_of_windows_is_no_address() -> None:
    with pytest.raises(FileNotFoundError, match="there is no checkpoint C:/runs/x"):
        load("C:/runs/x")


def test_optimizers_and_schedules_are_stored_under_their_own_names() -> None:
    model = create("linear", optimizer="sgd", lr_scheduler={"name": "one-cycle", "peak": 0.2})
    assert model.hparams["optimizer"] == {"name": "SGD"}
    assert model.hparams["lr_scheduler"] == {"name": "OneCycle", "peak": 0.2}


def test_the_command_line_takes_names_as_typed(fit: Fit) -> None:
    assert fit("--model=CNN-Small", "--optimizer=adamw", "--lr_scheduler=cosine") == 0
    config = Path("runs/cnn_small-colours/config.yaml").read_text()
    assert "cvcc_zoo.models.cnn.CNN" in config
    assert load("runs/cnn_small-colours").hparams["optimizer"]["name"] == "AdamW"


def test_published_weights_are_listed_by_pattern() -> None:
    assert "resnet20.cifar10" in list_models(pretrained=True) and "resnet20" in list_models()
    tens = list_models("*.cifar10", pretrained=True)
    assert "linear.cifar10" in tens and all(name.endswith(".cifar10") for name in tens)
    assert {name.partition(".")[0] for name in list_models("resnet20", pretrained=True)} == {"resnet20"}


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0 and capsys.readouterr().out == f"cvcc_zoo {cvcc_zoo.__version__}\n"
    assert "no command named 'fti'; did you mean fit" in message(capsys, ["fti"])


def test_data_sets_losses_and_augmentations_are_found_as_they_are_typed() -> None:
    data = ImageDataModule("Fashion_Mini", augmentations=["random-crop", {"name": "cutOut", "size": 4}, "Light"])
    assert data.dataset.title == "fashion-mini"
    assert [type(each).__name__ for each in data.augmentations] == [
        "RandomCrop",
        "Cutout",
        "RandomCrop",
        "HorizontalFlip",
    ]
    model = create("linear", loss="Cross-Entropy")
    assert model.hparams["loss"] == "cross_entropy"
    assert create("linear", loss={"name": "HINGE", "power": 2}).hparams["loss"] == {"name": "hinge", "power": 2}
    assert create("linear", features=["hog", "pca"]).hparams["features"][0]["name"] == "HOG"
    with pytest.raises(ValueError, match="strong is a list of augmentations and takes no options; give only its name"):
        ImageDataModule(augmentations={"name": "strong", "size": 4})


def test_a_name_may_stand_first(fit: Fit, capsys: pytest.CaptureFixture[str]) -> None:
    data = ["--data.dataset=folder", "--data.root=colours"]
    assert main(["fit", "linear", *data, *QUICK]) == 0
    run = Path("runs/linear-colours")
    expected = json.loads((run / "summary.json").read_text())["test_accuracy"]
    for name in (run, run / "best.ckpt"):
        capsys.readouterr()
        assert main(["test", str(name), *data]) == 0
        accuracy = next(line for line in capsys.readouterr().out.splitlines() if "test/accuracy" in line)
        assert float(accuracy.split("│")[2]) == pytest.approx(expected)
        assert main(["evaluate", str(name)]) == 0  # on the run's images
        assert f"{round(expected * 12)} of 12 images correct" in capsys.readouterr().out
    assert main(["evaluate", str(run), "--update_card=true"]) == 2
    assert "has no card; `cvcc-zoo publish` makes one of a run" in capsys.readouterr().err


def test_published_weights_are_evaluated_before_a_folder_of_their_name() -> None:
    for name in ("resnet20.cifar10", "mine"):
        Path(name).mkdir()
    assert name_as_option("test", ["resnet20.cifar10"]) == ["--model=resnet20.cifar10"]
    assert name_as_option("test", ["mine"]) == ["--run=mine"]
