"""What is counted and measured of a network: layers, memory, speed."""

import copy
from pathlib import Path

import pytest
import timm
import torch
from lightning import Trainer
from torch import Tensor, nn

from cvcc_zoo import CNN, FCNN, ImageClassifier, create, list_models
from cvcc_zoo.__main__ import main
from cvcc_zoo.commands.compare import accuracies
from cvcc_zoo.inspection.layers import OUTSIDE, inventory
from cvcc_zoo.inspection.memory import activation_bytes, saved_bytes
from cvcc_zoo.inspection.speed import rates
from cvcc_zoo.inspection.subjects import find_subject, find_subjects
from cvcc_zoo.registry import find
from cvcc_zoo.weights.card import read_card
from cvcc_zoo.zoo.catalogue import complexity
from tests.conftest import Fit
from tests.test_initialisation import SMALL, build
from tests.test_models import UNLIKE


@pytest.mark.parametrize(
    "name", [name if name in UNLIKE else pytest.param(name, marks=pytest.mark.slow) for name in list_models()]
)
def test_the_layers_add_up_to_what_the_registry_says(name: str) -> None:
    with torch.device("meta"):
        model = create(name)
    found = inventory(model.network, (3, 32, 32))
    assert found.parameters == find(name).parameters and found.macs == complexity(model).macs
    assert sum(layer.parameters for layer in found.layers) == found.parameters
    assert sum(layer.macs for layer in found.layers) == found.macs
    assert OUTSIDE not in [layer.name for layer in found.layers] and found.layers[-1].output == (10,)


class Scaled(nn.Module):
    """A product and a parameter that belong to no layer."""

    def __init__(self) -> None:
        super().__init__()
        self.matrix, self.linear = nn.Parameter(torch.ones(12, 5)), nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.linear(x.flatten(1) @ self.matrix)
        return y


def test_what_belongs_to_no_layer_has_a_row_of_its_own() -> None:
    found = inventory(Scaled(), (3, 2, 2))
    assert [(layer.name, layer.parameters, layer.macs) for layer in found.layers] == [
        ("linear", 12, 10),
        (OUTSIDE, 60, 60),
    ]
    assert (found.parameters, found.macs) == (72, 70)


def test_a_shared_layer_is_called_twice_and_counted_once() -> None:
    conv = nn.Conv2d(3, 3, 3, padding=1)
    found = inventory(nn.Sequential(conv, conv), (3, 8, 8))
    assert [layer.parameters for layer in found.layers] == [84, 0] and found.parameters == 84
    assert found.macs == 2 * 3 * 27 * 64


def test_a_network_that_does_not_take_the_images_is_told() -> None:
    for network, shape in ((CNN(image_size=32).network, (3, 16, 16)), (FCNN().network, (1, 32, 32))):
        with pytest.raises(ValueError, match=r"build it with the image_size|choose another"):
            inventory(network, shape)
    with pytest.raises(ValueError, match="does not take images of 1x32x32"):
        inventory(create("resnet20").network, (1, 32, 32))


def test_a_network_that_refuses_images_without_a_word_is_told_too() -> None:
    class Silent(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise AssertionError

    with pytest.raises(ValueError, match=r"^Silent does not take images of 3x8x8 \(AssertionError\); choose another"):
        inventory(Silent(), (3, 8, 8))


def test_the_networks_of_imagenet_have_the_published_counts() -> None:
    """https://arxiv.org/abs/1611.05431, tables 1 and 2: as complex, with more paths in the place of wider ones."""
    with torch.device("meta"):
        found = {
            (paths, width): inventory(timm.create_model("resnet50", cardinality=paths, base_width=width), (3, 224, 224))
            for paths, width in ((1, 64), (32, 4))
        }
    assert found[1, 64].parameters == 25_557_032 and found[32, 4].parameters == 25_028_904
    assert found[1, 64].macs == pytest.approx(4.1e9, rel=0.01) and found[32, 4].macs == pytest.approx(4.2e9, rel=0.02)


# Memory


def test_a_value_that_two_layers_need_is_kept_once() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 3, padding=1))
    image, hidden = 3 * 16 * 16, 8 * 16 * 16  # the second convolution needs what ReLU needs: what ReLU gave
    assert activation_bytes(network, (3, 16, 16)) == 4 * (image + hidden)
    assert saved_bytes(network, (3, 16, 16), 5) == 5 * 4 * (image + hidden)  # and no parameter
    assert activation_bytes(nn.Sequential(nn.Flatten(), nn.Linear(12, 5)), (3, 2, 2)) == 4 * 12
    assert activation_bytes(nn.Sequential(nn.Flatten(), nn.Linear(12, 5), nn.Tanh()), (3, 2, 2)) == 4 * 17


@pytest.mark.parametrize("name", SMALL)
def test_memory_grows_with_the_images_and_is_known_without_computing(name: str) -> None:
    network = build(name).network
    one = activation_bytes(network, (3, 8, 8))
    kept = {
        (device, count): saved_bytes(network, (3, 8, 8), count, device)
        for device in ("meta", "cpu")
        for count in (2, 5)
    }
    assert kept["meta", 2] == kept["cpu", 2] and kept["meta", 5] == kept["cpu", 5] == kept["cpu", 2] + 3 * one
    assert one > 0 and kept["cpu", 2] - 2 * one >= 0


