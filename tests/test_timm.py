"""The residual networks in timm: the same numbers as ours, through timm's own functions."""

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import timm
import timm.data
import timm.models
import torch
from PIL import Image
from timm.optim import create_optimizer_v2  # type: ignore[attr-defined]  # it has no __all__
from torch import Tensor, nn

import cvcc_zoo.integrations.timm as bridge
from cvcc_zoo import create, list_models
from cvcc_zoo.integrations.residual import check_whole
from cvcc_zoo.weights.card import write
from cvcc_zoo.zoo.catalogue import describe
from tests.test_weights import IMAGES, card_of, change, published, trained

DATA: Any = timm.data  # it has no types


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The weights resnet20.pets, known to timm; afterwards it knows none of them."""
    monkeypatch.setattr("cvcc_zoo.weights.card.PUBLISHED", tmp_path / "package")
    monkeypatch.setenv("CVCC_ZOO_HOME", str(tmp_path / "home"))
    published(tmp_path / "home")
    bridge.register()
    yield tmp_path / "home"
    monkeypatch.setenv("CVCC_ZOO_HOME", str(tmp_path / "empty"))
    bridge.register()


def make(name: str, **options: Any) -> Any:
    """timm's create_model."""
    return timm.create_model(name, **options)


def normalised(images: Tensor, model: Any) -> Tensor:
    """Raw images as a user of timm gives them to a model: by the mean and std of its config."""
    mean, std = (torch.tensor(model.pretrained_cfg[key])[:, None, None] for key in ("mean", "std"))
    result: Tensor = (images / 255 - mean) / std
    return result


def test_every_residual_network_is_in_timm_under_its_name() -> None:
    names = [name for name in list_models() if name != "resnext29" and describe(name)[0] in bridge.FAMILIES]
    assert set(timm.list_models("cvcc_*")) == {f"cvcc_{name}" for name in names}
    assert timm.is_model("cvcc_resnext29_32x4d") and not timm.is_model("cvcc_linear")
    for name in names:
        with torch.device("meta"):
            model, ours = make(f"cvcc_{name}", num_classes=10), create(name)
        assert sum(p.numel() for p in model.parameters()) == sum(p.numel() for p in ours.network.parameters())
    assert (make("cvcc_resnet20").num_classes, make("cvcc_resnet32").num_classes) == (3, 10)  # as in the first card


def test_timms_own_models_and_modules_stay_as_they_are() -> None:
    assert set(timm.list_models(module="timm")) == set(timm.list_models("cvcc_*"))
    assert not set(timm.list_models(module="resnet")) & set(timm.list_models("cvcc_*"))
    assert all(hasattr(bridge, name) for name in vars(bridge)["__all__"])


@pytest.mark.parametrize("name", ["cvcc_resnet20.pets", "cvcc_resnet20"])
def test_the_model_in_timm_gives_our_logits(name: str) -> None:
    ours = create("resnet20.pets").eval()
    model = make(name, pretrained=True).eval()
    assert torch.allclose(model(normalised(IMAGES, model)), ours(IMAGES), rtol=1e-5, atol=1e-5)
    inputs = ours._whiten(IMAGES)
    assert torch.equal(model(inputs), ours(IMAGES)), "the network itself is the same to the bit"


def test_the_preprocessing_of_timm_is_ours() -> None:
    model = make("cvcc_resnet20.pets", pretrained=True).eval()
    data = DATA.resolve_model_data_config(model)
    assert (data["input_size"], data["crop_pct"], data["interpolation"]) == ((3, 8, 8), 1.0, "bilinear")
    transform = DATA.create_transform(**data, is_training=False)
    pictures = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in IMAGES]
    inputs = torch.stack([transform(picture) for picture in pictures])
    assert torch.allclose(model(inputs), create("resnet20.pets")(IMAGES), rtol=1e-5, atol=1e-5)


def test_the_config_says_what_the_card_says() -> None:
    config: Any = timm.models.get_pretrained_cfg("cvcc_resnet20.pets")
    assert (config.num_classes, config.label_names, config.license) == (3, ("cat", "cow", "dog"), "MIT")
    assert (config.pool_size, config.architecture, config.tag) == ((2, 2), "cvcc_resnet20", "pets")
    module = make("cvcc_resnet20").get_submodule(config.first_conv)
    assert isinstance(module, nn.Conv2d) and module.in_channels == 3


def test_cards_that_come_later_are_listed_after_register(home: Path) -> None:
    assert timm.list_pretrained("cvcc_*") == ["cvcc_resnet20.pets"]
    published(home, trained("wrn16_4"))
    assert make("cvcc_wrn16_4.pets", pretrained=True).num_classes == 3  # found without being listed
    assert "cvcc_wrn16_4" in bridge.register()
    assert timm.list_pretrained("cvcc_*") == ["cvcc_resnet20.pets", "cvcc_wrn16_4.pets"]
    assert len(timm.list_models("cvcc_*")) == len(bridge.register())


