"""Cards, checkpoints and runs that are older than an option of a family: it has its default in them."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from cvcc_zoo import ResNet, create, load
from cvcc_zoo.__main__ import main
from cvcc_zoo.classifier import ImageClassifier
from cvcc_zoo.classifier.compatibility import check_model, complete
from cvcc_zoo.runs.changes import changed_options
from cvcc_zoo.weights.card import PUBLISHED
from cvcc_zoo.zoo.catalogue import describe, name_of
from cvcc_zoo.zoo.published import read_published
from tests.conftest import Fit
from tests.test_weights import IMAGES, change, home, published, trained  # noqa: F401  home is a fixture

NEW = ("norm", "activation", "pool", "init")


def older(hparams: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in hparams.items() if key not in NEW}


def older_card(folder: Path, model: ImageClassifier | None = None, **values: Any) -> Path:
    path = published(folder, model)
    change(path, hparams=older(json.loads(path.read_text())["hparams"]), **values)
    return path


def test_a_published_card_is_older_than_these_options() -> None:
    card = read_published(PUBLISHED / "resnet20.fashion_mnist.json", "resnet20").card
    assert not set(NEW) & card.hparams.keys() and card.name == "resnet20.fashion_mnist"
    model = create("resnet20.fashion_mnist")
    assert {key: model.hparams[key] for key in NEW} == {
        "norm": "batch", "activation": "relu", "pool": "mean", "init": "kaiming"
    }  # fmt: skip


def test_an_older_card_is_that_of_the_same_model(home: Path) -> None:  # noqa: F811
    path = older_card(home)
    model = create("resnet20.pets")
    assert torch.equal(model(IMAGES), trained()(IMAGES)) and torch.equal(load(path)(IMAGES), model(IMAGES))
    assert name_of("ResNet", older(dict(model.hparams))) == name_of("ResNet", model.hparams) == "resnet20"
    fitting: list[dict[str, Any]] = [{"num_classes": 7}, {"in_channels": 1}, {"init": "lsuv"}, {"init": "dirac"}]
    for options in fitting:
        assert create("resnet20.pets", **options).hparams["norm"] == "batch"
    others: list[dict[str, Any]] = [{"norm": "layer"}, {"activation": "gelu"}, {"pool": "max"}, {"shortcut": "none"}]
    for options in others:
        ((option, value),) = options.items()
        with pytest.raises(ValueError, match=rf"but this one has {option}='{value}'"):
            create("resnet20.pets", **options)


def test_an_older_card_is_in_timm(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    import timm

    import cvcc_zoo.integrations.timm as bridge

    older_card(home)
    bridge.register()
    network = timm.create_model("cvcc_resnet20.pets", pretrained=True).eval()
    ours = create("resnet20.pets")
    assert torch.equal(network(ours._whiten(IMAGES)), ours(IMAGES))
    monkeypatch.setenv("CVCC_ZOO_HOME", str(home / "empty"))
    bridge.register()


def test_an_older_card_can_be_evaluated(home: Path, colours: Path) -> None:  # noqa: F811
    model = create("resnet20", num_classes=2, image_size=8)
    model.whitening.fit(IMAGES)
    measured = {"correct": 1, "test_accuracy": 0.5, "test_sha256": "of other images"}
    path = older_card(home, model, classes=["blue", "red"], measured=measured)
    assert (
        main(["evaluate", str(path), "--data.dataset=folder", f"--data.root={colours}"]) == 1
    )  # it says how to measure again


def test_only_initialisations_with_tensors_of_their_own_make_another_model() -> None:
    family, shape = describe("resnet20")
    assert "init" not in shape and shape == older(shape) | {"norm": "batch", "activation": "relu", "pool": "mean"}
    bare: dict[str, Any] = {"depth": 20, "shortcut": "B"}
    saved = older(dict(ResNet(**bare).hparams))
    for init in ("kaiming", "xavier", "orthogonal", "torch", "dirac", "lsuv", "zero_residual"):
        check_model(ResNet(**bare, init=init), "ResNet", saved)
        assert name_of(family, {**bare, "init": init}) == "resnet20"
    one = {**bare, "norm": "none", "init": "fixup"}
    check_model(ResNet(**one), "ResNet", saved | one)
    message = "it has init='kaiming', but this one has init='fixup'"
    with pytest.raises(ValueError, match=message):
        check_model(ResNet(**one), "ResNet", saved | {"norm": "none"})
    assert name_of(family, one) == "resnet"
    assert complete("ResNet", {"depth": 8}).items() >= {"shortcut": "B", "norm": "batch", "num_classes": 10}.items()
    assert complete("Unknown", {"depth": 8}) == {"depth": 8}


def test_a_run_that_was_started_before_these_options_goes_on(fit: Fit) -> None:
    options = ["--model=ResNet", "--model.depth=8", "--data.image_size=8"]
    assert fit(*options) == 0
    folder = Path("runs/resnet-colours")
    config, last = folder / "config.yaml", folder / "last.ckpt"
    now = config.read_text()
    before = "\n".join(line for line in now.splitlines() if line.strip().split(":")[0] not in NEW)
    assert len(before.splitlines()) == len(now.splitlines()) - len(NEW) and not changed_options(before, now)
    config.write_text(before)
    content = torch.load(last, weights_only=True)
    content["hyper_parameters"] = older(content["hyper_parameters"])
    content["callbacks"]["RunFolder"]["config"] = before
    torch.save(content, last)
    assert load(last).hparams["norm"] == "batch"
    more = [f"--config={config}", "--ckpt_path=last", "--trainer.max_epochs=2", "--allow_changes=true"]
    assert main(["fit", *more, "--trainer.enable_progress_bar=false", "--trainer.accelerator=cpu"]) == 0
    assert main(["test", f"--run={folder}", "--trainer.enable_progress_bar=false", "--trainer.accelerator=cpu"]) == 0


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
