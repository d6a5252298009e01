"""First weights: what each initialisation promises, forwards, backwards and at the first step."""

import copy
import math
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning import Trainer
from torch import Tensor, nn

from cvcc_zoo import CNN, FCNN, ImageDataModule, ResNet, ResNeXt, WideResNet, create, load
from cvcc_zoo.__main__ import main
from cvcc_zoo.classifier import ImageClassifier
from cvcc_zoo.classifier.compatibility import check_model, complete
from cvcc_zoo.classifier.network import Network
from cvcc_zoo.models.initialisation import INITS, ResidualBlock, check_init, dirac, initialise, lsuv
from cvcc_zoo.models.layers import NORMS, Scale, Shift, ShiftedConv2d
from cvcc_zoo.zoo.catalogue import complexity, describe, name_of
from tests.conftest import Fit

SMALL: dict[str, Callable[..., ImageClassifier]] = {
    "FCNN": lambda **options: FCNN(hidden=[16, 16], **options),
    "CNN": lambda **options: CNN(channels=[8, 16], convolutions=2, **options),
    "plain": lambda **options: ResNet(depth=8, shortcut="none", **options),
    "ResNet": lambda **options: ResNet(depth=8, **options),
    "ResNet A": lambda **options: ResNet(depth=14, shortcut="A", **options),
    "ResNeXt": lambda **options: ResNeXt(depth=11, cardinality=4, base_width=4, **options),
    "WideResNet": lambda **options: WideResNet(depth=10, width=1, **options),
}
RESIDUAL = ["ResNet", "ResNet A", "ResNeXt", "WideResNet"]


def build(name: str, **options: Any) -> Any:
    torch.manual_seed(0)
    return SMALL[name](**{"image_size": 8, "whitening": "none", **options})


def images(count: int = 4, channels: int = 3) -> Tensor:
    return torch.rand(count, channels, 8, 8, generator=torch.Generator().manual_seed(1))


def blocks(network: nn.Module) -> list[Any]:
    return [module for module in network.modules() if isinstance(module, ResidualBlock)]


def layers(network: nn.Module) -> list[nn.Conv2d | nn.Linear]:
    return [module for module in network.modules() if isinstance(module, nn.Conv2d | nn.Linear)]


# Every name with every family


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("name", SMALL)
def test_every_family_takes_an_initialisation_or_names_those_that_it_takes(name: str, norm: str) -> None:
    taken = set()
    for init in INITS:
        try:
            model = build(name, norm=norm, init=init)
        except ValueError as error:
            assert "choose" in str(error) or "did you mean" in str(error) or "known are" in str(error)
        else:
            taken.add(init)
            assert model(images()).isfinite().all() and model.hparams["init"] == init
            if norm in ("batch", "none"):  # with which each initialisation is taken by some network
                with torch.device("meta"):  # as a file is looked at before it is loaded
                    build(name, norm=norm, init=init)
    plain = {"kaiming", "xavier", "orthogonal", "torch", "dirac", "lsuv"}
    more = {"fixup", "skipinit"} if norm == "none" else {"zero_residual"}
    expected = plain | (more if name in RESIDUAL else set())
    assert taken == (set() if (name, norm) == ("FCNN", "group") else expected)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("FCNN", {"init": "kaimin"}, "no init named 'kaimin'; did you mean kaiming"),
        ("ResNet", {"init": "fix_up"}, "no init named 'fix_up'; did you mean fixup"),
        ("CNN", {"init": ["xavier"]}, "a init has a name, not"),
        ("CNN", {"init": "fixup"}, "residual branches at zero, and this network has none; choose init kaiming, xavier"),
        ("plain", {"init": "zero_residual"}, "and this network has none"),
        ("ResNet", {"init": "fixup"}, "for networks without norms; give norm='none', or with norm='batch' choose"),
        ("WideResNet", {"init": "skipinit", "norm": "layer"}, "or with norm='layer' choose init .*zero_residual"),
        ("ResNeXt", {"init": "zero_residual", "norm": "none"}, "there are none; choose init .*fixup, skipinit"),
        ("ResNet", {"norm": "bach"}, "no norm named 'bach'; did you mean batch"),
        ("ResNeXt", {"activation": "rellu"}, "no activation named 'rellu'; did you mean relu"),
        ("WideResNet", {"pool": "men"}, "no pool named 'men'; did you mean mean"),
        ("ResNet", {"pool": ["mean"]}, "a pool has a name, not"),
        ("CNN", {"pool": ["mean"]}, "a pool has a name, not"),
        ("CNN", {"norm": "groups"}, "no norm named 'groups'; did you mean group"),
    ],
)
def test_wrong_names_are_refused_with_advice(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(name, **options)


def test_what_is_said_to_be_possible_is() -> None:
    for residual in (True, False):
        for norm in ("batch", "none"):
            with pytest.raises(ValueError, match="choose init") as caught:
                check_init("skipinit" if norm == "batch" else "zero_residual", norm, residual=residual)
            for init in str(caught.value).rpartition("choose init ")[2].split(", "):
                check_init(init, norm, residual=residual)


# Single rules; what becomes of the signal is in test_signals.py


def test_orthogonal_weights_keep_every_length_in_a_linear_network() -> None:
    weight = FCNN(hidden=[64, 64], norm="none", init="orthogonal", dropout=0.0).network.get_parameter("layers.2.weight")
    assert torch.allclose(weight @ weight.T, 2 * torch.eye(64), atol=1e-5)


def test_torch_is_what_torch_does_by_itself() -> None:
    fc, own = build("plain", init="torch").network.fc, build("plain").network.fc
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 16, 3, padding=1, bias=False)
    assert torch.equal(build("plain", init="torch").network.conv1.weight, conv.weight)
    assert torch.equal(fc.weight, own.weight) and fc.bias.any() and not own.bias.any()


