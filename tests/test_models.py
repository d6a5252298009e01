"""Every model of the zoo: exact counts, shapes, the traps of other implementations, learning, saving."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Trainer
from torch import Tensor, nn

import cvcc_zoo
from cvcc_zoo import CNN, FCNN, ResNet, ResNeXt, WideResNet
from cvcc_zoo.classifier import ImageClassifier
from cvcc_zoo.registry import ENTRIES, FAMILIES
from cvcc_zoo.zoo.catalogue import architecture, complexity, describe, name_of
from cvcc_zoo.zoo.creation import create, load

NAMES = sorted(ENTRIES)
SMALL = [name for name in NAMES if ENTRIES[name].parameters < 12e6]
LARGE = [name for name in NAMES if name not in SMALL]
UNLIKE = [  # one of each family, and what only some of its models have
    "cnn_fast", "cnn_small", "fcnn", "linear", "plain20", "resnet18", "resnet20", "resnext20_16x4d", "ridge", "wrn16_4",
]  # fmt: skip
SMALL_CASES = [name if name in UNLIKE else pytest.param(name, marks=pytest.mark.slow) for name in SMALL]
MACS = {  # millions, of convolutions and linear layers, as published by other zoos or counted by hand
    "resnet20": 40.81,
    "resnet32": 69.12,
    "resnet56": 125.75,
    "resnet110": 253.15,
    "resnet18": 555.42,
    "wrn16_4": 392.6,
    "wrn28_10": 5243,
    "resnext29_32x4d": 774,
    "resnext29_8x64d": 5387,
    "resnext20_16x4d": 322,
}


def batch_of(model: ImageClassifier, count: int = 4) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    shape = (count, model.in_channels, model.image_size, model.image_size)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    return images, torch.arange(count) % model.num_classes


def fitted(name: str, image_size: int = 16) -> ImageClassifier:
    torch.manual_seed(0)
    model = create(name, image_size=max(image_size, least_size(name)))
    model.whitening.fit(batch_of(model, 16)[0])
    return model


def test_every_family_is_tested_quickly() -> None:
    assert {describe(name)[0] for name in UNLIKE} == {describe(name)[0] for name in NAMES}, "add a model to UNLIKE"


@pytest.mark.parametrize("name", NAMES)
def test_the_registered_parameter_count_is_exact(name: str) -> None:
    with torch.device("meta"):
        model = create(name)
    assert sum(p.numel() for p in model.parameters()) == ENTRIES[name].parameters


@pytest.mark.parametrize(
    ("depth", "parameters"),
    [(20, 269_722), (32, 464_154), (44, 658_586), (56, 853_018), (110, 1_727_962)],
)
def test_shortcut_a_has_the_papers_parameters(depth: int, parameters: int) -> None:
    with torch.device("meta"):
        model = ResNet(depth=depth, shortcut="A")
    assert complexity(model).parameters == parameters


def test_a_hundred_classes_add_one_row_of_the_classifier_each() -> None:
    with torch.device("meta"):
        models = [create(name, num_classes=100) for name in ("resnext29", "wrn28_10")]
    assert [complexity(model).parameters for model in models] == [4_868_004, 36_536_884]


def test_multiply_accumulates_agree_with_published_ones() -> None:
    """On the page, which is that of the models: see test_docs.py."""
    page = (Path(__file__).parents[1] / "docs/models.md").read_text()
    found = dict(re.findall(r"^\| `(\w+)` \| `\w+` \| [\d,]+ \| ([\d,.]+) \|", page, flags=re.MULTILINE))
    for name, millions in MACS.items():
        assert float(found[name].replace(",", "")) == pytest.approx(millions, rel=1e-3)


# What others get wrong


def shapes(network: nn.Module, size: int = 32) -> dict[str, tuple[int, ...]]:
    """Output shapes of the network's direct children, without the batch."""
    found: dict[str, tuple[int, ...]] = {}
    for name, child in network.named_children():
        child.register_forward_hook(lambda _m, _i, output, name=name: found.update({name: tuple(output.shape[1:])}))
    network.eval()(torch.zeros(1, 3, size, size))
    return found


