"""Weights go to other classes and channels: what must be new is new, all else is taken exactly or refused."""

import copy
import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Callback, Trainer
from lightning.pytorch.callbacks import LearningRateFinder
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import cvcc_zoo
from cvcc_zoo import ImageClassifier, create, load
from cvcc_zoo.__main__ import main
from cvcc_zoo.optim.param_groups import depth_of
from cvcc_zoo.weights.card import write
from cvcc_zoo.zoo.transfer import adapt_channels
from tests.conftest import QUICK, Fit, MakeFolder, message, on
from tests.test_weights import IMAGES, card_of, home, published, trained  # noqa: F401  home is a fixture

GREY = IMAGES[:, :1]


@pytest.fixture(autouse=True)
def here(home: Path) -> Path:  # noqa: F811
    return home


def same(one: dict[str, Tensor], other: dict[str, Tensor], but: tuple[str, ...] = ()) -> bool:
    assert one.keys() == other.keys()
    return all(torch.equal(one[name], other[name]) for name in one if not name.startswith(but))


def test_other_classes_get_a_new_classifier_and_nothing_else(here: Path) -> None:
    published(here)
    old, new = create("resnet20.pets"), create("resnet20.pets", num_classes=7)
    head = ("network.fc.",)
    assert new(IMAGES).shape == (5, 7) and new.hparams["num_classes"] == 7
    old_state, new_state = old.state_dict(), new.state_dict()
    assert all(torch.equal(old_state[k], new_state[k]) for k in old_state if not k.startswith(head))
    assert torch.equal(old.features(IMAGES)[-1], new.features(IMAGES)[-1])


def test_a_new_head_is_fresh_for_as_many_classes_and_never_by_itself(here: Path) -> None:
    published(here)
    old, new = create("resnet20.pets"), create("resnet20.pets", new_head=True)
    assert same(old.state_dict(), new.state_dict(), but=("network.fc.",))
    assert not torch.equal(old(IMAGES), new(IMAGES))
    assert same(old.state_dict(), create("resnet20.pets", num_classes=3).state_dict())
    with pytest.raises(ValueError, match="give pretrained"):
        create("resnet20", new_head=True)


@pytest.mark.parametrize(
    ("options", "frozen"),
    [({"num_classes": 5}, 0), ({"new_head": True}, 0), ({"num_classes": 5, "freeze": 2}, 2), ({"image_size": 16}, 4)],
)
def test_a_new_classifier_is_not_trained_alone_because_that_of_the_weights_was(
    options: dict[str, Any], frozen: int, here: Path
) -> None:
    published(here, trained(freeze=4))
    assert create("resnet20.pets", **options).hparams["freeze"] == frozen


def test_a_grey_image_gives_what_it_gave_in_three_equal_channels(here: Path) -> None:
    published(here)
    old, grey = create("resnet20.pets"), create("resnet20.pets", in_channels=1)
    assert same(old.state_dict(), grey.state_dict(), but=("whitening.", "network.conv1."))
    x = torch.randn(5, 1, 8, 8)
    one, three = grey.network(x), old.network(x.expand(-1, 3, -1, -1))
    assert torch.allclose(one, three, rtol=1e-4)
    with pytest.raises(ValueError, match="statistics"):
        grey(GREY)  # the whitening of one channel is not known before it is trained


@pytest.mark.parametrize("channels", [2, 3, 4, 6, 8])
def test_channels_are_adapted_as_in_timm(channels: int) -> None:
    from timm.models import adapt_input_conv

    weight = torch.randn(4, 3, 3, 3)
    assert torch.allclose(adapt_channels(weight, channels), adapt_input_conv(channels, weight))
    assert torch.allclose(adapt_channels(weight, 1), adapt_input_conv(1, weight))


def test_a_network_with_global_pooling_takes_other_sizes(here: Path) -> None:
    published(here)
    large = create("resnet20.pets", image_size=16)
    assert same(create("resnet20.pets").state_dict(), large.state_dict())