def test_xavier_is_uniform_with_the_variance_of_both_fans() -> None:
    weight = build("ResNeXt", init="xavier").network.get_submodule("layer3.0.conv3").weight
    limit = math.sqrt(6 / (weight.shape[0] + weight.shape[1]))
    assert 0.99 * limit < weight.abs().max() <= limit
    assert weight.var().item() == pytest.approx(limit**2 / 3, rel=0.02)


# The identity


def test_a_dirac_convolution_passes_its_input_on_bit_for_bit() -> None:
    for conv in (nn.Conv2d(16, 16, 3, padding=1, bias=False), nn.Conv2d(16, 16, 3, padding=1, groups=4, bias=False)):
        dirac(conv)
        x = torch.randn(2, 16, 5, 5)
        assert torch.equal(conv(x), x)


def test_dirac_leaves_new_channels_to_kaiming_because_zeros_would_never_learn() -> None:
    conv, x = nn.Conv2d(16, 32, 3, padding=1, bias=False), torch.randn(2, 16, 5, 5)
    nn.init.dirac_(conv.weight)
    assert not conv(x)[:, 16:].any()  # torch's
    (conv(x).relu() ** 2).sum().backward()
    assert conv.weight.grad is not None and not conv.weight.grad[16:].any()
    dirac(conv)
    assert torch.equal(conv(x)[:, :16], x) and conv.weight.flatten(1).any(1).all()
    assert conv.weight[16:].std().item() == pytest.approx(math.sqrt(2 / (9 * 32)), rel=0.1)
    narrow = nn.Conv2d(32, 16, 1, bias=False)
    dirac(narrow)
    y = torch.randn(2, 32, 5, 5)
    assert torch.equal(narrow(y), y[:, :16])


def test_a_fully_connected_network_of_identities_gives_its_first_inputs() -> None:
    model = build("FCNN", init="dirac", norm="none", dropout=0.0)
    x = images()
    assert torch.equal(model.features(x)[-1], x.flatten(1)[:, :16])


# Residual branches that start at zero


def inputs_of(block: Any, *, positive: bool) -> Tensor:
    x = torch.randn(4, block.get_submodule(block.branch[0]).in_channels, 4, 4, requires_grad=True)
    return x.detach().abs().requires_grad_() if positive else x