def test_resnet_has_a_3x3_stem_without_pooling_and_halves_in_stages_2_and_3() -> None:
    found = shapes(create("resnet20").network)
    assert (found["conv1"], found["layer1"]) == ((16, 32, 32), (16, 32, 32))
    assert (found["layer2"], found["layer3"], found["pool"]) == ((32, 16, 16), (64, 8, 8), (64,))


def test_resnet18_for_small_images_has_a_3x3_stem_without_pooling() -> None:
    network = create("resnet18").network
    found, conv1 = shapes(network), network.get_submodule("conv1")
    assert found["layer1"] == (64, 32, 32) and found["layer4"] == (512, 4, 4)
    assert isinstance(conv1, nn.Conv2d) and conv1.kernel_size == (3, 3)


def test_resnext_output_width_does_not_depend_on_cardinality_and_width() -> None:
    for cardinality, base_width in ((1, 64), (32, 4), (8, 14)):
        found = shapes(ResNeXt(cardinality=cardinality, base_width=base_width).network)
        assert found["layer1"] == (256, 32, 32) and found["layer3"] == (1024, 8, 8)


def test_resnext_strides_on_the_grouped_3x3_and_its_first_1x1_is_dense() -> None:
    block = create("resnext29").network.get_submodule("layer2.0")
    conv1, conv2, conv3 = block.conv1, block.conv2, block.conv3
    assert isinstance(conv1, nn.Conv2d) and isinstance(conv2, nn.Conv2d) and isinstance(conv3, nn.Conv2d)
    assert conv1.groups == 1 and conv1.stride == (1, 1) and conv1.kernel_size == (1, 1)
    assert conv2.groups == 32 and conv2.stride == (2, 2) and conv2.kernel_size == (3, 3)
    assert conv3.stride == (1, 1)


def test_resnext_paths_are_floor_of_planes_times_width_over_64_channels_wide() -> None:
    network = ResNeXt(cardinality=8, base_width=14).network
    widths = [network.get_submodule(f"layer{n}.0.conv2").out_channels for n in (1, 2, 3)]
    assert widths == [8 * 14, 8 * 28, 8 * 56]
    assert ResNeXt(cardinality=3, base_width=5).network.get_submodule("layer1.0.conv2").out_channels == 15


@pytest.mark.parametrize("wrong", [9_128_778, 4_774_218, 27_104_586, 89_598_282])
def test_no_resnext_has_the_count_of_a_known_wrong_implementation(wrong: int) -> None:
    assert wrong not in [entry.parameters for entry in ENTRIES.values()]


def test_resnext_is_the_same_function_as_its_separate_paths() -> None:
    """Form C of the paper's Figure 3 equals form A: a sum of bottlenecks, each seeing all input channels."""
    conv1, conv2, conv3 = nn.Conv2d(16, 8, 1), nn.Conv2d(8, 8, 3, padding=1, groups=4), nn.Conv2d(8, 16, 1)
    x = torch.randn(2, 16, 5, 5)
    paths = []
    for path in range(4):
        rows = slice(2 * path, 2 * path + 2)
        inner = nn.functional.conv2d(x, conv1.weight[rows], conv1.bias[rows] if conv1.bias is not None else None)
        inner = nn.functional.conv2d(inner, conv2.weight[rows], conv2.bias[rows], padding=1)  # type: ignore[index]
        paths.append(nn.functional.conv2d(inner, conv3.weight[:, rows]))
    assert conv3.bias is not None
    together = torch.stack(paths).sum(0) + conv3.bias[:, None, None]
    assert torch.allclose(conv3(conv2(conv1(x))), together, atol=1e-5)


def test_option_a_subsamples_and_pads_with_zero_channels() -> None:
    shortcut = ResNet(shortcut="A").network.get_submodule("layer2.0.downsample")
    x = torch.randn(2, 16, 8, 8)
    y = shortcut(x)
    assert list(shortcut.parameters()) == []
    assert torch.equal(y[:, 8:24], x[:, :, ::2, ::2]) and not y[:, :8].any() and not y[:, 24:].any()


def test_the_shortcut_is_the_identity_where_nothing_changes() -> None:
    for network, block in ((create("resnet20").network, "layer2.1"), (create("resnext29").network, "layer2.1")):
        assert not list(network.get_submodule(f"{block}.downsample").parameters())


