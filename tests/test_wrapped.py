"""Networks of users as models: by class, by function, by import path, and as objects."""

import functools
import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Trainer
from torch import Tensor, nn

from cvcc_zoo import ImageClassifier, ResNet, create, load
from cvcc_zoo.__main__ import main
from cvcc_zoo.classifier.compatibility import complete
from cvcc_zoo.classifier.wrapped import _named_by_user, own_defaults, own_options, split_options
from cvcc_zoo.cli.arguments import parse, rewrite
from cvcc_zoo.cli.options import parser
from cvcc_zoo.runs.changes import changed_options
from cvcc_zoo.runs.written import read_config
from cvcc_zoo.zoo.catalogue import name_of
from tests.conftest import Fit, message

IMAGES = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
CODE = """
import torch
from torch import Tensor, nn

class Small(nn.Module):
    def __init__(self, num_classes: int, in_channels: int = 3, width: int = 4) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(in_channels, width, 3, 2)
        self.shift = torch.ones(1)  # in no state_dict
        self.head = nn.Linear(width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.convolution(x).mean((2, 3)) + self.shift)

def small(num_classes: int, width: int = 4) -> nn.Module:
    return Small(num_classes, width=width)

def bare(num_classes, width=4):
    return Small(num_classes, width=width)

def wrong(num_classes: int) -> nn.Module:
    return "not a network"
"""


