"""A name stands for the same thing wherever a model is asked for."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Trainer
from torch import nn

import cvcc_zoo
from cvcc_zoo import create, load
from cvcc_zoo.__main__ import main
from cvcc_zoo.classifier.compatibility import complete
from cvcc_zoo.cli.arguments import parse, rewrite
from cvcc_zoo.cli.expansion import expand_model
from cvcc_zoo.cli.options import parser
from cvcc_zoo.inspection.subjects import find_subject
from cvcc_zoo.registry import ENTRIES, Entry, register
from cvcc_zoo.weights.card import PUBLISHED
from cvcc_zoo.zoo.catalogue import architecture, describe
from cvcc_zoo.zoo.names import resolve, resolve_trained
from cvcc_zoo.zoo.trained import find_trained
from tests.conftest import Fit, message

IMAGES = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("name", "kind", "found"),
    [
        ("resnet20", "model", "resnet20"),
        ("ResNet-20", "model", "resnet20"),
        ("resnext29", "model", "resnext29_32x4d"),
        ("ResNet", "family", "ResNet"),
        ("wideresnet", "family", "WideResNet"),
        ("resnet20.cifar10", "card", "resnet20.cifar10"),
        ("ResNet-20.CIFAR-10", "card", "resnet20.cifar10"),
        ("resnext29.cifar10", "card", "resnext29_32x4d.cifar10"),
        ("pets.json", "card", "pets"),
        ("a/pets.safetensors", "card", "pets"),
        ("runs/linear", "checkpoint", "runs/linear"),
        ("./resnet20", "checkpoint", "resnet20"),
        ("best.ckpt", "checkpoint", "best.ckpt"),
        (Path("mine"), "checkpoint", "mine"),
        ("my_package.MyNet", "import path", "my_package.MyNet"),
    ],
)
def test_a_name_stands_for_one_thing(name: str | Path, kind: str, found: str, tmp_path: Path) -> None:
    source = resolve(name)
    assert (source.kind, source.name) == (kind, found) and source.trained == (kind in ("card", "checkpoint"))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet21", "no model named 'resnet21'; did you mean .*resnet20"),
        ("resnet20.cifar", "no published weight named 'resnet20.cifar'; did you mean resnet20.cifar10"),
        (20, "a model has a name, not 20"),
    ],
)
def test_what_stands_for_nothing_is_answered_with_the_nearest_names(name: str, message: str) -> None:
    for take in (resolve, resolve_trained, create, load, find_trained):
        with pytest.raises(ValueError, match=message):
            take(name)


def test_a_model_without_weights_is_told_from_one_with_weights(tmp_path: Path) -> None:
    Path("cnn_small").mkdir()
    for take in (load, find_trained, resolve_trained):
        with pytest.raises(ValueError, match=r"resnet20 is a model without weights; did you mean resnet20\.cifar10"):
            take("resnet20")
        with pytest.raises(ValueError, match=r"cnn_small is a model without weights; .*folder of this name is \./cnn"):
            take("cnn_small")


def test_published_weights_come_before_a_folder_of_their_name(fit: Fit) -> None:
    Path("linear.cifar10").mkdir()
    assert create("linear.cifar10").image_size == load("linear.cifar10").image_size == 32
    assert find_trained("linear.cifar10").dataset == "CIFAR-10"
    assert find_subject("linear.cifar10", {}).trained
    assert expand_model("linear.cifar10")[1] == "linear.cifar10"


def test_every_way_to_name_a_run_gives_its_model(fit: Fit, caplog: pytest.LogCaptureFixture) -> None:
    assert fit("--model=linear", "--trainer.max_epochs=1", "--run=mine") == 0
    expected = load("mine")(IMAGES)
    for name in ("mine", "./mine", "mine/best.ckpt", Path("mine")):
        for take in (create, load, lambda name: find_trained(name).model):
            assert torch.equal(take(name)(IMAGES), expected) and take(name).device.type == "cpu"
    assert create("mine", num_classes=5)(IMAGES).shape == (2, 5)
    assert fit("--model=mine", "--run=further", "--trainer.max_epochs=1") == 0
    assert "Starts from the weights mine, with their classifier" in caplog.text
    assert main(["describe", "mine"]) == 0 and main(["evaluate", "mine"]) == 0


def test_the_current_folder_may_be_a_run(fit: Fit, colours: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert fit("--model=linear", "--trainer.max_epochs=1", "--run=mine") == 0
    expected = load("mine")(IMAGES)
    monkeypatch.chdir("mine")
    for name in (".", "./", Path()):
        assert torch.equal(load(name)(IMAGES), expected) and find_trained(name).name == "mine"
    assert main(["predict", ".", str(colours / "test/red/000.png")]) == 0
    titles: list[str] = []
    monkeypatch.setattr("cvcc_zoo.runs.figures.write_picture", lambda path, figure: None)
    monkeypatch.setattr("cvcc_zoo.runs.figures.plot_curves", lambda metrics, title: titles.append(title))
    longer = ["--trainer.max_epochs=2", "--allow_changes=true"]
    assert main(["fit", "--config=config.yaml", "--ckpt_path=last", *longer]) == 0
    assert set(titles) == {"mine"}


def test_weights_are_found_by_their_card_and_by_their_file(tmp_path: Path) -> None:
    for ending in (".json", ".safetensors"):
        shutil.copy(PUBLISHED / f"linear.cifar10{ending}", tmp_path)
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    expected = create("linear.cifar10")(images)
    for name in (tmp_path / "linear.cifar10.json", str(tmp_path / "linear.cifar10.safetensors")):
        assert torch.equal(create(name)(images), expected) and torch.equal(load(name)(images), expected)
        assert find_trained(name).name == "linear.cifar10"


def test_weights_that_belong_to_a_name_are_not_asked_for_twice(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="already names its weights; leave pretrained='cifar100' out"):
        create("linear.cifar10", pretrained="cifar100")
    said = message(capsys, ["fit", "--model=resnet20.cifar"])
    assert "no published weight named 'resnet20.cifar'" in said


def test_the_table_of_models_says_what_is_built() -> None:
    for name, entry in ENTRIES.items():
        with torch.device("meta"):
            model = create(name)
        options = complete(type(model).__name__, dict(model.hparams))
        own = {option: options[option] for option in entry.options}
        assert describe(name) == (type(model).__name__, architecture(options) | own), name
        assert entry.family is type(model)


def test_a_name_stands_for_the_same_options_in_python_on_the_command_line_and_in_a_file() -> None:
    for name, entry in ENTRIES.items():
        with torch.device("meta"):
            built = create(name)
        wanted = complete(type(built).__name__, dict(built.hparams))
        options = expand_model(name)[0]["init_args"]
        assert options.items() <= wanted.items() and entry.options.keys() <= options.keys(), name
        if entry.defaults:
            Path("model.yaml").write_text(f"model: {{class_path: {name}}}")
            for words in ([f"--model={name}"], ["--config=model.yaml"]):
                model = parse(parser("fit"), rewrite(words, "fit")).model
                assert {option: model.init_args[option] for option in options} == options, words


def test_all_options_that_belong_to_a_name_are_those_of_its_model_but_what_data_and_training_give(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loss, given = {"name": "cross_entropy", "label_smoothing": 0.1}, {"in_channels": 1, "optimizer": "SGD"}
    entry = Entry("eased", cvcc_zoo.FCNN, "", 1, {"hidden": (8, 8), **given}, {"loss": loss, "freeze": 1})
    monkeypatch.setitem(ENTRIES, "eased", entry)
    model = parse(parser("fit"), rewrite(["--model=eased"], "fit")).model.init_args
    assert (model.hidden, model.loss, model.freeze) == ([8, 8], loss, 1)


def test_a_model_by_name_has_no_first_weights_of_the_model_before_it() -> None:
    Path("model.yaml").write_text("model: {class_path: resnet20, init_args: {norm: none, init: fixup}}")
    for words in (["--model=cnn_fast", "--model=cnn"], ["--config=model.yaml", "--model=ResNet"]):
        model = parse(parser("fit"), rewrite(words, "fit")).model.init_args
        assert (model.init, model.norm) == ("kaiming", "batch"), words


class Tied(cvcc_zoo.ImageClassifier):
    """Two layers with one weight, and tensors that are in no state_dict."""

    def __init__(self, scale: float, **options: Any) -> None:
        super().__init__(**options)
        self.network = nn.Sequential(nn.Flatten(), nn.Linear(192, 192), nn.Linear(192, 192), nn.Linear(192, 3))
        self.network[2].weight = self.network[1].weight
        self.network.register_buffer("scale", torch.tensor(scale), persistent=False)
        self.parts = [torch.ones(1), *self.network.parameters()]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.network(self.whitening(images)) * self.network.get_buffer("scale") * self.parts[0]
        return logits


def test_families_of_users_come_back_as_they_are_built(tmp_path: Path) -> None:
    model = Tied(2.0, num_classes=3, image_size=8)
    model.whitening.fit(IMAGES)
    trainer = Trainer(accelerator="cpu", logger=False, barebones=True)
    trainer.strategy.connect(model)
    trainer.save_checkpoint("tied.ckpt", weights_only=True)
    found = load("tied.ckpt")
    assert torch.equal(found(IMAGES), model.eval()(IMAGES))
    assert len(list(found.parameters())) == len(list(model.parameters())) == 5
    with pytest.raises(ValueError, match="Tied needs the option scale"):
        create("Tied")


class Reading(cvcc_zoo.ImageClassifier):
    """A network whose constructor looks at values of tensors."""

    def __init__(self, depth: int = 2, *, step: float = 1.0, **options: Any) -> None:
        super().__init__(**options)
        rates = torch.linspace(0, step, depth).tolist()
        first = nn.Linear(192, 192)
        layers = [layer for rate in rates for layer in (nn.Linear(192, 192), nn.Dropout(rate / 2))]
        self.network: nn.Sequential = nn.Sequential(nn.Flatten(), first, *layers, nn.Linear(192, self.num_classes))
        if first.weight.sum() == 0:
            raise ValueError("the weights are zero")


def test_families_whose_constructor_reads_tensors_come_back(tmp_path: Path) -> None:
    model = Reading(3, step=0.5, num_classes=3, image_size=8)
    model.whitening.fit(IMAGES)
    trainer = Trainer(accelerator="cpu", logger=False, barebones=True)
    trainer.strategy.connect(model)
    trainer.save_checkpoint("reading.ckpt", weights_only=True)
    found = load("reading.ckpt")
    assert torch.equal(found(IMAGES), model.eval()(IMAGES)) and found.device.type == "cpu"
    assert len([*create("Reading", depth=4, step=0.1).network.children()]) == 11
    content = torch.load("reading.ckpt", weights_only=True)
    content["hyper_parameters"]["depth"] = 2000
    torch.save(content, "deep.ckpt")
    with pytest.raises(ValueError, match=r"deep\.ckpt is not a complete Reading: a network with these hyperparameters"):
        load("deep.ckpt")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "mine", "family": nn.Linear}, "is not a model family; derive a class from cvcc_zoo.ImageClassifier"),
        (
            {"name": "mine", "family": cvcc_zoo.ResNet, "deep": 8},
            "no option of ResNet named 'deep'; did you mean",
        ),
        ({"name": "Res Net", "family": cvcc_zoo.ResNet}, "'Res Net' is not a name of a model"),
        ({"name": "my.net", "family": cvcc_zoo.ResNet}, "'my.net' is not a name of a model"),
        ({"name": "ResNet-20", "family": cvcc_zoo.ResNet}, "'ResNet-20' is taken by a ResNet"),
        ({"name": "mine", "family": cvcc_zoo.ResNet, "alias": "linear"}, "'linear' is taken by a Linear"),
    ],
)
def test_what_cannot_be_registered_is_refused(options: dict[str, Any], message: str) -> None:
    before = dict(ENTRIES)
    with pytest.raises(ValueError, match=re.escape(message)):
        register(summary="x", parameters=1, **options)
    assert before == ENTRIES


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "no model named ''"),
        ("a" * 300, "no model named 'aaa"),
        ("~nobody-here/x", "there is no checkpoint ~nobody-here/x"),
        ("https://host/a.json", "https://host/a.json is not hf://owner/name; download the card"),
        ("my_package.MyNet", "no trained model named 'my_package.MyNet'"),
        ("Linear", r"Linear is a model without weights; did you mean linear.cifar10"),
    ],
)
def test_odd_names_are_answered_in_words(name: str, message: str) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=re.escape(message)):
        load(name)


def test_a_folder_with_one_card_and_the_stem_of_a_card_are_weights(tmp_path: Path) -> None:
    for ending in (".json", ".safetensors"):
        shutil.copy(PUBLISHED / f"linear.cifar10{ending}", tmp_path)
    for name in (tmp_path, f"{tmp_path}/linear.cifar10"):
        assert resolve(name).path == tmp_path / "linear.cifar10.json"
    assert create("linear", pretrained="linear.cifar10").classes == create("linear.cifar10").classes
    with pytest.raises(ValueError, match=r"linear\.cifar10 holds a linear, not a resnet20"):
        create("resnet20", pretrained="linear.cifar10")
    with pytest.raises(ValueError, match=r"linear\.cifar10 has weights; for a model without them"):
        create("linear.cifar10", pretrained=False)


def test_a_convolution_that_whitens_patches_stays_frozen_in_loaded_models(fit: Fit) -> None:
    options = ["--model=cnn_small", "--model.patch_whitening=0.01", "--trainer.max_epochs=1", "--run=patches"]
    assert fit(*options) == 0
    trained = [p.requires_grad for p in load("patches").parameters()]
    assert trained.count(False) == 1


@pytest.mark.parametrize("act", [create, load])
def test_one_network_is_built(act: Callable[[str], object], monkeypatch: pytest.MonkeyPatch) -> None:
    from cvcc_zoo.models.wide_resnet import WideResNetNetwork

    built, init = [], WideResNetNetwork.__init__

    def counted(self: WideResNetNetwork, *args: Any) -> None:
        built.append(1)
        init(self, *args)

    monkeypatch.setattr(WideResNetNetwork, "__init__", counted)
    act("wrn16_4.cifar10")
    assert len(built) == 1


def test_a_network_that_whitens_patches_is_fine_tuned_and_tested_from_the_command_line(
    fit: Fit, colours: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    still = ["--optimizer=SGD", "--optimizer.lr=0", "--lr_scheduler=null", "--trainer.limit_train_batches=1"]
    still += ["--test=false", "--data.image_size=10"]
    assert fit("--model=cnn_fast.cifar10", *still, "--run=tuned") == 0
    assert fit("--model=tuned", *still, "--run=again") == 0
    published = create("cnn_fast.cifar10", num_classes=2, image_size=10)
    for run in ("tuned", "again"):
        model = load(run)
        assert model.num_classes == 2 and model.hparams["patch_whitening"] == published.hparams["patch_whitening"]
        for name, weight in published.network.named_parameters():
            assert name.startswith("fc.") or torch.equal(model.network.get_parameter(name), weight), name
    words = ["test", "--model=cnn_fast.cifar10", "--data.dataset=folder", f"--data.root={colours}"]
    assert "were trained on other classes than those of colours" in message(capsys, [*words, "--data.image_size=10"])


def test_published_weights_keep_the_eps_of_their_patches_beside_that_of_a_file() -> None:
    Path("model.yaml").write_text("model: {class_path: cnn_fast, init_args: {patch_whitening: 0.01}}")
    for name, eps in (("cnn_fast.cifar100", 0.0005), ("cnn_fast", 0.01)):
        words = ["--config=model.yaml", f"--model={name}"]
        assert parse(parser("fit"), rewrite(words, "fit")).model.init_args.patch_whitening == eps