def test_another_file_under_the_name_is_taken_with_its_own_statistics(home: Path) -> None:
    other = trained()
    other.whitening.mean.fill_(0.25)
    write(home, card_of(other), other.state_dict())
    model = make("cvcc_resnet20", pretrained=True).eval()
    assert torch.allclose(model(normalised(IMAGES, model)), other(IMAGES), rtol=1e-5, atol=1e-5)


# Other classes and channels


def test_another_number_of_classes_gives_a_fresh_classifier_and_nothing_else() -> None:
    given = make("cvcc_resnet20.pets", pretrained=True).state_dict()
    for classes in (7, 1, 0):
        model = make("cvcc_resnet20.pets", pretrained=True, num_classes=classes)
        state = model.state_dict()
        same = {name for name in given if name in state and torch.equal(given[name], state[name])}
        assert same == {name for name in given if not name.startswith("network.fc.")}
        assert model(torch.zeros(2, 3, 8, 8)).shape == (2, classes or 64)


def test_grey_images_give_what_they_gave_in_three_channels() -> None:
    model = make("cvcc_resnet20.pets", pretrained=True).eval()
    grey = make("cvcc_resnet20.pets", pretrained=True, in_chans=1).eval()
    images = torch.rand(2, 1, 8, 8)
    assert torch.allclose(grey(images), model(images.expand(-1, 3, -1, -1)), rtol=1e-4, atol=1e-5)
    assert make("cvcc_resnet20.pets", pretrained=True, in_chans=5)(torch.rand(2, 5, 8, 8)).shape == (2, 3)


# The methods that timm calls


def test_the_head_can_be_taken_apart_and_replaced() -> None:
    model = make("cvcc_resnet20.pets", pretrained=True).eval()
    images = torch.rand(2, 3, 8, 8)
    maps = model.forward_features(images)
    pooled = model.forward_head(maps, pre_logits=True)
    assert (maps.shape, pooled.shape) == ((2, 64, 2, 2), (2, model.num_features))
    assert torch.equal(model.get_classifier()(pooled), model(images))
    model.reset_classifier(0)
    assert torch.equal(model(images), pooled)
    model.reset_classifier(0, "")
    assert torch.equal(model(images), maps)
    model.reset_classifier(5, "avg")
    assert model(images).shape == (2, 5) and model.get_classifier().bias.abs().sum() == 0


def test_a_classifier_that_comes_back_gets_its_pooling_and_the_mode_of_the_network() -> None:
    model = make("cvcc_resnet20.pets", pretrained=True).eval()
    model.reset_classifier(0, "")
    model.reset_classifier(4)
    assert model(torch.rand(2, 3, 8, 8)).shape == (2, 4)
    model.prune_intermediate_layers([1])
    assert not any(module.training for module in model.modules())


def test_a_model_is_built_on_the_device_and_of_the_type_that_are_asked_for() -> None:
    model = make("cvcc_resnet20", device="meta", dtype=torch.bfloat16)
    assert {(p.device.type, p.dtype) for p in model.parameters()} == {("meta", torch.bfloat16)}


@pytest.mark.parametrize("name", ["cvcc_resnet20", "cvcc_wrn16_4"])
def test_a_model_without_its_last_parts_gives_the_maps_of_the_last_that_is_left(name: str) -> None:
    whole, images = make(name).eval(), torch.randn(2, 3, 16, 16)
    maps = whole.forward_intermediates(images, intermediates_only=True)
    for index, expected in enumerate(maps):
        model = copy.deepcopy(whole)
        assert model.prune_intermediate_layers([index], prune_head=False) == [index]
        assert model.num_features == model.head_hidden_size == expected.shape[1]
        if index < len(maps) - 1:
            assert torch.equal(model(images), expected) and torch.equal(model.forward_features(images), expected)
        else:
            assert torch.equal(model(images), whole(images))


def test_dropout_before_the_classifier_is_for_training_alone() -> None:
    model = make("cvcc_resnet20", drop_rate=0.5)
    maps = torch.ones(2, 64, 2, 2)
    assert set(model.forward_head(maps, pre_logits=True).unique().tolist()) == {0.0, 2.0}
    assert model.eval().forward_head(maps, pre_logits=True).unique().tolist() == [1.0]