def test_a_residual_block_whose_branch_is_zero_is_the_identity_on_positive_inputs() -> None:
    block = create("resnet20").network.get_submodule("layer1.0")
    nn.init.zeros_(block.get_submodule("bn2").weight)  # type: ignore[arg-type]
    x = torch.rand(2, 16, 8, 8)
    assert torch.equal(block(x), x)


def test_wide_resnet_drops_between_its_convolutions_and_activates_before_the_shortcut() -> None:
    block = WideResNet(depth=10, width=1, dropout=0.3).network.get_submodule("layer2.0")
    order = [name for name, _ in block.named_children()]
    assert order == ["bn1", "activation1", "conv1", "bn2", "activation2", "dropout", "conv2", "scale", "downsample"]
    seen: dict[str, Tensor] = {}
    for name in ("conv1", "downsample", "conv2", "dropout"):
        block.get_submodule(name).register_forward_pre_hook(lambda _m, args, name=name: seen.update({name: args[0]}))
    block(torch.randn(2, 16, 8, 8))
    assert torch.equal(seen["conv1"], seen["downsample"]) and seen["conv1"].min() == 0
    zeros = (seen["conv2"] == 0) & (seen["dropout"] > 0)
    assert 0.2 < zeros.sum() / (seen["dropout"] > 0).sum() < 0.4


def test_only_the_classifier_of_a_residual_network_has_a_bias_beside_the_norms() -> None:
    for name in ("resnet20", "resnext29", "wrn16_4"):
        biased = [n for n, m in create(name).network.named_modules() if isinstance(m, nn.Conv2d) and m.bias is not None]
        assert biased == []


def test_convolutions_start_with_the_variance_of_he_et_al_by_fan_out() -> None:
    weight = create("resnext29").network.get_submodule("layer3.1.conv2").weight
    assert isinstance(weight, Tensor)
    assert weight.var().item() == pytest.approx(2 / (9 * weight.shape[0]), rel=0.02)  # not divided by the groups


def test_dropout_scales_what_it_keeps() -> None:
    dropout = FCNN(hidden=[1000], dropout=0.2).network.get_submodule("layers.3")
    kept = dropout(torch.ones(1000, 100))
    assert set(kept.unique().tolist()) == {0.0, 1.25} and kept.mean().item() == pytest.approx(1, abs=0.01)
    assert torch.equal(dropout.eval()(torch.ones(4)), torch.ones(4))


def test_a_cnn_stage_halves_the_image_and_the_channels_double() -> None:
    found = shapes(create("cnn").network.get_submodule("stages"))
    assert list(found.values()) == [(64, 16, 16), (128, 8, 8), (256, 4, 4)]


@pytest.mark.parametrize("pool", ["max", "mean"])
@pytest.mark.parametrize("norm", ["batch", "none"])
def test_a_cnn_takes_every_pool_and_norm(pool: str, norm: str) -> None:
    model = CNN(channels=[4, 8], convolutions=1, pool=pool, norm=norm, whitening="none", image_size=8)
    assert model(batch_of(model)[0]).shape == (4, 10)


# Any data


@pytest.mark.parametrize("name", SMALL_CASES)
@pytest.mark.parametrize(("num_classes", "in_channels", "image_size"), [(2, 1, 8), (100, 4, 9)])
def test_any_number_of_classes_and_channels_and_8_pixels(
    name: str, num_classes: int, in_channels: int, image_size: int
) -> None:
    image_size = max(image_size, least_size(name))
    options: dict[str, Any] = {"num_classes": num_classes, "in_channels": in_channels, "image_size": image_size}
    with torch.device("meta"):
        model = create(name, whitening="none", **options)
    assert model(batch_of(model)[0].to("meta")).shape == (4, num_classes)


def least_size(name: str) -> int:
    return 9 if name == "cnn_fast" else 8  # a 2x2 stem without padding takes a pixel


def test_a_cnn_says_which_images_are_too_small() -> None:
    with pytest.raises(ValueError, match="images of at least 9 pixels"):
        create("cnn_fast", image_size=8)


