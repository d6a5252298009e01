"""Features in front of a linear classifier: chained, fitted once, kept with the weights."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Trainer

from cvcc_zoo import ImageDataModule, Linear, load
from cvcc_zoo.__main__ import main
from cvcc_zoo.linear import Features, Patches
from tests.conftest import Fit

NONE = ("--data.whitening=none", "--data.augmentations=none", "--trainer.log_every_n_steps=1")


@pytest.mark.parametrize(
    ("features", "more"),
    [
        ("[{name: HOG, cell: 2}]", []),
        ("[{name: HOG, cell: 2}, {name: PCA, components: 0.9}, Standardize]", []),
        ("[{name: Patches, filters: 8, size: 3}, {name: PCA, components: 4}]", []),
        ("[Standardize]", []),
        ("[{name: HOG, cell: 2}, {name: PCA, components: 0.9}, Standardize]", ["--model.ridge=1.0"]),
    ],
)
def test_a_model_with_features_trains_and_loads(fit: Fit, features: str, more: list[str]) -> None:
    assert fit("--model=linear", *more, f"--model.features={features}", *NONE, "--run=run") == 0
    found, again = load("run/last.ckpt"), load("run/last.ckpt")
    images = torch.randint(256, (5, 3, 8, 8), dtype=torch.uint8)
    assert torch.equal(found(images), again(images)) and found(images).isfinite().all()


def test_a_stopped_training_with_a_share_of_components_goes_on(fit: Fit) -> None:
    args = ["--model=linear", "--model.features=[{name: PCA, components: 0.5}]", *NONE, "--run=run"]
    assert fit(*args) == 0
    assert fit("--config=run/config.yaml", "--ckpt_path=last", "--trainer.max_epochs=2", "--allow_changes=true") == 0
    assert load("run/last.ckpt").hparams["features"][0]["kept"] >= 1


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")  # the callbacks of the run
def test_the_config_of_a_run_finds_the_components_that_its_weights_have(fit: Fit, colours: Path) -> None:
    features: list[str | dict[str, Any]] = [
        {"name": "HOG", "cell": 2},
        {"name": "PCA", "components": 0.9},
        "Standardize",
    ]
    assert fit("--model=linear", f"--model.features={json.dumps(features)}", *NONE, "--run=run") == 0
    config = "--config=run/config.yaml"
    assert main(["test", "--run=run"]) == 0
    assert main(["fit", config, "--weights=run", "--optimizer.lr=0", "--lr_scheduler=null", "--run=again"]) == 0
    first, second = load("run/last.ckpt"), load("again/last.ckpt")
    images = torch.randint(256, (5, 3, 8, 8), dtype=torch.uint8)
    assert torch.equal(first(images), second(images)) and first.hparams["features"] == second.hparams["features"]
    fresh = Linear(features=features, num_classes=2, image_size=8, whitening="none")
    quiet: Any = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    Trainer(**quiet).test(fresh, ImageDataModule("folder", str(colours)), ckpt_path="run/last.ckpt")
    assert torch.equal(first(images), fresh(images)) and not torch.equal(first(images)[0], first(images)[1])


def test_patches_do_not_see_brightness_and_little_of_contrast() -> None:
    torch.manual_seed(0)
    images = torch.rand(40, 3, 12, 12)
    patches = Patches(3, filters=16, size=4).fit([images])
    answers = patches(images)
    assert answers.shape == (40, patches.out_features(12, 12)) and float(answers.abs().mean()) > 0.01
    torch.testing.assert_close(patches(images + 0.2), answers, atol=1e-3, rtol=1e-2)
    torch.testing.assert_close(patches(0.9 * images), answers, atol=1e-2, rtol=1e-2)


def test_patches_answer_as_their_definition_says() -> None:
    """A patch by itself: without its mean, divided by its contrast, then answered by each filter."""
    torch.manual_seed(0)
    images = torch.rand(20, 3, 4, 4)
    patches = Patches(3, filters=8, size=4, pool=1).fit([images])
    x = images.flatten(1) - images.flatten(1).mean(1, keepdim=True)
    x = x / (x.square().mean(1, keepdim=True) + 10 / 255**2).sqrt()
    z = x @ patches.filters.flatten(1).T - patches.offset
    torch.testing.assert_close(patches(images), torch.cat([z - 0.25, -z - 0.25], 1).clamp(min=0), atol=1e-4, rtol=1e-4)


def test_patches_are_those_of_all_images_also_of_very_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cvcc_zoo.linear.patches.MOST_PATCHES", 100)
    grey = torch.linspace(0, 1, 350)  # one level for each image, as a folder is sorted by class
    batches = torch.split(grey.view(-1, 1, 1, 1).expand(-1, 1, 4, 4), 50)
    drawn = Patches(1, filters=8, size=4, pool=1)._draw(batches, torch.Generator())[:, 0]
    assert 100 <= len(drawn) <= 200
    counts = torch.histc(drawn, bins=7, min=0, max=1)  # of the patches of each batch
    assert counts.max() - counts.min() <= 2 and len(set(drawn.tolist())) > 0.3 * len(grey)


@pytest.mark.parametrize(
    ("features", "told"),
    [
        (["HGO"], "no feature named 'HGO'; did you mean HOG"),
        ([{"name": "HOG", "cels": 4}], "did you mean cell"),
        ([{"name": "HOG", "cell": 8}], "takes images of at least 16x16 pixels, not 8x8"),
        (["PCA", "HOG"], "HOG takes images; put it first, not after PCA"),
        ([{"name": "PCA", "components": 193}], "193 components of vectors of 192 numbers"),
        (["Pretrained"], "Pretrained needs weights"),
        ([{"name": "Pretrained", "family": "Linear", "hparams": {"num_classes": 10**6}}], "at most 10,000"),
        ([{"name": "Pretrained", "weights": "resnet20.cifar10"}], "takes images of 3x32x32, not 3x8x8"),
        (
            [{"name": "Pretrained", "family": "Linear", "hparams": {"num_classes": 2}}],
            "a Linear of pixels has no parts",
        ),
        (
            [{"name": "Pretrained", "family": "FCNN", "hparams": {"hidden": [4], "image_size": 8}, "part": 1}],
            "Pretrained: part must be a whole number from -1 to 0, got 1",
        ),
        ([{"name": "Patches", "pool": 0}], "Patches: pool must be a whole number of at least 1, got 0"),
        ([{"name": "Patches", "size": 9}], "take images of at least 10x10"),
        ("HOG", "features is a list of names, like \\[HOG\\]"),
        (7, "features is a list of names, like \\[HOG, PCA\\], not 7"),
    ],
)
def test_what_does_not_fit_is_told(features: object, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        Linear(features=features, image_size=8)  # type: ignore[arg-type]


@pytest.mark.parametrize("features", ["[{name: HOG, cell: 2}]", "[{name: Patches, filters: 8, size: 3}]"])
def test_features_of_images_take_no_whitened_ones(fit: Fit, features: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert fit("--model=linear", f"--model.features={features}", *NONE[1:]) == 2
    assert "takes images in 0..1, and whitening standardize changes them; choose" in capsys.readouterr().err


def test_a_published_network_is_a_feature() -> None:
    made = Features([{"name": "Pretrained", "weights": "resnet20.cifar10"}], 3, 32)
    assert made.out_features == 64 and made.fitted and "weights" not in made.specs[0]
    again = Features(made.specs, 3, 32)
    again.load_state_dict(made.state_dict())
    images = torch.rand(4, 3, 32, 32)
    assert torch.equal(made(images), again.train()(images))


def test_pca_with_more_components_than_directions_is_told(fit: Fit, tmp_path: Path) -> None:
    assert fit("--model=linear", "--model.features=[{name: PCA, components: 100}]", *NONE) == 2