@pytest.mark.parametrize("name", ["resnet20", "resnet18", "resnext20_16x4d", "wrn16_4"])
def test_features_are_those_of_our_model_and_as_announced(name: str) -> None:
    torch.manual_seed(0)
    model = make(f"cvcc_{name}", features_only=True).eval()
    images = torch.rand(2, 3, 16, 16)
    maps = model(images)
    network = create(name).parted.eval()
    network.fc = nn.Identity()  # type: ignore[assignment]
    state = {key.removeprefix("model.network."): tensor for key, tensor in model.state_dict().items()}
    network.load_state_dict(state)
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(network.features(images), maps, strict=True))
    assert [x.shape[1] for x in maps] == model.feature_info.channels()
    assert [16 // x.shape[2] for x in maps] == model.feature_info.reduction()
    modules = dict(model.model.named_modules())
    assert all(module in modules for module in model.feature_info.module_name())


def test_chosen_features_cost_nothing_behind_the_last() -> None:
    images = torch.rand(2, 3, 8, 8)
    all_maps = make("cvcc_resnet20.pets", pretrained=True, features_only=True).eval()(images)
    model = make("cvcc_resnet20.pets", pretrained=True, features_only=True, out_indices=(0, -2)).eval()
    first, third = model(images)
    assert torch.equal(first, all_maps[0]) and torch.equal(third, all_maps[2])
    assert (model.feature_info.channels(), model.feature_info.reduction()) == ([16, 32], [1, 2])
    assert not any("layer3" in name or "fc" in name for name, _ in model.named_parameters())


def test_intermediates_of_the_whole_model() -> None:
    model = make("cvcc_wrn16_4").eval()
    images = torch.rand(2, 3, 8, 8)
    last, maps = model.forward_intermediates(images, indices=2)
    assert len(maps) == 2 and torch.equal(last, maps[1]) and torch.equal(last, model.forward_features(images))
    early, (second,) = model.forward_intermediates(images, indices=[1], stop_early=True)
    assert torch.equal(early, second) and second.shape == (2, 64, 8, 8)
    with pytest.raises(ValueError, match="give output_fmt='NCHW', got 'NLC'"):
        model.forward_intermediates(images, output_fmt="NLC")


@pytest.mark.parametrize("name", ["cvcc_resnet20", "cvcc_wrn16_4"])
def test_groups_of_parameters_go_from_the_images_to_the_classifier(name: str) -> None:
    model = make(name)
    for coarse, count in ((True, 5), (False, 1 + len([m for m in model.modules() if hasattr(m, "conv2")]) + 1)):
        groups = timm.models.group_parameters(model, model.group_matcher(coarse))
        assert len(groups) == count and "network.conv1.weight" in groups[0] and "network.fc.weight" in groups[count - 1]
        assert sum(map(len, groups.values())) == len(list(model.parameters()))
    assert model.no_weight_decay() == set()
    optimizer = create_optimizer_v2(model, "sgd", lr=0.1, weight_decay=1e-4, layer_decay=0.5)
    scale = {id(p): group["lr_scale"] for group in optimizer.param_groups for p in group["params"]}
    assert scale[id(model.network.fc.weight)] == 1 > scale[id(model.network.layer1[0].conv1.weight)]


def test_checkpointing_keeps_less_and_gives_the_same_gradients() -> None:
    images, kept = torch.rand(4, 3, 16, 16), list[int]()

    def pack(tensor: Tensor) -> Tensor:
        kept[-1] += tensor.numel()
        return tensor

    gradients = []
    for enable in (False, True):
        torch.manual_seed(0)
        model = make("cvcc_resnet20")
        model.set_grad_checkpointing(enable)
        kept.append(0)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = model(images).square().sum()
        loss.backward()
        gradients.append([p.grad for p in model.parameters()])
    assert kept[1] < 0.5 * kept[0]
    for whole, again in zip(*gradients, strict=True):
        assert whole is not None and again is not None and torch.allclose(whole, again, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("options", [{}, {"num_classes": 7}, {"in_chans": 1}, {"num_classes": 0, "global_pool": ""}])
def test_a_model_saved_for_the_hub_comes_back_with_the_same_numbers(tmp_path: Path, options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    model = make("cvcc_resnet20.pets", pretrained=True, **options).eval()
    timm.models.save_for_hf(model, str(tmp_path / "saved"), safe_serialization=True)
    assert str(tmp_path) not in (tmp_path / "saved/config.json").read_text()
    back = make(f"local-dir:{tmp_path / 'saved'}", pretrained=True).eval()
    images = torch.rand(2, model.in_chans, 8, 8)
    assert torch.equal(back(images), model(images))
    more = make(f"local-dir:{tmp_path / 'saved'}", pretrained=True, num_classes=4, global_pool="avg")
    assert more(images).shape == (2, 4)


# What is wrong


def test_a_file_that_timm_reads_itself_must_be_whole(tmp_path: Path) -> None:
    model = make("cvcc_resnet20", num_classes=3)
    for broken in (
        {"network.bn1.weight": None},
        {"network.layer1.0.conv1.weight": torch.zeros(1)},
        {"x": torch.ones(1)},
    ):
        tensors: dict[str, Any] = model.state_dict() | broken
        tensors = {name: tensor for name, tensor in tensors.items() if tensor is not None}
        torch.save(tensors, tmp_path / "broken.pt")
        with pytest.raises(ValueError, match=f"these are not the weights of this model: {next(iter(broken))} differ"):
            make(
                "cvcc_resnet20.pets",
                pretrained=True,
                num_classes=7,
                pretrained_cfg_overlay={"file": str(tmp_path / "broken.pt")},
            )
    assert check_whole(model.state_dict(), make("cvcc_resnet20", num_classes=9, in_chans=1))


def test_a_flipped_bit_is_found_at_loading_and_does_not_stop_the_import(home: Path) -> None:
    file = home / "resnet20.pets.safetensors"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    for name in ("cvcc_resnet20.pets", "cvcc_resnet20"):
        with pytest.raises(ValueError, match=r"is not the file that its card describes: .* get it again"):
            make(name, pretrained=True)
    with pytest.warns(UserWarning, match=r"resnet20.pets is not in timm: .* get it again"):
        bridge.register()
    assert timm.list_pretrained("cvcc_*") == []
    file.write_bytes(b"")
    (home / "resnet20.pets.json").write_text("{")
    with pytest.warns(UserWarning, match="is not a card"):
        bridge.register()


def test_the_card_of_another_model_is_refused(home: Path) -> None:
    content = json.loads((home / "resnet20.pets.json").read_text())
    change(home / "resnet20.pets.json", hparams={**content["hparams"], "depth": 32})
    with pytest.raises(ValueError, match="is the card of a resnet32, not of a resnet20"):
        make("cvcc_resnet20.pets", pretrained=True)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"whitening": {"name": "zca", "eps": 0.1}}, "whitens its images with zca, but timm can only subtract a mean"),
        ({"patch_whitening": 0.1}, "whitens patches and must not be trained"),
    ],
)
def test_whitening_that_timm_cannot_do_is_left_out_with_the_reason(
    home: Path, options: dict[str, Any], reason: str
) -> None:
    model = create("resnet32", image_size=8, num_classes=3, **options)
    if "patch_whitening" not in options:
        model.whitening.fit(torch.randint(0, 256, (300, 3, 8, 8), dtype=torch.uint8))
    write(home, card_of(model), model.state_dict())
    with pytest.warns(UserWarning, match=f"resnet32.pets is not in timm: .*{reason}"):
        bridge.register()
    assert timm.list_pretrained("cvcc_*") == ["cvcc_resnet20.pets"]
    with pytest.raises(ValueError, match=rf"{reason}.*use cvcc_zoo.create\('resnet32.pets'\)"):
        make("cvcc_resnet32.pets", pretrained=True)


