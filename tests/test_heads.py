"""Features and classifiers of every model, with the names and the meanings of timm."""

import re
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from lightning import Trainer
from torch import Tensor, nn

from cvcc_zoo import ImageClassifier, ImageDataModule, create, load
from cvcc_zoo.classifier import Network

IMAGES = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
QUIET: Any = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}


class Plain(nn.Module):
    """A network that defines nothing but its forward pass."""

    def __init__(self, num_classes: int = 10, after: bool = False) -> None:
        super().__init__()
        self.convolution, self.after = nn.Conv2d(3, 6, 3, 2), after
        self.out = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, num_classes))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.out(self.convolution(x).mean((2, 3)))
        return y.softmax(1) if self.after else y


def ready(name: str, **options: Any) -> ImageClassifier:
    model = create(name, image_size=16, **options) if name != "plain" else ImageClassifier.wrap(Plain, image_size=16)
    model.whitening.fit(IMAGES)
    return model.eval()


MODELS = ["linear", "fcnn", "cnn_small", "resnet20", "resnext20_16x4d", "wrn16_4", "timm.test_resnet", "plain"]
SIZES = {"linear": (768, 768), "fcnn": (256, 256), "cnn_small": (128, 512), "plain": (5, 5)}


@pytest.mark.parametrize("name", MODELS)
def test_a_head_on_the_features_is_the_model(name: str) -> None:
    model = ready(name)
    features = model.forward_features(IMAGES)
    assert torch.equal(model.forward_head(features), model(IMAGES))
    hidden = model.forward_head(features, pre_logits=True)
    assert torch.equal(model.get_classifier()(hidden), model(IMAGES))
    assert (features.shape[1], hidden.shape) == (model.num_features, (2, model.head_hidden_size))
    assert SIZES.get(name, (model.num_features, model.head_hidden_size)) == (
        model.num_features,
        model.head_hidden_size,
    )


@pytest.mark.parametrize("name", MODELS)
def test_without_a_classifier_a_model_returns_its_features_and_gets_any_number_of_classes(name: str) -> None:
    model = ready(name)
    hidden = model.forward_head(model.forward_features(IMAGES), pre_logits=True)
    model.classes = tuple("abcdefghij")
    model.reset_classifier(0)
    assert torch.equal(model(IMAGES), hidden) and isinstance(model.get_classifier(), nn.Identity)
    assert model.num_classes == model.hparams["num_classes"] == 0 and model.classes is None
    model.reset_classifier(25)
    assert model(IMAGES).shape == (2, 25) and "val/top5_accuracy" in model.metrics
    assert torch.equal(model.forward_head(model.forward_features(IMAGES), pre_logits=True), hidden)


@pytest.mark.parametrize("name", ["linear", "cnn_small", "timm.test_resnet"])
def test_a_new_model_without_classes_returns_features_and_is_loaded_again(name: str, tmp_path: Any) -> None:
    model = ready(name, num_classes=0)
    assert model(IMAGES).shape == (2, model.head_hidden_size)
    trainer = Trainer(max_epochs=1, **QUIET)
    trainer.strategy.connect(model)
    trainer.save_checkpoint(tmp_path / "features.ckpt")
    assert torch.equal(load(tmp_path / "features.ckpt")(IMAGES), model(IMAGES))


def test_a_fresh_classifier_starts_like_that_of_a_new_model() -> None:
    model = ready("cnn_fast")
    model.reset_classifier(7)
    new, fresh = model.get_classifier(), create("cnn_fast", num_classes=7).get_classifier()
    assert isinstance(new, nn.Linear) and isinstance(fresh, nn.Linear)
    assert new.weight.std().item() == pytest.approx(fresh.weight.std().item(), rel=0.1) and not new.bias.any()
    linear = ready("linear")
    linear.reset_classifier(7)
    assert not linear(IMAGES).any()  # the loss of a linear classifier is convex: it starts at zero


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_convnext", "mobilenetv3_small_050"])
def test_the_methods_mean_what_they_mean_in_timm(name: str) -> None:
    model = create(f"timm.{name}", image_size=32, whitening="none").eval()
    model.channels_last = False  # which changes the order of sums
    options: dict[str, Any] = {"img_size": 32} if "vit" in name else {}
    theirs: Any = timm.create_model(name, num_classes=10, **options).eval()
    theirs.load_state_dict(model.network.state_dict())
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    features = theirs.forward_features(x)
    assert torch.equal(model(x), theirs(x)) and torch.equal(model.forward_features(x), features)
    for pre_logits in (False, True):
        mine = model.forward_head(features, pre_logits=pre_logits)
        assert torch.equal(mine, theirs.forward_head(features, pre_logits=pre_logits))
    assert (model.num_features, model.head_hidden_size) == (theirs.num_features, theirs.head_hidden_size)
    model.reset_classifier(0)
    theirs.reset_classifier(0)
    assert torch.equal(model(x), theirs(x))