@pytest.mark.parametrize("num_classes", [3, 0])
def test_weights_are_taken_with_another_dropout(here: Path, num_classes: int) -> None:
    published(here, trained("fcnn"))
    old, new = (create("fcnn.pets", dropout=dropout, num_classes=num_classes).eval() for dropout in (0.2, 0.0))
    assert old.state_dict().keys() != new.state_dict().keys()
    assert torch.equal(old(IMAGES), new(IMAGES))


def test_what_does_not_fit_is_named(here: Path) -> None:
    published(here)
    published(here, trained("linear"))
    with pytest.raises(ValueError, match=r"'network.fc.weight' is \(3, 192\), not \(3, 768\)"):
        create("linear.pets", image_size=16)
    with pytest.raises(ValueError, match="other input channels need the first convolution, but this network has no"):
        create("linear.pets", in_channels=1)
    with pytest.raises(ValueError, match="different model: it has shortcut='B', but this one has shortcut='A'"):
        create("resnet20.pets", shortcut="A")


def test_pretrained_true_takes_cifar10_or_the_only_ones(here: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="finds no weights of resnet20"):
        create("resnet20", pretrained=True)
    path = published(here)
    assert same(create("resnet20", pretrained=True).state_dict(), load(path).state_dict())
    assert same(create("resnet20", pretrained=here).state_dict(), load(path).state_dict())
    with pytest.raises(ValueError, match=r"must have one card resnet32\.<data set>\.json, but has none"):
        create("resnet32", pretrained=here)


def test_the_weights_of_a_model_may_be_in_a_run_folder(fit: Fit, tmp_path: Path) -> None:
    assert fit("--model=linear", "--test=false", "--run=tuned") == 0
    folders: list[str | Path] = ["tuned", "./tuned", tmp_path / "tuned"]
    for folder in folders:
        assert same(create("linear", pretrained=folder).state_dict(), load("tuned").state_dict())
        with pytest.raises(ValueError, match="tuned holds a linear, not a resnet20"):
            create("resnet20", pretrained=folder)


def test_the_name_of_a_data_set_may_have_a_dot(here: Path) -> None:
    model = trained()
    path = write(here, dataclasses.replace(card_of(model), name="resnet20.birds.v2"), model.state_dict())
    for made in (create("resnet20", pretrained="birds.v2"), create("resnet20", pretrained=True), load(path)):
        assert same(made.state_dict(), create("resnet20.birds.v2").state_dict())


# Parts


def test_features_are_what_each_part_gives() -> None:
    sizes = {
        "resnet20": [(16, 32, 32), (16, 32, 32), (32, 16, 16), (64, 8, 8)],
        "plain20": [(16, 32, 32), (16, 32, 32), (32, 16, 16), (64, 8, 8)],
        "resnet18": [(64, 32, 32), (64, 32, 32), (128, 16, 16), (256, 8, 8), (512, 4, 4)],
        "resnext20_16x4d": [(64, 32, 32), (256, 32, 32), (512, 16, 16), (1024, 8, 8)],
        "wrn16_4": [(16, 32, 32), (64, 32, 32), (128, 16, 16), (256, 8, 8)],
        "cnn": [(64, 16, 16), (128, 8, 8), (256, 4, 4)],
        "fcnn": [(1024,), (512,), (256,)],
        "linear": [(3072,)],
    }
    images = torch.rand(2, 3, 32, 32)
    for name, expected in sizes.items():
        model = create(name, whitening="none").eval()
        found = model.features(images)
        assert [tuple(part.shape[1:]) for part in found] == expected
        assert torch.equal(model.parted.classify(found[-1]), model(images))


@pytest.mark.parametrize("name", ["resnet20", "plain20", "resnext20_16x4d", "wrn16_4", "cnn_small", "fcnn"])
def test_every_parameter_belongs_to_a_part_or_to_the_classifier(name: str) -> None:
    network = create(name).parted
    depths = [depth_of(key, network.parts) for key, _ in network.named_parameters()]
    assert set(depths) == set(range(len(network.parts) + 1))
    assert all(depth_of(key, network.parts) == len(network.parts) for key, _ in network.fc.named_parameters("fc"))


