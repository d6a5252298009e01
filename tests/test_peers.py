"""Weights of other collections give their logits in our networks; theirs are written down here from the papers."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from lightning import Trainer
from safetensors.torch import save_file
from torch import Tensor, nn

from cvcc_zoo import ImageDataModule, create
from cvcc_zoo import load as load_ours
from cvcc_zoo.integrations.peers import load

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)


class Parts(nn.Module):
    """Modules by names, as one writes them down; `of` says what they do with images."""

    def __init__(self, of: Callable[[Any, Tensor], Tensor], **modules: nn.Module) -> None:
        super().__init__()
        self.of = of
        for name, module in modules.items():
            self.add_module(name, module)

    def forward(self, x: Tensor) -> Tensor:
        return self.of(self, x)


def conv(before: int, after: int, size: int = 3, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(before, after, size, stride, size // 2, groups=groups, bias=False)


def add_zeros(x: Tensor) -> Tensor:
    """Option A of https://arxiv.org/abs/1512.03385, section 3.3: zeros for the channels that are missing."""
    missing = x.shape[1]
    return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, missing // 2, missing // 2))


def residual(blocks: list[int], widths: list[int], shortcut: str, classifier: str) -> nn.Module:
    """https://arxiv.org/abs/1512.03385, section 4.2; `shortcut` names the projections, none for option A."""

    def block(before: int, after: int, stride: int) -> nn.Module:
        changes = stride > 1 or before != after
        projection = (
            {shortcut: nn.Sequential(conv(before, after, 1, stride), nn.BatchNorm2d(after))} if shortcut else {}
        )
        kept = projection if changes else {}

        def skip(own: Any, x: Tensor) -> Tensor:
            projected: Tensor = getattr(own, shortcut)(x) if kept else add_zeros(x) if changes else x
            return projected

        return Parts(
            lambda own, x: F.relu(own.bn2(own.conv2(F.relu(own.bn1(own.conv1(x))))) + skip(own, x)),
            conv1=conv(before, after, stride=stride),
            bn1=nn.BatchNorm2d(after),
            conv2=conv(after, after),
            bn2=nn.BatchNorm2d(after),
            **kept,
        )

    stages, before = {}, widths[0]
    for number, (count, width) in enumerate(zip(blocks, widths, strict=True)):
        strides = [2 if number else 1] + [1] * (count - 1)
        stages[f"layer{number + 1}"] = nn.Sequential(
            *[block(before if index == 0 else width, width, stride) for index, stride in enumerate(strides)]
        )
        before = width

    def network(own: Any, x: Tensor) -> Tensor:
        x = F.relu(own.bn1(own.conv1(x)))
        for stage in stages:
            x = getattr(own, stage)(x)
        logits: Tensor = getattr(own, classifier)(x.mean((2, 3)))
        return logits

    stem = {"conv1": conv(3, widths[0]), "bn1": nn.BatchNorm2d(widths[0])}
    return Parts(network, **stem, **stages, **{classifier: nn.Linear(before, 10)})


def wide(blocks: int, factor: int) -> nn.Module:
    """https://arxiv.org/abs/1605.07146, table 1, with the names of xternalz."""

    def block(before: int, after: int, stride: int) -> nn.Module:
        kept = {} if before == after else {"convShortcut": conv(before, after, 1, stride)}

        def of(own: Any, x: Tensor) -> Tensor:
            activated = F.relu(own.bn1(x))
            y: Tensor = own.conv2(F.relu(own.bn2(own.conv1(activated))))
            return y + (own.convShortcut(activated) if kept else x)

        norms = {"bn1": nn.BatchNorm2d(before), "bn2": nn.BatchNorm2d(after)}
        return Parts(of, **norms, conv1=conv(before, after, stride=stride), conv2=conv(after, after), **kept)

    modules: dict[str, nn.Module] = {"conv1": conv(3, 16)}
    before = 16
    for number, width in enumerate([16 * factor, 32 * factor, 64 * factor]):
        chain = [block(before, width, 2 if number else 1), *(block(width, width, 1) for _ in range(blocks - 1))]
        modules[f"block{number + 1}"] = Parts(lambda own, x: own.layer(x), layer=nn.Sequential(*chain))
        before = width

    def network(own: Any, x: Tensor) -> Tensor:
        x = own.block3(own.block2(own.block1(own.conv1(x))))
        logits: Tensor = own.fc(F.relu(own.bn1(x)).mean((2, 3)))
        return logits

    return Parts(network, **modules, bn1=nn.BatchNorm2d(before), fc=nn.Linear(before, 10))