def test_published_weights_give_features() -> None:
    whole, features = create("linear.cifar10"), create("linear.cifar10", num_classes=0)
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    assert torch.equal(features(images), whole.forward_features(images)) and not features.training


def test_a_model_without_a_classifier_is_not_trained_and_names_no_classes() -> None:
    model = create("linear", num_classes=0, in_channels=1, image_size=28)
    with pytest.raises(ValueError, match=r"no classifier \(num_classes=0\).*reset_classifier"):
        Trainer(max_epochs=1, **QUIET).fit(model, ImageDataModule("fashion-mini"))
    with pytest.raises(ValueError, match="has no classifier"):
        model.training_step((torch.zeros(2, 1, 28, 28), torch.zeros(2, dtype=torch.int64)), 0)
    with pytest.raises(ValueError, match="has no classifier"):
        model.predict(torch.zeros(1, 28, 28))


@pytest.mark.parametrize("wrong", [1, -1, 2.5, True])
def test_a_classifier_has_two_classes_or_more(wrong: Any) -> None:
    with pytest.raises(ValueError, match="num_classes must be"):
        create("linear").reset_classifier(wrong)


def test_features_that_are_not_known_are_refused() -> None:
    model = ImageClassifier.wrap(Plain(after=True), image_size=16, whitening="none")
    with pytest.raises(ValueError, match=r"logits of Plain are not the output of its last linear layer.*forward_head"):
        model.forward_features(IMAGES)
    convolutional = nn.Sequential(nn.Conv2d(3, 10, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(ValueError, match=r"Sequential has no linear layer with 10 outputs.*get_classifier"):
        ImageClassifier.wrap(convolutional, image_size=16).get_classifier()


def test_a_network_of_ours_that_overrides_its_classification_has_the_methods_too() -> None:
    class Halved(Network):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.parts, self.fc = nn.Conv2d(3, 4, 3), [["conv"]], nn.Linear(4, 10)

        def features(self, x: Tensor) -> list[Tensor]:
            return [self.conv(x)]

        def classify(self, x: Tensor) -> Tensor:
            return super().classify(x.mean((2, 3)) / 2)

    network = Halved()
    x = torch.rand(2, 3, 8, 8)
    maps = network.forward_features(x)
    assert torch.equal(network.forward_head(maps), network(x))
    assert torch.equal(network.forward_head(maps, pre_logits=True), maps.mean((2, 3)) / 2)


class Own(Network):
    """A network of a user, with the parts of ours."""

    def __init__(self, classifier: nn.Module) -> None:
        super().__init__()
        self.conv, self.parts = nn.Conv2d(3, 4, 3), [["conv"]]
        self.fc = classifier  # type: ignore[assignment]

    def features(self, x: Tensor) -> list[Tensor]:
        return [self.conv(x)]

    def classify(self, x: Tensor) -> Tensor:
        return super().classify(x.mean((2, 3)))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dropout", [True, False])
def test_a_network_of_ours_that_is_an_object_gets_another_classifier(bias: bool, dropout: bool) -> None:
    linear = nn.Linear(4, 10, bias=bias)
    network = Own(nn.Sequential(nn.Dropout(), linear) if dropout else linear)
    model = ImageClassifier.wrap(network, image_size=16, whitening="none").eval()
    features = model.forward_features(IMAGES)
    for classes in (5, 0, 3):
        model.reset_classifier(classes)
        assert model(IMAGES).shape == (2, classes or 4) and torch.equal(model.forward_features(IMAGES), features)
        assert classes != 5 or (model.get_classifier().bias is not None) == (bias or dropout)


def test_the_optimizer_sees_a_new_classifier() -> None:
    model = create("linear", optimizer="SGD")
    model.reset_classifier(3)
    groups = model.configure_optimizers().param_groups
    assert sum(p.numel() for group in groups for p in group["params"]) == 3 * 3073


def test_classes_of_timm_networks_are_replaced_on_the_right_device_and_dtype() -> None:
    model = create("timm.test_resnet", image_size=16, whitening="none").double()
    model.reset_classifier(3)
    classifier = model.get_classifier()
    assert isinstance(classifier, nn.Linear) and classifier.weight.dtype == torch.float64
    assert re.fullmatch(r"Linear\(in_features=\d+, out_features=3, bias=True\)", repr(classifier))


@pytest.mark.parametrize("name", ["cnn_small", "timm.test_resnet", "plain"])
def test_a_new_classifier_has_no_temperature_of_the_old_one(name: str) -> None:
    model = ready(name)
    model.temperature = 4.0
    model.reset_classifier(0)
    features = model.forward_head(model.forward_features(IMAGES), pre_logits=True)
    assert torch.equal(model(IMAGES), features)
    assert model.temperature == 1


@pytest.mark.parametrize("name", ["cnn_small", "timm.test_resnet"])
def test_numbers_of_old_classes_leave_the_loss_and_balanced_weights_are_counted_again(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    pixels, few, many = torch.zeros(36, 3, 16, 16, dtype=torch.uint8), [0] * 24 + [1] * 12, [0, 1, 2] * 12
    options: Any = {**QUIET, "max_epochs": 1, "limit_train_batches": 1, "enable_checkpointing": False}
    balanced = {"name": "cross_entropy", "class_weights": "balanced"}
    model = create(name, num_classes=2, image_size=16, loss=balanced)
    Trainer(**options).fit(model, ImageDataModule(train=(pixels, torch.tensor(few)), validation=0))
    assert model.hparams["loss"]["class_weights"] == [0.75, 1.5]
    model.reset_classifier(3)
    Trainer(**options).fit(model, ImageDataModule(train=(pixels, torch.tensor(many)), validation="1/2"))
    assert model.hparams["loss"]["class_weights"] == [1, 1, 1]

    keeper = Trainer(**options)
    keeper.strategy.connect(model)
    keeper.save_checkpoint("three.ckpt", weights_only=True)
    changes: list[dict[str, Any]] = [{"num_classes": 0}, {"num_classes": 5}, {"new_head": True}]
    for changed in changes:
        assert create("three.ckpt", **changed).loss.class_weights == "balanced"  # as was chosen
    assert create("three.ckpt", image_size=16).hparams["loss"]["class_weights"] == [1, 1, 1]
    again = load("three.ckpt")
    again.reset_classifier(4)
    assert again.loss.class_weights == "balanced"
    assert type(model).load_from_checkpoint("three.ckpt").chosen_class_weights == "balanced"
    named = create(name, num_classes=3, image_size=16, loss={**balanced, "class_weights": {"a": 2}})
    Trainer(**options).fit(
        named, ImageDataModule(train=(pixels, torch.tensor(many)), classes=list("abc"), validation=0)
    )
    named.reset_classifier(4)
    assert named.hparams["loss"] == {"name": "cross_entropy"}  # names of the old classes


@pytest.mark.parametrize("name", ["resnet20", "cnn_small", "timm.test_resnet", "plain"])
def test_a_classifier_of_several_layers_may_replace_that_of_a_network(name: str, tmp_path: Path) -> None:
    def changed() -> ImageClassifier:
        model, layers = ready(name), nn.Sequential(nn.Dropout(), nn.Linear(size, 8), nn.ReLU(), nn.Linear(8, 10))
        *parent, last = place.split(".")
        setattr(model.network.get_submodule(".".join(parent)), last, layers.eval())
        return model

    model = ready(name)
    size, place = model.head_hidden_size, {"plain": "out.2"}.get(name, "fc")
    model = changed()
    features = model.forward_features(IMAGES)
    assert torch.equal(model.forward_head(features), model(IMAGES)) and model.head_hidden_size in (size, 8)
    path = tmp_path / "a.ckpt"
    trainer = Trainer(max_epochs=1, **QUIET)
    trainer.strategy.connect(model)
    trainer.save_checkpoint(path)
    again, said = changed(), "Get it again; or if a part of its network was replaced, "
    if name == "plain":
        said += f"give it as it was trained: cvcc_zoo.load('{path}', network=...)"
        assert torch.equal(load(path, network=again.network)(IMAGES), model(IMAGES))
    else:
        said += "replace it in a model with the same options too, and give that the weights: "
        said += (code := f"model.load_state_dict(torch.load('{path}', weights_only=True)['state_dict'])")
        eval(code, {"model": again, "torch": torch})
        assert torch.equal(again(IMAGES), model(IMAGES))
        with pytest.raises(ValueError, match="has its own network"):
            load(path, network=again.network)
    with pytest.raises(ValueError, match=re.escape(said)):
        load(path)
    model.reset_classifier(0)
    assert model(IMAGES).shape == (2, model.head_hidden_size)