def test_frozen_parts_keep_weights_and_statistics(colours: Path) -> None:
    options: dict[str, Any] = {"num_classes": 2, "image_size": 8, "freeze": 3}
    model = create("resnet20", optimizer={"name": "SGD", "lr": 0.1}, **options)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    data = cvcc_zoo.ImageDataModule("folder", root=str(colours), batch_size=8)
    trainer = Trainer(
        max_epochs=1, logger=False, accelerator="cpu", enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, use_distributed_sampler=False,
    )  # fmt: skip
    trainer.fit(model, data)
    after = model.state_dict()
    changed = {name.split(".")[1] for name in before if not torch.equal(before[name], after[name])}
    assert changed - {"mean", "std"} == {"layer3", "fc"}
    with pytest.raises(ValueError, match=r"freeze=9: the parts of this network are 1 \(conv1 bn1\), 2 \(layer1\)"):
        create("resnet20", freeze=9)


class Modes(Callback):
    """Which of some modules are in train mode, in every step."""

    def __init__(self, *modules: nn.Module) -> None:
        self.modules = modules
        self.seen: set[tuple[bool, ...]] = set()

    def on_train_batch_start(self, *args: object) -> None:
        self.seen.add(tuple(module.training for module in self.modules))


@pytest.mark.filterwarnings("ignore:Found .* in eval mode at the start of training")
def test_modules_that_the_user_keeps_in_evaluation_mode_stay_there(colours: Path) -> None:
    model = create("resnet20", num_classes=2, image_size=16, freeze=1, optimizer={"name": "SGD", "lr": 0.1})
    model.add_module("teacher", create("cnn_small", num_classes=2, image_size=16).network.eval())
    first, *_, kept, other = (each for each in model.network.modules() if isinstance(each, nn.BatchNorm2d))
    before = copy.deepcopy(kept.eval())
    modes = Modes(model, first, kept, model.get_submodule("teacher"), other)
    data = cvcc_zoo.ImageDataModule(
        "folder", root=str(colours), batch_size=8, image_size=16, progressive_resizing={8: 0.5}
    )
    quiet: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    quiet |= {"enable_model_summary": False, "accelerator": "cpu", "limit_train_batches": 1, "callbacks": [modes]}
    Trainer(max_epochs=2, **quiet).fit(model, data)
    assert modes.seen == {(True, False, False, False, True)}
    assert torch.equal(kept.state_dict()["running_mean"], before.state_dict()["running_mean"])
    modes.seen.clear()
    Trainer(max_epochs=2, **quiet).fit(model.eval(), data)  # as it is loaded
    assert modes.seen == {(True, False, True, True, True)}


@pytest.mark.filterwarnings("ignore::lightning.fabric.utilities.warnings.PossibleUserWarning")
def test_a_network_that_came_in_evaluation_mode_is_trained_in_train_mode() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 14 * 14, 2)).eval()
    model = ImageClassifier.wrap(network, num_classes=2, image_size=16, optimizer="SGD", whitening="none")
    modes = Modes(*network.modules())
    quiet: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    quiet |= {"enable_model_summary": False, "accelerator": "cpu", "limit_train_batches": 1}
    loader = DataLoader(TensorDataset(torch.zeros(4, 3, 16, 16), torch.tensor([0, 1, 0, 1])), batch_size=4)
    Trainer(max_epochs=1, callbacks=[modes], **quiet).fit(model, loader)
    assert modes.seen == {(True,) * 5}


@pytest.mark.filterwarnings("ignore::lightning.fabric.utilities.warnings.PossibleUserWarning")
def test_the_tuner_of_lightning_tries_rates_in_train_mode(tmp_path: Path) -> None:
    seen: set[bool] = set()
    model = create("cnn_small", num_classes=2, image_size=16, optimizer="SGD", whitening="none").eval()
    model.network.register_forward_pre_hook(lambda module, args: seen.add(module.training))
    finder = LearningRateFinder(num_training_steps=2, early_stop_threshold=None)
    quiet: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    quiet |= {"enable_model_summary": False, "accelerator": "cpu", "limit_train_batches": 1, "limit_val_batches": 0}
    loader = DataLoader(TensorDataset(torch.zeros(4, 3, 16, 16), torch.tensor([0, 1, 0, 1])), batch_size=4)
    Trainer(max_epochs=1, default_root_dir=tmp_path, callbacks=[finder], **quiet).fit(model, loader)
    assert seen == {True}