def test_a_cnn_with_global_pooling_takes_images_of_any_size() -> None:
    model = create("cnn_fast", whitening="none")
    sizes = [tuple(model(torch.zeros(2, 3, size, size)).shape) for size in (16, 24, 32, 40)]
    assert sizes == [(2, 10)] * 4
    assert [tuple(f.shape[1:]) for f in model.features(torch.zeros(1, 3, 32, 32))] == [
        (24, 31, 31),
        (64, 15, 15),
        (256, 7, 7),
        (256, 3, 3),
    ]


def test_the_classifier_of_a_cnn_starts_as_small_as_it_is_told() -> None:
    def spread(**options: Any) -> float:
        return create("cnn_fast", **options).network.get_parameter("fc.weight").std().item()

    assert spread() == pytest.approx(1 / 256, rel=0.05)
    assert spread(classifier_std=0.0) == 0
    assert spread(classifier_std=None) == pytest.approx((3 * 256) ** -0.5, rel=0.05)


def test_the_classifier_of_a_cnn_may_have_no_biases() -> None:
    with_them = create("cnn_fast").network.state_dict()
    network = create("cnn_fast", classifier_bias=False).network
    assert with_them.keys() - network.state_dict().keys() == {"fc.bias"}
    assert network.get_parameter("fc.weight").std().item() == pytest.approx(1 / 256, rel=0.05)
    for init in ("torch", "lsuv"):
        assert "fc.bias" not in create("cnn", classifier_bias=False, init=init).network.state_dict()


def test_the_activation_of_cnn_fast_can_be_chosen() -> None:
    found = {type(module) for module in create("cnn_fast", activation="gelu").network.modules()}
    assert nn.GELU in found and nn.SiLU not in found


@pytest.mark.parametrize(("option", "value"), [("global_pool", "median"), ("stem", -1), ("classifier_std", -0.1)])
def test_a_cnn_refuses_other_stems_and_pools(option: str, value: Any) -> None:
    with pytest.raises(ValueError, match=option):
        CNN(**{option: value})


# Learning


def check_learning(name: str, image_size: int, steps: int = 250) -> None:  # resnet20 needs 20, plain56 about 150
    model = fitted(name, image_size)
    images, labels = batch_of(model, 8)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    for module in model.modules():  # a batch cannot be learned by heart while half of it is dropped
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    for _ in range(steps):
        loss = model.loss(model(images), labels)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if loss.item() < 0.01:
            return
    raise AssertionError(f"{name}: loss {loss.item():.4f} after {steps} steps")


@pytest.mark.parametrize("name", UNLIKE)
def test_one_batch_is_learned_by_heart(name: str) -> None:
    check_learning(name, image_size=8)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_every_model_learns_one_batch_of_its_own_size_by_heart(name: str) -> None:
    check_learning(name, image_size=32)


@pytest.mark.parametrize("name", UNLIKE)
def test_no_gradient_needs_an_operation_that_is_not_deterministic_on_a_gpu(name: str) -> None:
    """The names are those in https://docs.pytorch.org/docs/stable/generated/torch.use_deterministic_algorithms.html."""
    model, names = create(name, image_size=16, whitening="none"), set()
    waiting = [model(torch.rand(2, 3, 16, 16)).grad_fn]
    while waiting:
        if node := waiting.pop():
            names.add(node.name())
            waiting += [before for before, _ in node.next_functions]
    wrong = re.compile("Adaptive|Fractional|MaxPool3D|Pad[123]D|Upsample|GridSampler|MaxUnpool")
    assert names and not list(filter(wrong.match, names))


@pytest.mark.parametrize("name", SMALL_CASES)
def test_every_trainable_parameter_gets_a_gradient(name: str) -> None:
    model = fitted(name, 8)
    images, labels = batch_of(model)
    model.loss(model(images), labels).backward()  # type: ignore[no-untyped-call]
    without = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert without == []


# Saving


def check_round_trip(name: str, path: Path) -> None:
    model = fitted(name).eval()
    trainer = Trainer(logger=False, enable_checkpointing=False, enable_progress_bar=False)
    trainer.strategy.connect(model)
    trainer.save_checkpoint(path, weights_only=True)
    images, _ = batch_of(model)
    again = load(path)
    assert not again.training and type(again) is type(model)
    assert torch.equal(again(images), model(images))


@pytest.mark.parametrize("name", SMALL_CASES)
def test_a_saved_model_gives_the_same_logits_bit_for_bit(name: str, tmp_path: Path) -> None:
    check_round_trip(name, tmp_path / "model.ckpt")