class Weighted(nn.Module):
    """A tensor that is neither a parameter nor a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.weights, self.fc = torch.arange(1.0, 13.0), nn.Linear(12, 2)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.fc(x.flatten(1) * self.weights)
        return y


def test_a_network_may_have_tensors_of_its_own() -> None:
    assert activation_bytes(Weighted(), (3, 2, 2)) == 4 * 12
    assert inventory(Weighted(), (3, 2, 2)).macs == 24


class Looking(nn.Module):
    """Neither values nor tensors on the CPU exist on the meta device."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(192, 10)

    def forward(self, x: Tensor) -> Tensor:
        if x.abs().max() < 1:
            x = x + torch.linspace(-1, 1, 8)
        y: Tensor = self.fc(x.flatten(1))
        return y


def test_a_network_may_look_at_values() -> None:
    model = ImageClassifier.wrap(Looking(), num_classes=10, image_size=8).train()
    counts = complexity(model)
    assert (counts.parameters, counts.macs) == (1930, 1920) and model.network.training
    assert inventory(model.network, (3, 8, 8)).macs == 1920
    assert activation_bytes(model.network, (3, 8, 8)) == 4 * 192


class LookingAttention(nn.Module):
    """A value of the images, then attention, whose products the kernels of the CPU hide."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)
        self.fc = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        x.sum().item()
        y: Tensor = self.fc(self.attention(x.reshape(len(x), -1, 32)).mean(1))
        return y


def test_the_products_of_attention_count_also_where_values_are_looked_at() -> None:
    model, length, width = ImageClassifier.wrap(LookingAttention(), num_classes=10, image_size=8), 6, 32
    projections, products, hidden = 4 * length * width**2, 2 * length**2 * width, 2 * length * width * 64
    macs = projections + products + hidden + 10 * width
    assert complexity(model).macs == inventory(model.network, (3, 8, 8)).macs == macs
    assert torch.backends.mha.get_fastpath_enabled()


def test_norms_and_depth_cost_memory() -> None:
    memory = {name: activation_bytes(create(name).network, (3, 32, 32)) for name in ("resnet20", "resnet56")}
    bare = activation_bytes(create("resnet20", norm="none").network, (3, 32, 32))
    assert bare < memory["resnet20"] < memory["resnet56"]


# Names


def test_a_network_has_the_accuracies_of_the_published_ones_of_its_shape_alone() -> None:
    found = {
        name: accuracies(find_subject(name, {}))
        for name in ("cnn", "CNN", "cnn{init: lsuv, dropout: 0.5}", "cnn{pool: mean}")
    }
    assert found["cnn"]["CIFAR-10"] > 0.9 and found["cnn"] == found["CNN"] == found["cnn{init: lsuv, dropout: 0.5}"]
    assert found["cnn{pool: mean}"] == {} == accuracies(find_subject("linear{features: [HOG]}", {}))


def test_trained_weights_have_the_accuracy_of_their_own_card_alone(fit: Fit) -> None:
    fit("--model=linear", "--run=linear.cifar10")  # the name of published weights
    assert accuracies(find_subject("./linear.cifar10", {})) == {}
    assert main(["publish", "./linear.cifar10", "--tag=cifar10", "--folder=weights"]) == 0
    Path("weights/mine").mkdir()
    assert main(["publish", "./linear.cifar10", "--tag=mine", "--folder=weights/mine"]) == 0
    for path in map(Path, ("weights/linear.cifar10.json", "weights/mine/linear.mine.json")):
        card = read_card(path)
        assert accuracies(find_subject(str(path), {})) == {card.dataset: card.measured["test_accuracy"]}


def test_runs_of_the_same_name_in_two_folders_are_told_apart(tmp_path: Path) -> None:
    names = [str(tmp_path / folder / "run") for folder in ("a", "b")]
    for name, width in zip(names, (8, 512), strict=True):
        Path(name).mkdir(parents=True)
        trainer = Trainer(logger=False, enable_checkpointing=False, enable_progress_bar=False, accelerator="cpu")
        trainer.strategy.connect(FCNN(hidden=[width], whitening="none"))
        trainer.save_checkpoint(Path(name) / "best.ckpt", weights_only=True)
    assert [subject.name for subject in find_subjects(names, {})] == names
    assert find_subjects(names[:1], {})[0].name == "run"
    assert rates(find_subjects(names, {}), 64, 1, train=False).keys() == set(names)


# Speed


def test_a_small_network_is_faster_than_a_large_one_and_evaluation_than_training() -> None:
    subjects = find_subjects(["ResNet{image_size: 8, depth: 8}", "ResNet{image_size: 8, depth: 56}"], {})
    before = [copy.deepcopy(subject.network.state_dict()) for subject in subjects]
    evaluation, training = (rates(subjects, 4, 2, train=train) for train in (False, True))
    small, large = (subject.name for subject in subjects)
    assert evaluation[small] > evaluation[large] and training[small] > training[large]
    assert evaluation[small] > training[small] and evaluation[large] > training[large]
    for subject, state in zip(subjects, before, strict=True):
        assert all(torch.equal(value, state[name]) for name, value in subject.network.state_dict().items())


def test_networks_in_float64_are_measured_in_it() -> None:
    subjects = find_subjects(["FCNN{hidden: [4]}"], {})
    floats = activation_bytes(subjects[0].network, subjects[0].shape)
    subjects[0].network.double()
    assert all(rates(subjects, 2, 1, train=train)[subjects[0].name] > 0 for train in (False, True))
    assert activation_bytes(subjects[0].network, subjects[0].shape) == 2 * floats


@pytest.mark.parametrize(
    ("batch_size", "repeats", "train", "message"),
    [(0, 1, False, "at least 1, got 0 and 1"), (1, 0, False, "got 1 and 0"), (1, 1, True, "--batch_size=2 or more")],
)
def test_a_measurement_of_nothing_is_refused(batch_size: int, repeats: int, train: bool, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rates(find_subjects(["linear"], {}), batch_size, repeats, train=train)