def test_parts_are_frozen_in_a_loop_of_ones_own_too() -> None:
    torch.manual_seed(0)
    model = create("resnet20", num_classes=3, whitening="none", freeze=3)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)  # all of them, as such loops have it
    for _ in range(2):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model.train()(torch.rand(8, 3, 32, 32)), torch.arange(8) % 3).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    changed = {name.split(".")[1] for name, now in model.state_dict().items() if not torch.equal(before[name], now)}
    assert changed == {"layer3", "fc"}
    modes = {name: model.get_submodule(f"network.{name}").training for name in ("bn1", "layer3")}
    assert modes == {"bn1": False, "layer3": True} and model.training


def test_layer_decay_gives_each_part_its_own_rate(colours: Path) -> None:
    from cvcc_zoo.optim import make_optimizer

    for spec, base in (
        ({"name": "SGD", "lr": 0.1, "weight_decay": 1e-4}, 0.1),
        ({"name": "Muon", "lr": 0.02, "adamw_lr": 0.003}, None),
    ):
        model = create("resnet20")
        optimizer = make_optimizer({**spec, "layer_decay": 0.5}, model)
        plain = make_optimizer(spec, model)
        own = {p: group["lr"] for group in plain.param_groups for p in group["params"]}
        names = {p: name for name, p in model.network.named_parameters()}
        rates = {names[p]: group["lr"] / own[p] for group in optimizer.param_groups for p in group["params"]}
        assert rates.keys() == {name for name, _ in model.network.named_parameters()}
        assert (rates["conv1.weight"], rates["layer2.0.bn1.weight"], rates["fc.bias"]) == pytest.approx(
            (1 / 16, 0.25, 1)
        )
        assert base is None or max(group["lr"] for group in optimizer.param_groups) == base
    with pytest.raises(ValueError, match="a factor in"):
        make_optimizer({"name": "SGD", "layer_decay": 2.0}, model)
    model.register_parameter("centre", torch.nn.Parameter(torch.zeros(3)))  # of a subclass: beside the network
    groups = make_optimizer({"name": "SGD", "lr": 0.1, "layer_decay": 0.5}, model).param_groups
    assert [group["lr"] for group in groups for p in group["params"] if p is model.centre] == [0.1]


# From the command line