@pytest.mark.parametrize("name", RESIDUAL)
@pytest.mark.parametrize("init", ["zero_residual", "skipinit", "fixup"])
def test_a_block_is_its_shortcut_and_only_its_end_learns_at_first(name: str, init: str) -> None:
    network = build(name, init=init, norm="batch" if init == "zero_residual" else "none").network
    same = 0
    for block in blocks(network):
        x = inputs_of(block, positive=True)
        y = block(x)
        if y.shape == x.shape and not list(getattr(block.downsample, "parameters", list)()):
            same += 1
            assert torch.equal(y, x)
        (y * torch.randn_like(y)).sum().backward()
        learn = {n for n, p in block.named_parameters() if p.grad is not None and p.grad.any()}
        learn = {n for n in learn if not n.startswith("downsample")}
        if name == "WideResNet" and block.downsample is not None:
            learn -= {"bn1.weight", "bn1.bias", "conv1.bias"}  # the shortcut sees what comes after the first norm
        expected = {
            "zero_residual": {f"{block.last}.weight", "bn2.bias" if name.startswith("ResNet") else "bn3.bias"},
            "skipinit": {"scale.weight"},
            "fixup": {f"{block.branch[-1]}.weight", f"bn{len(block.branch)}.bias"},
        }[init]
        if name == "WideResNet":  # nothing comes after the last convolution but the factor
            expected -= {"bn2.bias", "bn3.bias"}
        assert learn == expected
    assert same or name == "ResNeXt"


@pytest.mark.parametrize("name", RESIDUAL)
def test_fixup_scales_branches_zeroes_their_ends_and_learns_without_norms(name: str) -> None:
    model = build(name, init="fixup", norm="none")
    usual = build(name, norm="none")
    count = len(blocks(model.network))
    for block, other in zip(blocks(model.network), blocks(usual.network), strict=True):
        m = len(block.branch)
        for part in block.branch[:-1]:
            deviations = [b.get_submodule(part).weight.std().item() for b in (block, other)]
            assert deviations[0] / deviations[1] == pytest.approx(count ** (-1 / (2 * m - 2)), rel=0.2)
        assert not block.get_submodule(block.branch[-1]).weight.any() and block.scale.weight.item() == 1
    network = model.network
    assert all(isinstance(m, ShiftedConv2d) and m.bias is None for m in network.modules() if isinstance(m, nn.Conv2d))
    assert not network.fc.weight.any() and isinstance(network.pool[1], Shift)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    x, labels, losses = images(8), torch.arange(8) % 10, []
    for _ in range(6):
        losses.append(model.loss(model(x), labels))
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    assert losses[0].item() == pytest.approx(math.log(10)) and losses[-1].isfinite() and losses[-1] < losses[0]


def test_fixup_adds_a_number_before_each_convolution_activation_and_linear_layer() -> None:
    """https://arxiv.org/abs/1901.09321, section 3, rule 3; with the shortcut's own, a ResNet-8 has as many as this."""
    network = build("ResNet", init="fixup", norm="none").network
    counts = {kind: sum(isinstance(m, kind) for m in network.modules()) for kind in (Scale, Shift, ShiftedConv2d)}
    convolutions, activations = 1 + 2 * 3 + 2, 1 + 2 * 3
    assert counts == {Scale: 3, Shift: activations + 1, ShiftedConv2d: convolutions}
    assert complexity(build("ResNet", norm="none", init="skipinit")).macs == complexity(build("ResNet")).macs


# From images


@pytest.mark.parametrize("norm", ["batch", "layer", "none"])
@pytest.mark.parametrize("name", SMALL)
def test_lsuv_gives_every_layer_unit_variance(name: str, norm: str) -> None:
    model = build(name, init="lsuv", norm=norm)
    x = torch.randn(64, 3, 8, 8)
    model.network.train()
    lsuv(model.network, x)
    assert model.network.training and not any(m._forward_hooks for m in model.network.modules())
    variances: list[Tensor] = []
    for layer in layers(model.network):
        layer.register_forward_hook(lambda _m, _i, output: variances.append(output.var(correction=0)))
    model.network.eval()(x)
    assert len(variances) == len(layers(model.network))
    assert torch.allclose(torch.stack(variances), torch.ones(len(variances)), rtol=1e-4)


