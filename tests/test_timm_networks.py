"""Networks of timm as models: names, stems, image sizes, weights, parts, and everything that a model can do."""

import json
import re
import subprocess
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import timm
import timm.models
import torch
from lightning import Trainer
from safetensors.torch import save_file
from torch import Tensor

from cvcc_zoo import ImageDataModule, Timm, create, load
from cvcc_zoo.__main__ import main
from cvcc_zoo.classifier import ImageClassifier
from cvcc_zoo.models.timm_weights import normalisation_of, read_tensors
from cvcc_zoo.optim.build import make_optimizer
from cvcc_zoo.weights.card import model_and_tag
from cvcc_zoo.zoo.names import resolve
from tests.conftest import Fit, message

TINY = "timm.test_resnet"
GENERATOR = torch.Generator().manual_seed(0)
IMAGES = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8, generator=GENERATOR)
QUIET: Any = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}


def on_meta(name: str, **options: Any) -> ImageClassifier:
    with torch.device("meta"):
        return create(name, **options)


def reduction(model: ImageClassifier) -> int:
    """How many times smaller than the images the last maps are."""
    maps: Any = model.eval().network.get_submodule("")
    return model.image_size // int(
        maps.forward_features(torch.empty(1, 3, model.image_size, model.image_size, device="meta")).shape[2]
    )


# Names