def test_fit_starts_from_published_weights_and_says_so(fit: Fit, here: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    path = published(here)
    more = ["--optimizer=SGD", "--optimizer.lr=0", "--lr_scheduler=null", "--model.freeze=4"]
    assert fit("--model=resnet20.pets", "--optimizer.layer_decay=0.5", *more) == 0
    assert "with a new classifier" in caplog.text
    model, old = load("runs/resnet20-colours"), load(path)
    assert model.num_classes == 2
    assert torch.equal(model.features(IMAGES)[-1], old.features(IMAGES)[-1])
    assert "weights: resnet20.pets" in Path("runs/resnet20-colours/config.yaml").read_text()
    assert fit("--model=resnet20", "--weights=runs/resnet20-colours", *more) == 0
    assert same(load("runs/resnet20-colours-2").state_dict(), model.state_dict())


@pytest.mark.parametrize("whitening", [[], ["--data.whitening=zca", "--data.whitening.eps=0.1"]])
def test_a_fine_tuned_run_goes_on_without_the_weights_that_it_started_from(
    fit: Fit, caplog: pytest.LogCaptureFixture, whitening: list[str]
) -> None:
    caplog.set_level("INFO")
    assert fit("--model=linear", *whitening, "--run=pre") == 0
    assert fit("--model=linear", "--weights=pre", "--run=tuned") == 0
    assert "Starts from the weights pre" in caplog.text
    caplog.clear()
    Path("pre").rename("elsewhere")
    again = ["fit", "--config=tuned/config.yaml", "--ckpt_path=last"]
    assert main(again) == 0  # no option has changed
    assert main([*again, "--trainer.max_epochs=2", "--allow_changes=true"]) == 0
    assert "Resumes with other options" in caplog.text and "Starts from" not in caplog.text
    assert "weights: pre" in Path("tuned/config.yaml").read_text()
    assert load("tuned").hparams["whitening"] == load("elsewhere").hparams["whitening"]
    assert same(load("tuned").whitening.state_dict(), load("elsewhere").whitening.state_dict())


def test_a_fine_tuned_run_is_evaluated_without_the_weights_that_it_started_from(
    fit: Fit, make_folder: MakeFolder, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    assert main(["fit", *on(make_folder("three", classes=("a", "b", "c"))), "--model=linear", "--run=pre"]) == 0
    assert fit("--model=pre", "--run=tuned") == 0
    caplog.clear()
    for folder in ("pre", "elsewhere"):
        Path("pre").rename(folder)
        for command in ("validate", "test", "predict"):
            assert main([command, "--run=tuned"]) == 0
    assert "Starts from" not in caplog.text


def test_weights_are_not_tested_on_other_classes(here: Path, colours: Path, capsys: pytest.CaptureFixture[str]) -> None:
    published(here)
    data = ["--data.dataset=folder", f"--data.root={colours}"]
    printed = message(capsys, ["test", "--model=resnet20.pets", *data, *QUICK[1:]])
    assert "were trained on other classes than those of colours" in printed


@pytest.mark.parametrize("model", ["resnet20.pets", "{class_path: resnet20.pets, init_args: {freeze: 2}}"])
def test_recipes_can_name_weights(model: str, here: Path, colours: Path, tmp_path: Path) -> None:
    published(here)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"model: {model}\ndata: {{dataset: folder, root: {colours}}}\ntrainer: {{max_epochs: 1}}\n")
    assert main(["fit", f"--config={recipe}", *QUICK]) == 0
    assert "weights: resnet20.pets" in Path("runs/resnet20-colours/config.yaml").read_text()
    assert load("runs/resnet20-colours").hparams["freeze"] == (2 if "freeze" in model else 0)


def test_weights_beside_those_that_a_model_names_are_refused(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    published(here)
    Path("two.yaml").write_text("{model: resnet20.pets, weights: elsewhere}")
    said = "the model resnet20.pets has its own weights; leave weights: elsewhere out"
    assert said in message(capsys, ["fit", "--config=two.yaml"])


def test_the_whitening_comes_with_the_weights(fit: Fit, here: Path, colours: Path) -> None:
    zca = {"name": "zca", "scope": "channel_values", "eps": 0.1}
    data = cvcc_zoo.ImageDataModule("folder", root=str(colours), whitening=zca)
    model = create("resnet20", num_classes=3, image_size=8, whitening=zca)
    model.whitening = data.fit_whitening()
    published(here, model)
    assert fit("--model=resnet20.pets", "--optimizer=SGD", "--optimizer.lr=0", "--lr_scheduler=null") == 0
    assert torch.equal(load("runs/resnet20-colours").whitening.matrix, model.whitening.matrix)
    assert fit("--model=resnet20.pets", "--data.whitening=pca") == 2
    whole = create("resnet20", num_classes=3, image_size=8, whitening={"name": "zca", "eps": 0.1})
    whole.whitening.fit(IMAGES)
    published(here, whole)
    with pytest.raises(ValueError, match="whiten whole images of 8 pixels, not of 16"):
        create("resnet20.pets", image_size=16)


def test_weights_that_do_not_exist_are_refused_before_the_images_are_read(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[str] = []
    monkeypatch.setattr("cvcc_zoo.data.datamodule.find_dataset", lambda *args, **kwargs: built.append("images"))
    printed = message(capsys, ["fit", "--model=resnet20", "--weights=linear", *QUICK])
    assert "linear is a model without weights" in printed and not built