def test_lsuv_refuses_images_that_are_all_the_same() -> None:
    network = build("CNN", init="lsuv").network
    with pytest.raises(ValueError, match=r"that of stages.0.0 is 0; use images that differ"):
        lsuv(network, torch.zeros(4, 3, 8, 8))
    assert not any(m._forward_hooks for m in network.modules())


def train(model: ImageClassifier, path: str | None = None, validation: float = 0.1, epochs: int = 1) -> Trainer:
    trainer = Trainer(
        max_epochs=epochs, limit_train_batches=2, limit_val_batches=1, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, log_every_n_steps=1, accelerator="cpu",
    )  # fmt: skip
    data = ImageDataModule(image_size=8, batch_size=16, validation=validation)
    trainer.fit(model, data, ckpt_path=path, weights_only=True if path else None)
    return trainer


FROZEN = {"optimizer": {"name": "SGD", "lr": 0.0}, "whitening": "standardize", "in_channels": 1}


def test_lsuv_is_set_when_a_training_starts_once(tmp_path: Path) -> None:
    model, copied = (build("CNN", init="lsuv", **FROZEN) for _ in range(2))
    before = copy.deepcopy(model.network)
    pickle.loads(pickle.dumps(before))  # for processes that are started by spawn
    trainer = train(model)
    data = ImageDataModule(image_size=8)
    raw, _, samples = data.training_images()
    spread = [number * len(samples) // 256 for number in range(256)]
    lsuv(before, model.whitening(raw[samples[spread]]))
    weight = model.network.fc.weight.clone()
    assert torch.equal(weight, before.fc.weight) and not torch.equal(weight, copied.network.fc.weight)
    trainer.save_checkpoint(tmp_path / "a.ckpt", weights_only=False)
    train(model, validation=0.5)  # the same model again, on other images
    loaded = load(tmp_path / "a.ckpt")
    train(loaded, validation=0.5)
    resumed = build("CNN", init="lsuv", **FROZEN)
    resumed.allow_other_images = True
    train(resumed, str(tmp_path / "a.ckpt"), validation=0.5, epochs=2)
    for other in (model, loaded, resumed):
        assert torch.equal(other.network.get_parameter("fc.weight"), weight)


def test_lsuv_sees_every_class_of_images_that_are_sorted_by_class(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.zeros((400, 8, 8), dtype=np.uint8)
    pixels[200:] = 255
    data = ImageDataModule(train=(pixels, np.repeat([0, 1], 200)), validation=0)
    model, seen = build("CNN", init="lsuv", num_classes=2, in_channels=1), []
    monkeypatch.setattr(model.network, "from_images", lambda _, x: seen.append(x))
    model.prepare(data)
    assert len(seen[0]) == 256 and float(seen[0].mean()) == 0.5


def test_lsuv_is_left_out_where_weights_were_loaded(tmp_path: Path) -> None:
    usual = build("CNN", **FROZEN)
    given = build("CNN", init="lsuv", **FROZEN)
    given.load_state_dict(usual.state_dict())
    train(given)
    assert torch.equal(given.network.fc.weight, usual.network.fc.weight)


def test_lsuv_leaves_a_convolution_that_whitens_patches_alone() -> None:
    one, other = (build("CNN", init=init, patch_whitening=5e-4, **FROZEN) for init in ("lsuv", "kaiming"))
    train(one)
    train(other)
    assert torch.equal(one.network.stages[0][0].weight, other.network.stages[0][0].weight)


def test_lsuv_without_an_image_data_module_says_where_the_images_come_from() -> None:
    batch = (torch.rand(4, 3, 8, 8), torch.zeros(4, dtype=torch.int64))
    trainer = Trainer(
        max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, accelerator="cpu",
    )  # fmt: skip
    model = build("CNN", init="lsuv")
    with pytest.raises(ValueError, match="init=lsuv learns from training images: train with an ImageDataModule, or"):
        trainer.fit(model, [batch], [batch])
    lsuv(model.network, torch.randn(4, 3, 8, 8))
    model.prepare(None)


# The plain networks


@pytest.mark.parametrize("depth", [20, 32, 56])
def test_a_plain_network_is_its_residual_network_without_projections(depth: int) -> None:
    def made(**options: Any) -> Any:
        torch.manual_seed(0)
        return options.pop("build")(whitening="none", **options)

    plain = made(build=lambda **o: create(f"plain{depth}", **o))
    residual = made(build=lambda **o: ResNet(depth=depth, shortcut="A", **o))
    ours, theirs = plain.state_dict(), residual.state_dict()
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)
    projections = (16 * 32 + 2 * 32) + (32 * 64 + 2 * 64)
    assert complexity(plain).parameters == complexity(create(f"resnet{depth}")).parameters - projections
    block = residual.network.get_submodule("layer1.0")
    x = torch.rand(2, 16, 8, 8)
    assert torch.equal(plain.network.get_submodule("layer1.0").eval()(x), block.eval().bn2(block.conv2(
        block.bn1(block.conv1(x)).relu())).relu())  # fmt: skip


def test_initialise_serves_a_network_of_ones_own() -> None:
    class Own(Network):
        def __init__(self) -> None:
            super().__init__()
            self.parts = [["conv"]]
            self.conv, self.fc = nn.Conv2d(3, 3, 3, padding=1), nn.Linear(3, 2)
            initialise(self, "dirac")

    x = torch.randn(1, 3, 4, 4)
    assert torch.equal(Own().conv(x), x)


def test_only_initialisations_with_tensors_of_their_own_make_another_model() -> None:
    family, shape = describe("resnet20")
    bare: dict[str, Any] = {"depth": 20, "shortcut": "B"}
    later = {"norm": "batch", "activation": "relu", "pool": "mean"}
    assert "init" not in shape and shape.items() >= {**bare, **later}.items()
    whole = ResNet(**bare).hparams
    saved = {key: whole[key] for key in whole if key not in (*later, "init")}  # by a version without these options
    for init in ("kaiming", "xavier", "orthogonal", "torch", "dirac", "lsuv", "zero_residual"):
        check_model(ResNet(**bare, init=init), "ResNet", saved)
        assert name_of(family, {**bare, "init": init}) == "resnet20"
    one = {**bare, "norm": "none", "init": "fixup"}
    check_model(ResNet(**one), "ResNet", saved | one)
    message = "it has init='kaiming', but this one has init='fixup'"
    with pytest.raises(ValueError, match=message):
        check_model(ResNet(**one), "ResNet", saved | {"norm": "none"})
    assert name_of(family, one) == "resnet20"
    assert complete("ResNet", {"depth": 8}).items() >= {"shortcut": "B", "norm": "batch", "num_classes": 10}.items()
    assert complete("Unknown", {"depth": 8}) == {"depth": 8}


@pytest.mark.parametrize(
    "options",
    [
        ["--model.norm=none", "--model.init=fixup"],
        ["--model.norm=none", "--model.init=skipinit", "--model.activation=silu"],
        ["--model.norm=group", "--model.init=lsuv", "--model.pool=max"],
    ],
)
def test_the_command_line_trains_tests_and_loads_them(fit: Fit, options: list[str]) -> None:
    assert fit("--model=ResNet", "--model.depth=8", *options) == 0
    folder = Path("runs/resnet-colours")
    model = load(folder)
    assert isinstance(model, ResNet)
    for option in options:
        name, _, value = option.removeprefix("--model.").partition("=")
        assert model.hparams[name] == value
    assert main(["test", f"--run={folder}", "--trainer.enable_progress_bar=false", "--trainer.accelerator=cpu"]) == 0
    assert main(["test", f"--ckpt_path={folder}", "--data.dataset=folder", "--data.root=colours",
                 "--trainer.enable_progress_bar=false", "--trainer.accelerator=cpu"]) == 0  # fmt: skip