PRLZ77 = ("conv_reduce", "bn_reduce", "conv_conv", "bn", "conv_expand", "bn_expand", "shortcut_conv", "shortcut_bn")
KUANGLIU = ("conv1", "bn1", "conv2", "bn2", "conv3", "bn3", "0", "1")


def aggregated(cardinality: int, width: int, names: tuple[str, ...], stem: int) -> nn.Module:
    """https://arxiv.org/abs/1611.05431, section 5.1 and figure 3(c), of depth 29, with the names of two collections."""

    def block(before: int, inner: int, after: int, stride: int) -> nn.Module:
        skip = nn.Sequential()
        if before != after:
            skip.add_module(names[6], conv(before, after, 1, stride))
            skip.add_module(names[7], nn.BatchNorm2d(after))

        def of(own: Any, x: Tensor) -> Tensor:
            c1, b1, c2, b2, c3, b3 = (getattr(own, name) for name in names[:6])
            return F.relu(b3(c3(F.relu(b2(c2(F.relu(b1(c1(x)))))))) + own.shortcut(x))

        layers = [conv(before, inner, 1), nn.BatchNorm2d(inner), conv(inner, inner, 3, stride, cardinality),
                  nn.BatchNorm2d(inner), conv(inner, after, 1), nn.BatchNorm2d(after)]  # fmt: skip
        return Parts(of, **dict(zip(names, layers, strict=False)), shortcut=skip)

    own_names = names is PRLZ77
    first = {
        "conv_1_3x3" if own_names else "conv1": conv(3, 64, stem),
        "bn_1" if own_names else "bn1": nn.BatchNorm2d(64),
    }
    stages, before = {}, 64
    for number, after in enumerate((256, 512, 1024), start=1):
        chain = nn.Sequential()
        for index in range(3):
            name = f"stage_{number}_bottleneck_{index}" if own_names else str(index)
            stride = 2 if number > 1 and index == 0 else 1
            chain.add_module(name, block(before, cardinality * width * 2 ** (number - 1), after, stride))
            before = after
        stages[f"stage_{number}" if own_names else f"layer{number}"] = chain

    def network(own: Any, x: Tensor) -> Tensor:
        for part in [*first, "", *stages]:
            x = getattr(own, part)(x) if part else F.relu(x)
        logits: Tensor = getattr(own, last)(x.mean((2, 3)))
        return logits

    last = "classifier" if own_names else "linear"
    return Parts(network, **first, **stages, **{last: nn.Linear(1024, 10)})


def with_random_weights(network: nn.Module) -> nn.Module:
    """Also the norms and their statistics, so that none can be exchanged for another; logits of the order of 1."""
    generator = torch.Generator().manual_seed(0)
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point():
            if tensor.ndim > 1:
                tensor.normal_(0, (1 / tensor[0].numel()) ** 0.5, generator=generator)
            else:
                positive = name.endswith("running_var") or (name.endswith("weight") and tensor.ndim == 1)
                tensor.uniform_(0.5 if positive else -0.2, 1.0 if positive else 0.2, generator=generator)
    return network.eval()


CASES: dict[str, tuple[Callable[[], nn.Module], str, dict[str, Any]]] = {
    "chenyaofo": (lambda: residual([3] * 3, [16, 32, 64], "downsample", "fc"), "resnet20", {}),
    "akamaster": (lambda: residual([3] * 3, [16, 32, 64], "", "linear"), "resnet20", {}),
    "akamaster, another depth": (lambda: residual([4] * 3, [16, 32, 64], "", "linear"), "ResNet", {"depth": 26}),
    "kuangliu": (lambda: residual([2] * 4, [64, 128, 256, 512], "shortcut", "linear"), "resnet18", {}),
    "kuangliu, ResNeXt": (lambda: aggregated(2, 64, KUANGLIU, 1), "resnext29_2x64d", {}),
    "xternalz": (lambda: wide(2, 4), "WRN16-4", {}),
    "xternalz, another width": (lambda: wide(1, 1), "WideResNet", {"depth": 10, "width": 1}),
    "prlz77": (lambda: aggregated(4, 24, PRLZ77, 3), "resnext29_4x24d", {}),
}