class Lazy(nn.Module):
    """A network whose sizes are known after its first images."""

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.out = nn.LazyLinear(num_classes)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.out(x.flatten(1))
        return y


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A module of the user, which no other test has imported."""
    name = f"my_nets_{abs(hash(str(tmp_path)))}"
    (tmp_path / f"{name}.py").write_text(CODE)
    monkeypatch.syspath_prepend(tmp_path)
    yield __import__(name)
    _named_by_user.clear()
    sys.modules.pop(name, None)


def saved(model: ImageClassifier, path: Path) -> Path:
    model.whitening.fit(IMAGES)
    trainer = Trainer(logger=False, accelerator="cpu", enable_progress_bar=False)
    trainer.strategy.connect(model)
    trainer.save_checkpoint(path)
    _named_by_user.clear()  # as in another process
    return path


@pytest.mark.parametrize("kind", ["Small", "small", "path", "partial"])
def test_what_has_an_import_path_is_in_the_checkpoint(kind: str, module: Any, tmp_path: Path) -> None:
    path = f"{module.__name__}.Small"
    given = {"path": path, "partial": functools.partial(module.Small, width=6)}.get(kind) or getattr(module, kind)
    options = {} if kind == "partial" else {"width": 6}
    model = ImageClassifier.wrap(given, num_classes=4, image_size=16, optimizer="SGD", **options).eval()
    assert model.hparams["network"] == (f"{module.__name__}.small" if kind == "small" else path)
    assert model.hparams["network_options"] == {"width": 6} and model.hparams["optimizer"] == {"name": "SGD"}
    again = load(saved(model, tmp_path / "a.ckpt"))
    assert torch.equal(again(IMAGES), model(IMAGES)) and again.num_classes == 4
    assert torch.equal(
        create(tmp_path / "a.ckpt", num_classes=9).forward_features(IMAGES), model.forward_features(IMAGES)
    )


def test_an_object_is_given_again_when_its_weights_are_loaded(module: Any, tmp_path: Path) -> None:
    model = ImageClassifier.wrap(module.Small(4, width=5), num_classes=4, image_size=16).eval()
    path = saved(model, tmp_path / "a.ckpt")
    with pytest.raises(ValueError, match=re.escape("cvcc_zoo.load(..., network=Small())")):
        load(path)
    assert torch.equal(load(path, network=module.Small(4, width=5))(IMAGES), model(IMAGES))
    with pytest.raises(ValueError, match=r"not a complete Wrapped with its hyperparameters: .*is \(5, 3, 3, 3\), not"):
        load(path, network=module.Small(4, width=6))
    with pytest.raises(ValueError, match="has its own network"):
        load("linear.cifar10", network=module.Small(4))


def test_a_file_imports_no_module_and_calls_no_function_that_does_not_say_what_it_returns(
    module: Any, tmp_path: Path
) -> None:
    path = saved(ImageClassifier.wrap(module.bare, num_classes=4, image_size=16), tmp_path / "a.ckpt")
    with pytest.raises(ValueError, match=r"bare is not called, because the path may come from a file.*-> nn.Module"):
        load(path)
    assert load(path, network=module.bare).num_classes == 4
    for harmful in ("os.system", "subprocess.getoutput", "torch.jit.load", "torch.hub.load", "builtins.eval"):
        content = torch.load(path, weights_only=True)
        content["hyper_parameters"] |= {"network": harmful, "network_options": {"cmd": f"touch {tmp_path}/harm"}}
        torch.save(content, tmp_path / "b.ckpt")
        with pytest.raises(ValueError, match=f"{harmful}.*(is not called|is not imported)"):
            load(tmp_path / "b.ckpt")
    assert not (tmp_path / "harm").exists()
    del sys.modules[module.__name__]
    with pytest.raises(ValueError, match=rf"^the module .* is not imported.*cvcc-zoo --import={module.__name__}"):
        load(saved_again(path, module, tmp_path))


def saved_again(path: Path, module: Any, folder: Path) -> Path:
    content = torch.load(path, weights_only=True)
    content["hyper_parameters"]["network"] = f"{module.__name__}.Small"
    torch.save(content, folder / "c.ckpt")
    return folder / "c.ckpt"


def test_layers_whose_sizes_are_found_later_get_them_from_the_image_size() -> None:
    model = ImageClassifier.wrap(Lazy, image_size=16)
    assert model.network.get_submodule("out").in_features == 3 * 16 * 16


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_network_of_any_precision_gets_images_in_it(dtype: torch.dtype) -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 10)).to(dtype)
    model = ImageClassifier.wrap(network, num_classes=10, image_size=16, whitening="none")
    assert model(IMAGES).dtype == dtype


def test_networks_of_torchvision_are_wrapped_by_name(tmp_path: Path) -> None:
    with torch.device("meta"):
        model = ImageClassifier.wrap("torchvision.models.squeezenet1_1", num_classes=4, image_size=32)
    assert model.hparams["network"] == "torchvision.models.squeezenet.squeezenet1_1"
    assert name_of("Wrapped", model.hparams) == "squeezenet1_1"


def test_names_that_a_module_imports_when_they_are_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As this package and many others do (PEP 562): the module's dictionary does not have them before."""
    assert type(create("cvcc_zoo.ResNet")) is ResNet
    (tmp_path / "lazy_nets.py").write_text(
        "def __getattr__(name):\n    from torchvision.models import squeezenet\n    return getattr(squeezenet, name)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with torch.device("meta"):
        model = ImageClassifier.wrap("lazy_nets.squeezenet1_1", num_classes=4, image_size=32)
    assert model.hparams["network"] == "torchvision.models.squeezenet.squeezenet1_1"


@pytest.mark.parametrize(
    ("given", "options", "said"),
    [
        ("Smal", {}, "the module {module} has no such name"),
        ("Small", {"widht": 3}, "no option of {module}.Small named 'widht'; did you mean width"),
        ("Small", {"optimzer": "SGD"}, "named 'optimzer'; did you mean optimizer"),
        ("Small", {"in_channels": 2.5}, "in_channels must be a whole number"),
        ("Small", {"freeze": 1}, "Small does not define its parts, which freeze and layer_decay need"),
        ("wrong", {}, "wrong must return an nn.Module, not str"),
        ("Small", {"network_options": 3}, "network_options of {module}.Small are options by name"),
        (ImageClassifier, {}, "ImageClassifier is a model already"),
        (3, {}, "the network must be an nn.Module, a class of them, a function that returns one, or an import path"),
        (int, {}, "the network must be an nn.Module"),
        (nn.Identity(), {}, "Identity has no parameters"),
        (nn.Linear(3, 3), {}, "Linear does not take images of 3x32x32"),
        (nn.Sequential(nn.Flatten(), nn.Linear(3072, 5)), {}, "returns (1, 5); change the network or num_classes"),
        (nn.Sequential(nn.Flatten(), nn.Linear(3072, 10)), {"width": 3}, "named 'width'"),
    ],
)
def test_what_is_no_network_is_told(given: Any, options: dict[str, Any], said: str, module: Any) -> None:
    network = f"{module.__name__}.{given}" if isinstance(given, str) else given
    with pytest.raises(ValueError, match=re.escape(said.replace("{module}", module.__name__))):
        ImageClassifier.wrap(network, **options)


def test_the_command_line_trains_and_measures_a_network_by_its_import_path(
    fit: Fit, module: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    name = f"{module.__name__}.Small"
    assert fit(f"--model={name}", "--model.width=6") == 0
    run = Path("runs/small-colours")
    assert load(run).hparams["network_options"] == {"width": 6}
    assert fit("--config", str(run / "config.yaml"), "--run=again", "--model.network_options.width=5") == 0
    assert load("again").hparams["network_options"] == {"width": 5}
    assert main([f"--import={module.__name__}", "evaluate", str(run)]) == 0
    assert "of 12 images correct" in capsys.readouterr().out
    assert main(["test", f"--run={run}"]) == 0


def test_a_run_keeps_the_defaults_of_its_network_when_its_code_gets_others(
    fit: Fit, module: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [f"--model={module.__name__}.Small", "--run=run", "--ckpt_path=last"]
    assert fit(*words) == 0
    module.Small.__init__.__defaults__ = (3, 6)  # in_channels and width
    assert read_config(Path("run"))["model"]["init_args"]["network_options"] == {"width": 4}
    assert load("run").hparams["network_options"] == {"width": 4} and main(["test", "--run=run"]) == 0
    assert fit(*words) == 2
    assert "network_options={'width': 4}, but this one has network_options={'width': 6}" in capsys.readouterr().err


def whole_model(network: str, options: str) -> str:
    """The config of a model around a network."""
    path = "cvcc_zoo.classifier.wrapped.Wrapped"
    return f"model: {{class_path: {path}, init_args: {{network: {network}, network_options: {options}}}}}"


def test_a_config_without_the_defaults_of_a_network_is_that_with_them(module: Any) -> None:
    name = f"{module.__name__}.Small"
    before, now = whole_model(name, "null"), whole_model(name, "{width: 4}")
    assert not changed_options(before, now) and changed_options(before, now.replace("4", "5"))
    old = {"network": name, "network_options": None}
    assert complete("Wrapped", old)["network_options"] == {"width": 4}


def test_defaults_that_files_can_hold_are_options_of_a_network_and_tuples_stay_tuples() -> None:
    class Layers(nn.Sequential):
        def __init__(self, sizes: Any = (8, 10), layer: Any = nn.Linear, slope: float = math.inf, *more: Any) -> None:
            assert isinstance(sizes, tuple)
            super().__init__(nn.Flatten(), layer(3 * 16 * 16, sizes[0]), nn.Linear(*sizes))

    assert own_defaults(Layers) == {"sizes": [8, 10]}
    assert ImageClassifier.wrap(Layers, image_size=16).network.get_submodule("2").in_features == 8


def test_an_option_that_a_network_names_is_no_misspelling_although_it_takes_others_too() -> None:
    def network(num_classes: int, optimise: bool = False, **options: Any) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, num_classes, **options))

    names, any_name = own_options(network)
    for option in ("optimise", "bias"):
        assert split_options("network", {option: False}, None, names, any_name=any_name) == ({}, {option: False})
    with pytest.raises(ValueError, match="no option of network named 'optimiser'; did you mean optimi"):
        split_options("network", {"optimiser": "SGD"}, None, names, any_name=any_name)
    assert ImageClassifier.wrap(network, image_size=16, bias=False).network.get_submodule("1").bias is None


def test_an_option_of_a_network_is_changed_on_top_of_a_config(module: Any) -> None:
    name = f"{module.__name__}.Small"
    given = {
        f"model: {name}": "width",
        whole_model(name, "{width: 4}"): "width",
        "model: timm.test_resnet": "drop_rate",
    }
    for text, option in given.items():
        Path("a.yaml").write_text(text)
        options = parse(parser("fit"), rewrite(["--config=a.yaml", f"--model.{option}=1"], "fit")).model.init_args
        assert options.network_options == {option: 1}


def test_options_that_only_show_help_are_not_among_those_that_a_message_lists(
    capsys: pytest.CaptureFixture[str],
) -> None:
    listed = message(capsys, ["fit", "--model=linear", "--model.qqqqqq=1"])
    assert "known are: " in listed and not re.search(
        r"\bh(elp)?\b", listed.partition("known are: ")[2].partition("(")[0]
    )


def test_an_import_path_has_a_module() -> None:
    with pytest.raises(ValueError, match=r"such as my_nets.Small, not 'Small'"):
        ImageClassifier.wrap("Small")
    with pytest.raises(ValueError, match="Linear is a model already"):
        ImageClassifier.wrap(create("linear"))


def test_the_command_line_tells_what_cannot_be_imported(module: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no model at the import path" in message(capsys, ["fit", f"{module.__name__}.Smal"])
    assert "--import=nowhere cannot be imported" in message(capsys, ["--import=nowhere", "evaluate", "runs/x"])


@pytest.mark.parametrize(
    "words",
    [["--import=a,b", "list"], ["--imports=a", "list"], ["--import"], ["fit", "--import=a"], ["list", "--import", "a"]],
)
def test_modules_are_imported_one_by_one_before_the_command(
    words: list[str], module: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--import", module.__name__, f"--import={module.__name__}", "list", "linear"]) == 0
    assert "write --import=MODULE before the command, once for each module: cvcc-zoo" in message(capsys, words)


@pytest.mark.slow
def test_a_config_names_a_module_in_the_folder_where_the_command_is_started(fit: Fit, tmp_path: Path) -> None:
    (tmp_path / "here_nets.py").write_text(CODE)
    (tmp_path / "configs").mkdir()
    Path("configs/mine.yaml").write_text("model: here_nets.Small\n")
    flags = ["--trainer.fast_dev_run=1", "--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"]
    words = [sys.executable, "-m", "cvcc_zoo", "fit", "--config=configs/mine.yaml", *flags]
    root = str(Path(__file__).parents[1])
    done = subprocess.run(words, env={"PYTHONPATH": root, "PATH": ""}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