@pytest.mark.parametrize("name", ["timm.resnet18", "timm/resnet18", "Timm.ResNet-18", "timm.resnet18.a1_in1k"])
def test_a_network_of_timm_is_named_as_people_type_it(name: str) -> None:
    source = resolve(name)
    assert (source.kind, source.trained) == ("timm", False)
    assert source.name == ("timm.resnet18.a1_in1k" if "a1" in name else "timm.resnet18")
    assert model_and_tag("timm.resnet18.pets") == ("timm.resnet18", "pets")


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("timm.resnet19", {}, "no model of timm named 'resnet19'; did you mean resnet18"),
        ("timm.resnet18.a1_in2k", {}, "no weights of timm.resnet18 named 'a1_in2k'; did you mean a1_in1k"),
        (TINY, {"widht": 3}, "timm cannot build test_resnet with {'widht': 3}"),
        (TINY, {"optimzer": "SGD"}, "no option of timm.test_resnet named 'optimzer'; did you mean optimizer"),
        (TINY, {"sten": "small"}, "named 'sten'; did you mean stem"),
        (TINY, {"stem": "tiny"}, "no stem named 'tiny'; known are: small, standard"),
        (TINY, {"checkpoint_path": "x"}, "checkpoint_path is not an option of timm.test_resnet here"),
        (TINY, {"network_options": {"optimizer": "SGD"}}, "optimizer is an option of the model, not of its network"),
        ("timm.vgg11", {"image_size": 16}, "timm.vgg11 does not take images of 3x16x16"),
        ("timm.vgg11", {"stem": "small"}, "the stem of timm.vgg11 has no stride"),
        ("timm.repvgg_a0", {"stem": "small"}, "stem=small is not defined for timm.repvgg_a0"),
        ("timm.mixer_s16_224", {"stem": "small"}, "stem=small is not defined for timm.mixer_s16_224"),
        ("timm.levit_128s", {"stem": "small"}, "stem=small is not defined for timm.levit_128s"),
        ("timm.test_vit", {"stem": "small", "image_size": 28}, "do not fill 28 pixels"),
        (TINY, {"freeze": 9}, "the parts of this network are 1 (conv1 bn1), 2 (layer1)"),
        ("timm.poolformer_s12", {"freeze": 1}, "MetaFormer does not define its parts, which freeze and layer_decay"),
    ],
)
def test_what_does_not_work_is_told_with_what_does(name: str, options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        on_meta(name, **options)


@pytest.mark.slow
def test_timm_is_imported_only_when_it_is_needed() -> None:
    code = "import sys, cvcc_zoo; cvcc_zoo.create('linear'); assert 'timm' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


# Stems and sizes


@pytest.mark.parametrize(
    ("name", "after"),
    [
        ("resnet50d", 8),
        ("mobilenetv3_small_100", 16),
        ("convnext_atto", 8),
        ("regnety_002", 16),
        ("densenet121", 8),
        ("nfnet_l0", 8),
    ],
)
def test_a_small_stem_keeps_the_size_of_the_images(name: str, after: int) -> None:
    assert reduction(on_meta(f"timm.{name}", image_size=64, stem="small")) == after


def test_timms_resnet18_with_a_small_stem_is_ours() -> None:
    theirs = create("timm.resnet18", whitening="none", stem="small").eval()
    ours = create("resnet18", whitening="none").eval()
    ours.network.load_state_dict(theirs.network.state_dict())
    assert torch.equal(theirs(IMAGES), ours(IMAGES))
    assert reduction(on_meta("timm.resnet18", image_size=64)) == 32  # without it


@pytest.mark.parametrize(("size", "patch"), [(32, 4), (64, 8), (96, 12)])
def test_a_transformer_sees_eight_by_eight_small_patches(size: int, patch: int) -> None:
    model: Any = on_meta("timm.vit_tiny_patch16_224", stem="small", image_size=size)
    assert model.network.patch_embed.patch_size == (patch, patch) and model.network.patch_embed.num_patches == 64
    chosen: Any = on_meta("timm.vit_tiny_patch16_224", stem="small", image_size=size, patch_size=2 * patch)
    assert chosen.network.patch_embed.num_patches == 16


# Weights


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A file of weights as timm publishes them: 1,000 classes of ImageNet."""
    torch.manual_seed(1)
    save_file(timm.create_model("test_resnet").state_dict(), tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


def test_weights_of_timm_bring_their_normalisation(weights: Path) -> None:
    model = create(TINY, pretrained=weights, num_classes=1000, image_size=32).eval()
    theirs: Any = timm.create_model("test_resnet", checkpoint_path=str(weights)).eval()
    config = theirs.pretrained_cfg
    x = (IMAGES / 255 - torch.tensor(config["mean"])[:, None, None]) / torch.tensor(config["std"])[:, None, None]
    assert torch.allclose(model(IMAGES), theirs(x), atol=1e-5)
    assert model.whitening.fitted and model.hparams["pretrained"] is False


def test_a_folder_of_timm_brings_the_normalisation_of_its_config(tmp_path: Path) -> None:
    network: Any = timm.create_model("test_resnet", num_classes=5, in_chans=1)
    network.pretrained_cfg |= {"mean": (0.1,), "std": (0.2,)}
    timm.models.save_for_hf(network, str(tmp_path))
    for path in (tmp_path, tmp_path / "pytorch_model.bin"):
        model: Any = create(TINY, pretrained=path, num_classes=5)  # three channels, from the one of the config
        assert model.whitening.mean.tolist() == pytest.approx([0.1] * 3)
        assert model.whitening.std.tolist() == pytest.approx([0.2] * 3)
        assert torch.equal(model.network.fc.weight, network.fc.weight)
    config = json.loads((tmp_path / "config.json").read_text())
    for change, said in (
        ({"architecture": "test_vit"}, "is of timm.test_vit, not of timm.test_resnet; choose timm.test_vit"),
        ({"pretrained_cfg": {"std": [0.0]}}, "config.json has an impossible std, [0.0]"),
    ):
        (tmp_path / "config.json").write_text(json.dumps(config | change))
        with pytest.raises(ValueError, match=re.escape(said)):
            create(TINY, pretrained=tmp_path)


def test_a_checkpoint_of_timms_training_script_is_read_with_its_options(tmp_path: Path) -> None:
    network = timm.create_model("test_resnet", num_classes=5)
    args = Namespace(model="test_resnet", mean=[0.1, 0.2, 0.3], std=None, aug_splits=0, model_kwargs={})
    content = {"epoch": 1, "arch": "test_resnet", "args": args, "state_dict": network.state_dict(), "metric": 50.0}
    torch.save(content, tmp_path / "model_best.pth.tar")
    model: Any = create(TINY, pretrained=tmp_path, num_classes=5, image_size=32)
    assert torch.equal(model.network.fc.weight, network.state_dict()["fc.weight"])
    assert model.whitening.mean.tolist() == pytest.approx([0.1, 0.2, 0.3])
    assert model.whitening.std.tolist() == pytest.approx(vars(network)["default_cfg"]["std"])


def test_the_normalisation_of_other_channels_is_that_of_the_colours() -> None:
    config = {"mean": (0.1, 0.2, 0.6), "std": (0.2, 0.3, 0.7)}
    found = [normalisation_of(config, channels) for channels in (3, 1, 4)]
    for name, values in (
        ("mean", [[0.1, 0.2, 0.6], [0.3], [0.1, 0.2, 0.6, 0.1]]),
        ("std", [[0.2, 0.3, 0.7], [0.4], [0.2, 0.3, 0.7, 0.2]]),
    ):
        assert [each[name].tolist() for each in found] == [pytest.approx(each) for each in values]


def test_weights_are_used_for_other_classes_and_channels_and_with_a_small_stem(weights: Path) -> None:
    given = timm.create_model("test_resnet", checkpoint_path=str(weights)).state_dict()
    grey = create(TINY, pretrained=str(weights), num_classes=5, in_channels=1, image_size=32, stem="small")
    state = grey.network.state_dict()
    assert torch.equal(state["layer1.0.conv1.weight"], given["layer1.0.conv1.weight"])
    assert state["fc.weight"].shape[0] == 5 and grey.whitening.mean.shape == (1,)
    torch.save({"state_dict": given}, weights.with_suffix(".pth"))
    again = create(TINY, pretrained=weights.with_suffix(".pth"), num_classes=0, whitening="standardize")
    assert torch.equal(again.network.state_dict()["layer1.0.conv1.weight"], given["layer1.0.conv1.weight"])


@pytest.mark.parametrize("value", ["", 3.5, []])
def test_what_is_no_path_of_weights_is_told_in_words(value: Any) -> None:
    with pytest.raises(ValueError, match="pretrained is True, False or the path of a file of weights, not"):
        Timm(TINY.removeprefix("timm."), pretrained=value)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "_orig_mod.module."])
def test_weights_of_compiled_and_distributed_networks_are_read(weights: Path, prefix: str) -> None:
    given = timm.create_model("test_resnet", checkpoint_path=str(weights)).state_dict()
    named = {prefix + name: tensor for name, tensor in given.items()}
    torch.save(named, "other.pth")
    save_file(named, "other.safetensors")
    for file in ("other.pth", "other.safetensors"):
        found = read_tensors(Path(file))
        assert found.keys() == given.keys() and torch.equal(found["fc.weight"], given["fc.weight"])


def test_a_new_head_replaces_the_classifier_of_weights_of_timm(weights: Path) -> None:
    old = create(TINY, pretrained=weights, num_classes=1000)
    new = create(TINY, pretrained=weights, num_classes=1000, new_head=True)
    different = [name for name, value in old.state_dict().items() if not torch.equal(value, new.state_dict()[name])]
    assert different == ["network.fc.weight", "network.fc.bias"]
    with pytest.raises(ValueError, match="give pretrained"):
        create(TINY, new_head=True)


def test_the_weights_of_another_network_are_refused(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"model.safetensors has not the weights of timm.test_convnext"):
        create("timm.test_convnext", pretrained=weights)
    with pytest.raises(ValueError, match="expect whitening=standardize, not 'zca'"):
        create(TINY, pretrained=weights, whitening="zca")
    with pytest.raises(FileNotFoundError, match=r"there is no file of weights nowhere.safetensors"):
        create(TINY, pretrained="nowhere.safetensors")
    monkeypatch.setenv("HF_HUB_CACHE", "empty")
    with pytest.raises(
        FileNotFoundError, match=r"get https://huggingface.co/timm/test_resnet.r160_in1k/resolve/main/.*"
    ):
        create(TINY, pretrained=True)


def test_weights_are_found_in_the_cache_of_hugging_face(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def cached(repository: str, file: str) -> str:
        asked.append((repository, file))
        return str(weights)

    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", cached)
    model = create(TINY, pretrained=True, num_classes=3)
    assert asked == [("timm/test_resnet.r160_in1k", "model.safetensors")] and model.whitening.fitted


# Training and what follows


def test_parts_of_timm_are_frozen_and_their_learning_rates_decay() -> None:
    model = create("timm.test_vit", image_size=32, freeze=2, optimizer={"name": "AdamW", "lr": 1.0, "layer_decay": 0.5})
    frozen = {name for name, p in model.network.named_parameters() if not p.requires_grad}
    assert frozen == {
        name
        for name, _ in model.network.named_parameters()
        if name.startswith(("cls_token", "pos_embed", "patch_embed", "blocks.0."))
    }
    rates: dict[str, float] = {}
    names = {p: name for name, p in model.network.named_parameters()}
    for group in make_optimizer(model.hparams["optimizer"], model).param_groups:
        rates |= {names[p]: group["lr"] for p in group["params"]}
    depth = len(model.grouped)
    assert rates["head.weight"] == 1 and rates["blocks.1.attn.qkv.weight"] == 0.5 ** (depth - 2)
    network: Any = create(TINY, freeze=2).train().network
    assert not network.bn1.training and not network.layer1.training and network.layer2.training


@pytest.mark.parametrize("precision", ["32-true", "64-true"])
def test_an_interrupted_training_of_a_timm_network_goes_on_to_the_same_weights(precision: Any, tmp_path: Path) -> None:
    def trained(epochs: int, checkpoint: Path | None = None) -> Trainer:
        torch.manual_seed(0)
        options: Any = {
            "drop_rate": 0.2,
            "drop_path_rate": 0.2,
            "optimizer": {"name": "SGD", "lr": 0.05, "momentum": 0.9},
        }
        model = create(TINY, image_size=16, in_channels=1, lr_scheduler=None, **options)
        data = ImageDataModule("fashion-mini", image_size=16, batch_size=8)
        trainer = Trainer(
            max_epochs=epochs,
            limit_train_batches=3,
            limit_val_batches=1,
            precision=precision,
            enable_checkpointing=False,
            **QUIET,
        )
        trainer.fit(model, data, ckpt_path=checkpoint, weights_only=True)
        return trainer

    trained(1).save_checkpoint(tmp_path / "half.ckpt")
    whole, resumed = trained(2), trained(2, tmp_path / "half.ckpt")
    states: list[dict[str, Tensor]] = [trainer.lightning_module.network.state_dict() for trainer in (whole, resumed)]  # type: ignore[union-attr]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_a_run_with_a_timm_network_is_loaded_measured_published_and_exported(
    fit: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CVCC_ZOO_HOME", str(tmp_path / "home"))
    flags = [f"--model={TINY}", "--model.stem=small", "--model.drop_rate=0.1", "--optimizer.layer_decay=0.8"]
    assert fit(*flags, "--data.image_size=16") == 0
    run = Path("runs/timm.test_resnet-colours")
    model = load(run)
    assert isinstance(model, Timm) and model.hparams["network_options"] == {"drop_rate": 0.1}
    assert model.hparams["stem"] == "small" and model.classes == ("blue", "red")
    assert main(["evaluate", str(run)]) == 0
    assert main(["publish", str(run)]) == 0
    assert (
        json.loads((tmp_path / "home/timm.test_resnet.colours.json").read_text())["name"] == "timm.test_resnet.colours"
    )
    published = create("timm.test_resnet.colours")
    images = IMAGES[:, :, :16, :16]
    assert torch.allclose(published(images), model(images), atol=1e-2)
    assert create("timm.test_resnet", pretrained=run / "best.ckpt", num_classes=5).num_classes == 5
    assert main(["export", str(run), "--format=torch_export", "--data.dataset=fashion-mini"]) == 0
    assert "the same classes" in capsys.readouterr().out
    assert fit("--config", str(run / "config.yaml"), "--run=again", "--trainer.max_epochs=1") == 0


@pytest.mark.slow
def test_a_timm_network_is_exported_to_onnx(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    from cvcc_zoo.export.program import export
    from cvcc_zoo.zoo.trained import Trained

    model = create("timm.test_convnext", image_size=32, whitening="none").eval()
    images = torch.randint(0, 256, (64, 3, 32, 32), dtype=torch.uint8)
    export(Trained("tiny", model, "", list("abcdefghij"), "", Path()), tmp_path / "tiny.onnx", "onnx", images)
    assert (tmp_path / "tiny.onnx").stat().st_size > 10_000


def test_describe_and_compare_show_a_timm_network(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["describe", TINY, "--model.image_size=32", "--model.stem=small", "--json=layers.json"]) == 0
    layers = json.loads(Path("layers.json").read_text())
    assert layers[0]["layer"] == "conv1.0" and layers[0]["output"].endswith("x32x32")
    assert (
        main(["describe", TINY, "--statistics", "--model.num_classes=10", "--model.image_size=32", "--images=8"]) == 0
    )
    assert "layer1" in capsys.readouterr().out


def test_the_command_line_tells_what_is_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    assert "did you mean stem" in message(capsys, ["fit", f"--model={TINY}", "--model.sten=small"])
    assert "no model of timm named 'resnet19'" in message(capsys, ["fit", "timm.resnet19"])