@pytest.mark.parametrize("case", CASES)
def test_the_weights_of_another_collection_give_its_logits(case: str, tmp_path: Path) -> None:
    make, name, options = CASES[case]
    theirs = with_random_weights(make())
    torch.save(theirs.state_dict(), tmp_path / "a.pth")
    model = load(tmp_path / "a.pth", model=name, mean=MEAN, std=STD, **options)
    images = torch.randint(0, 256, (3, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    mean, std = (torch.tensor(values)[:, None, None] for values in (MEAN, STD))
    with torch.no_grad():
        expected = theirs((images / 255 - mean) / std)
        assert expected.std() > 0.1
        torch.testing.assert_close(model(images), expected, rtol=1e-5, atol=1e-5)
    assert not model.training and model.classes is None


def small() -> nn.Module:
    return with_random_weights(residual([1] * 3, [16, 32, 64], "", "linear"))


def read(path: Path, **options: Any) -> Any:
    return load(path, **{"model": "ResNet", "depth": 8, "mean": MEAN, "std": STD, **options})


def old_file(content: Any, path: Path) -> None:
    """As torch before 1.6 wrote it on a GPU."""
    torch.save(content, path, _use_new_zipfile_serialization=False)
    written = path.read_bytes().replace(b"ctorch\nFloatStorage\n", b"ctorch.cuda\nFloatStorage\n")
    path.write_bytes(written.replace(b"X\x03\0\0\0cpu", b"X\x06\0\0\0cuda:0"))


def wrapped(state: dict[str, Tensor], way: str) -> Any:
    """How the collections save the same weights."""
    if way == "state_dict in a dict":
        return {"state_dict": {f"module.{name}": each for name, each in state.items()}, "best_prec1": 91.73, "epoch": 3}
    if way == "net in a dict":
        return {"net": state, "acc": 95.0, "optimizer": {"state": {0: {"step": 1}}, "param_groups": [{"lr": 0.1}]}}
    if way == "compiled":
        return {f"_orig_mod.{name}": each for name, each in state.items()}
    if way == "compiled and distributed":
        return {f"_orig_mod.module.{name}": each for name, each in state.items()}
    if way == "averaged":
        return {"n_averaged": torch.tensor(5)} | {f"module.{name}": each for name, each in state.items()}
    if way == "by plain Lightning":
        inside = {f"network._orig_mod.{name}": each for name, each in state.items()}
        return {"epoch": 3, "state_dict": inside, "optimizer_states": [], "hyper_parameters": {"lr": 0.1}}
    if way == "with an average":
        return {"state_dict": {name: 2 * each for name, each in state.items()}, "state_dict_ema": state}
    return {name: each for name, each in state.items() if not name.endswith("num_batches_tracked")}


@pytest.mark.parametrize(
    "way",
    [
        "state_dict in a dict",
        "net in a dict",
        "compiled",
        "compiled and distributed",
        "averaged",
        "by plain Lightning",
        "with an average",
        "before norms counted",
    ],
)
@pytest.mark.parametrize("old", [False, True], ids=["archive", "before torch 1.6"])
def test_they_are_found_however_they_were_saved(way: str, old: bool, tmp_path: Path) -> None:
    content = wrapped(small().state_dict(), way)
    (old_file if old else torch.save)(content, tmp_path / "a.th")
    model = read(tmp_path / "a.th")
    assert torch.equal(model.network.fc.weight, small().state_dict()["linear.weight"])
    assert model.hparams["shortcut"] == "A" and model.num_classes == 10


def test_they_are_also_read_from_safetensors(tmp_path: Path) -> None:
    save_file({f"module.{name}": each for name, each in small().state_dict().items()}, tmp_path / "a.safetensors")
    assert torch.equal(read(tmp_path / "a.safetensors").network.fc.weight, small().state_dict()["linear.weight"])


def test_such_a_model_is_one_of_ours_from_then_on(tmp_path: Path) -> None:
    torch.save(small().state_dict(), tmp_path / "a.pth")
    model = read(tmp_path / "a.pth", image_size=28)
    data = ImageDataModule("fashion-mini", in_channels=3, batch_size=500)
    quiet: Any = {"logger": False, "enable_progress_bar": False, "accelerator": "cpu", "max_epochs": 1}
    trainer = Trainer(**quiet, limit_train_batches=1, limit_val_batches=1, enable_model_summary=False)
    trainer.test(model, data, verbose=False)
    assert trainer.callback_metrics["test/accuracy"] < 0.3
    trainer.fit(model, data)
    assert model.whitening.mean.tolist() == pytest.approx(MEAN), "statistics stay those of the weights"
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    assert load_ours(tmp_path / "a.ckpt").classes == tuple(data.classes)


def test_they_can_be_taken_to_other_classes_and_channels(tmp_path: Path) -> None:
    torch.save(small().state_dict(), tmp_path / "a.pth")
    model = read(tmp_path / "a.pth", num_classes=4, in_channels=1)
    theirs = small().state_dict()
    assert torch.equal(model.network.layer3[0].conv2.weight, theirs["layer3.0.conv2.weight"])
    torch.testing.assert_close(model.network.conv1.weight, theirs["conv1.weight"].sum(1, keepdim=True))
    assert model.network.fc.weight.shape == (4, 64) and not model.whitening.fitted


REFUSED = [
    ({"mean": (125.3, 123.0, 113.9)}, "mean must be that of images in [0, 1], got [125.3"),
    ({"std": (0.2, 0.0, 0.2)}, "std must be that of images in [0, 1]"),
    ({"std": (0.2,)}, "std needs one number for each of 3 channels"),
    ({"depth": 14}, "do not fit: 'network.layer1.1.conv1.weight' is missing"),
    ({"shortcut": "B"}, "'network.layer2.0.downsample.0.weight' is missing"),
    ({"model": "resnext29", "depth": 29}, "the name resnext29_32x4d fixes the option depth"),
    ({"model": "cnn_small"}, "no family with weights in other collections named 'CNN'"),
    ({"model": "resnet21"}, "no model named 'resnet21'; did you mean resnet32"),
    ({"num_blocks": 3}, "no option of ResNet named 'num_blocks'"),
]


@pytest.mark.parametrize(("options", "message"), REFUSED, ids=[message[:20] for _, message in REFUSED])
def test_what_does_not_fit_is_refused_in_words(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    torch.save(small().state_dict(), tmp_path / "a.pth")
    with pytest.raises(ValueError, match=re.escape(message)):
        read(tmp_path / "a.pth", **options)


def test_files_without_such_weights_are_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no file"):
        read(tmp_path / "b.pth")
    state = small().state_dict()
    for content, message in (
        ({"epoch": 3}, "holds 0 state_dicts"),
        ({"net": state, "ema": state}, "holds 2 state_dicts"),
        ({"features.0.weight": torch.ones(2, 2)}, "has no conv1.weight of a ResNet, but features.0.weight"),
        ({**state, "extra": torch.ones(1)}, "'network.extra' is not in the model"),
        (state["conv1.weight"], "holds 0 state_dicts"),
        (create("linear").state_dict(), "holds a model of this package, .* give a state_dict to model.load_state_dict"),
    ):
        torch.save(content, tmp_path / "a.pth")
        with pytest.raises(ValueError, match=message):
            read(tmp_path / "a.pth")


class Planted:
    """What runs when it is read."""

    def __reduce__(self) -> Any:
        return Path.touch, (Path("planted"),)


@pytest.mark.parametrize("old", [False, True], ids=["archive", "before torch 1.6"])
def test_nothing_in_such_a_file_runs(old: bool, tmp_path: Path) -> None:
    content = {"state_dict": small().state_dict(), "best": Planted()}
    torch.save(content, tmp_path / "a.pth", _use_new_zipfile_serialization=not old)
    with pytest.raises(ValueError, match=r"which plain data does not need; nothing in it was run"):
        read(tmp_path / "a.pth")
    assert not Path("planted").exists()


def test_an_old_file_that_claims_a_terabyte_or_ends_early_is_refused(tmp_path: Path) -> None:
    old_file({"a": torch.ones(40)}, tmp_path / "a.pth")
    whole = (tmp_path / "a.pth").read_bytes()
    for content in (whole[:-8], whole[:60], whole.replace(b"K(", b"\x8a\x06\0\0\0\0\0\1")):
        assert content != whole
        (tmp_path / "a.pth").write_bytes(content)
        with pytest.raises(ValueError, match=r"a\.pth cannot be read as a checkpoint"):
            read(tmp_path / "a.pth")