def test_no_whitening_is_mean_0_and_std_1(home: Path) -> None:
    ours = trained("resnet32", whitening="none")
    ours.whitening.mean.zero_()
    ours.whitening.std.fill_(1.0)
    published(home, ours)
    model = make("cvcc_resnet32.pets", pretrained=True).eval()
    assert (model.pretrained_cfg["mean"], model.pretrained_cfg["std"]) == ((0.0,) * 3, (1.0,) * 3)
    assert torch.allclose(model(normalised(IMAGES, model)), ours(IMAGES), rtol=1e-5, atol=1e-5)


def test_wrong_names_and_options_are_answered() -> None:
    with pytest.raises(RuntimeError, match="No pretrained weights exist for cvcc_resnet32"):
        make("cvcc_resnet32", pretrained=True)
    with pytest.raises(ValueError, match=r"no published weight named 'resnet20.pet'; did you mean resnet20.pets"):
        make("cvcc_resnet20.pet", pretrained=True)
    with pytest.raises(ValueError, match="takes global_pool='avg', or global_pool='' with num_classes=0"):
        make("cvcc_resnet20", global_pool="max")
    with pytest.raises(ValueError, match="takes global_pool='avg'"):
        make("cvcc_resnet20", global_pool="")
    with pytest.raises(ValueError, match="supports feature_cls='getter' only; leave feature_cls out"):
        make("cvcc_resnet20", features_only=True, feature_cls="hook")
    with pytest.raises(AssertionError, match="feature index 4 is out of range"):
        make("cvcc_resnet20", features_only=True, out_indices=(4,))
    with pytest.raises(ValueError, match="in_channels must be at least 1"):
        make("cvcc_resnet20", in_chans=0)