@pytest.mark.slow
@pytest.mark.parametrize("name", LARGE)
def test_a_saved_large_model_gives_the_same_logits_bit_for_bit(name: str, tmp_path: Path) -> None:
    check_round_trip(name, tmp_path / "model.ckpt")


# Names and options


def test_every_name_is_found_again_from_its_shape() -> None:
    assert [name_of(*describe(name)) for name in NAMES] == NAMES
    assert name_of("ResNet", {"depth": 26, "shortcut": "B"}) == "resnet"


def test_every_family_is_known_by_its_class_name() -> None:
    families = {"CNN", "FCNN", "Linear", "ResNeXt", "ResNet", "Timm", "WideResNet", "Wrapped"}
    assert {name for name, family in FAMILIES.items() if family.__module__.startswith("cvcc_zoo")} == families
    assert architecture(ResNeXt().hparams) == describe("resnext29")[1]


@pytest.mark.parametrize(
    ("family", "options", "message"),
    [
        ("ResNet", {"depth": 21}, r"depth 6n \+ 2 .* or 18, not 21"),
        ("ResNet", {"shortcut": "C"}, "no shortcut named 'C'; known are: A, B, none"),
        ("ResNeXt", {"depth": 30}, r"depth 9n \+ 2"),
        ("ResNeXt", {"cardinality": 0}, "cardinality and base_width must be at least 1"),
        ("WideResNet", {"depth": 17}, r"depth 6n \+ 4"),
        ("WideResNet", {"width": 0}, "width must be at least 1"),
        ("WideResNet", {"dropout": 1.0}, r"dropout must be in \[0, 1\)"),
        ("FCNN", {"hidden": []}, "at least one hidden layer"),
        ("FCNN", {"hidden": [10.5]}, r"hidden must be a list of whole numbers, got \[10.5\]"),
        ("FCNN", {"hidden": "64"}, "hidden must be a list of whole numbers, got '64'"),
        ("FCNN", {"norm": ["batch"]}, "a norm has a name, not"),
        ("FCNN", {"activation": ["relu"]}, "a activation has a name, not"),
        ("FCNN", {"dropout": "0.2"}, "dropout must be a number, got '0.2'"),
        ("ResNet", {"depth": 20.0}, "depth must be a whole number, got 20.0"),
        ("ResNeXt", {"base_width": 4.5}, "base_width must be a whole number, got 4.5"),
        ("WideResNet", {"width": "4"}, "width must be a whole number, got '4'"),
        ("CNN", {"channels": 64}, "channels must be a list of whole numbers, got 64"),
        ("CNN", {"convolutions": 1.5}, "convolutions must be a whole number, got 1.5"),
        ("CNN", {"classifier_std": "a"}, "classifier_std must be a number, got 'a'"),
        ("FCNN", {"norm": "bach"}, "no norm named 'bach'; did you mean batch"),
        ("FCNN", {"activation": "rellu"}, "did you mean relu"),
        ("FCNN", {"dropout": -0.1}, r"dropout must be in \[0, 1\)"),
        ("CNN", {"channels": [8, 8, 8, 8], "image_size": 8}, "4 stages are too many for images of 8 pixels"),
        ("CNN", {"pool": "average"}, "no pool named 'average'"),
        ("CNN", {"convolutions": 0}, "at least one stage and one convolution"),
        ("CNN", {"dropout": 1.5}, r"dropout must be in \[0, 1\)"),
        ("Linear", {"num_classes": 1}, "num_classes must be at least 2"),
        ("Linear", {"in_channels": 0}, "in_channels must be at least 1"),
        ("Linear", {"image_size": 7}, "image_size must be at least 8 pixels, got 7; resize"),
        ("Linear", {"optimizer": 3}, "optimizer must be a name, a dict"),
        ("Linear", {"lr_scheduler": "Cosinus"}, "no lr_scheduler named 'Cosinus'"),
        ("Linear", {"optimizer": {"name": "SGD", "lrr": 1}}, "no option of optimizer SGD named 'lrr'; did you mean lr"),
    ],
)
def test_wrong_shapes_are_refused_with_advice(family: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        getattr(cvcc_zoo, family)(**options)
