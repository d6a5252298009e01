"""Whitening and augmentation on the command line, in checkpoints and in pictures."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lightning import Trainer
from PIL import Image

from cvcc_zoo import ImageDataModule, create, load
from cvcc_zoo.__main__ import main
from cvcc_zoo.cli.arguments import with_its_images
from cvcc_zoo.commands import evaluate
from cvcc_zoo.data.whitening import Whitening
from cvcc_zoo.losses import SOFT
from cvcc_zoo.zoo.trained import find_trained
from tests.conftest import Fit, message

ZCA = ["--data.whitening=zca", "--data.whitening.eps=0.01"]


def test_a_run_keeps_the_whitening_it_was_trained_with(fit: Fit, colours: Path) -> None:
    assert fit("--model=linear", *ZCA, "--data.whitening.scope=pixels_per_channel") == 0
    spec = {"name": "zca", "eps": 0.01, "scope": "pixels_per_channel"}
    config = yaml.safe_load(Path("runs/linear-colours/config.yaml").read_text())
    assert config["data"]["whitening"] == spec
    model = load("runs/linear-colours")
    expected = ImageDataModule("folder", str(colours), whitening=spec).fit_whitening()
    assert model.hparams["whitening"] == spec and torch.equal(model.whitening.matrix, expected.matrix)
    assert main(["test", "--run=runs/linear-colours"]) == 0


def test_a_checkpoint_is_evaluated_with_its_own_whitening(fit: Fit, colours: Path) -> None:
    fit("--model=cnn_small", *ZCA, "--model.patch_whitening=0.001")
    checkpoint = "--ckpt_path=runs/cnn_small-colours/best.ckpt"
    for more in ([], ["--data.whitening=none"]):
        assert main(["test", "--data.dataset=folder", f"--data.root={colours}", checkpoint, *more]) == 0


def test_going_on_with_another_whitening_is_refused(fit: Fit, capsys: pytest.CaptureFixture[str]) -> None:
    fit("--model=linear")
    assert fit("--model=linear", *ZCA, "--ckpt_path=runs/linear-colours/last.ckpt") == 2
    assert "it has whitening='standardize', but this one has whitening={'name': 'zca'" in capsys.readouterr().err


def test_augmentations_are_added_to_those_that_are_there(fit: Fit) -> None:
    assert (
        fit("--model=linear", "--data.augmentations+=ColorJitter", "--data.augmentations+={name: Cutout, size: 4}") == 0
    )
    data = yaml.safe_load(Path("runs/linear-colours/config.yaml").read_text())["data"]
    assert data["augmentations"] == ["standard", "ColorJitter", {"name": "Cutout", "size": 4}]


@pytest.mark.parametrize("preset", ["none", "light", "standard", "strong"])
def test_presets_train(colours: Path, preset: str) -> None:
    data = ImageDataModule("folder", str(colours), batch_size=16, augmentations=preset)
    quick_fit(create("linear", num_classes=2, image_size=8), data)


def test_yaml_takes_whitening_and_nested_augmentations(fit: Fit, tmp_path: Path) -> None:
    config = tmp_path / "mine.yaml"
    config.write_text("""
model: linear
data:
  whitening: {name: pca, components: 0.9, eps: 0.001}
  augmentations:
  - light
  - name: Probability
    augmentation: {name: GaussianBlur, sigma: [0.5, 1.0]}
    probability: 0.3
""")
    assert fit(f"--config={config}") == 0
    kept = load("runs/linear-colours").whitening
    assert kept.components == 0.9 and kept.matrix.shape[1] < 192


@pytest.mark.parametrize("loss", ["cross_entropy", "squared_error"])
def test_mixed_labels_are_learnt(fit: Fit, loss: str) -> None:
    more = ["--data.augmentations=[MixUp, CutMix]", f"--model.loss={loss}", "--trainer.max_epochs=8"]
    assert fit("--model=linear", "--optimizer.lr=0.02", *more) == 0
    images = torch.tensor([[20, 40, 220], [220, 30, 30]], dtype=torch.uint8)[:, :, None, None].expand(-1, -1, 8, 8)
    assert load("runs/linear-colours")(images).argmax(1).tolist() == [0, 1]


def test_a_loss_without_soft_labels_is_refused_before_anything_is_made(
    colours: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["fit", "--data.dataset=folder", f"--data.root={colours}", "--data.augmentations=MixUp"]
    said = message(capsys, [*arguments, "--model.loss=hinge"])
    assert "choose --model.loss=cross_entropy or " in said and all(name in said for name in SOFT)


def quick_fit(model: object, data: ImageDataModule) -> None:
    trainer = Trainer(
        max_epochs=1, limit_train_batches=2, limit_val_batches=1, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, accelerator="cpu", log_every_n_steps=1,
    )  # fmt: skip
    trainer.fit(model, data)  # type: ignore[arg-type]


def test_whitening_is_fitted_anew_only_when_asked(colours: Path) -> None:
    model = create("linear", num_classes=2, image_size=8)
    zca = {"name": "zca", "scope": "channel_values"}
    quick_fit(model, ImageDataModule("folder", str(colours), whitening=zca, batch_size=16, validation=0.5))
    first = model.whitening.matrix.clone()
    pca = {"name": "pca", "scope": "channel_values"}
    with pytest.raises(ValueError, match="choose one of them for both, or leave out that of the data"):
        quick_fit(model, ImageDataModule("folder", str(colours), whitening=pca, batch_size=16))
    quick_fit(model, ImageDataModule("folder", str(colours), batch_size=16))
    assert torch.equal(model.whitening.matrix, first) and model.hparams["whitening"] == zca
    model.use_whitening(pca)
    quick_fit(model, ImageDataModule("folder", str(colours), whitening=pca, batch_size=16))
    assert model.hparams["whitening"] == pca and not torch.equal(model.whitening.matrix, first)


# The pictures


@pytest.mark.parametrize("words", [["augmentations", "--data.augmentations=strong"], ["whitening", *ZCA]])
def test_pictures_are_written(words: list[str], colours: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--data.dataset=folder", f"--data.root={colours}", "--images=3", "--output=picture.png"]
    assert main([*words, *arguments]) == 0
    assert "written to picture.png" in capsys.readouterr().out
    with Image.open("picture.png") as picture:
        assert picture.width > 300 and len(picture.convert("RGB").getcolors(1 << 20) or ()) > 100


def test_a_grid_shows_originals_and_all_draws(colours: Path) -> None:
    data = ImageDataModule("folder", str(colours), augmentations="none")
    figure = data.plot_augmentations(images=4, draws=3)
    left, right = (axes.images[0].get_array() for axes in figure.axes)
    assert left is not None and right is not None and left.shape == (1 + 4 * 9, 10, 3) and right.shape[1] == 1 + 3 * 9
    for draw in range(3):
        assert (right[:, 9 * draw : 9 * draw + 10] == left).all()


@pytest.mark.parametrize("draws", [1, 3, 8])
def test_draws_are_level_with_their_originals(draws: int, colours: Path) -> None:
    figure = ImageDataModule("folder", str(colours)).plot_augmentations(images=6, draws=draws)
    figure.draw_without_rendering()
    left, right = (axes.get_position() for axes in figure.axes)
    assert (left.y0, left.y1) == pytest.approx((right.y0, right.y1), abs=1e-3)


@pytest.mark.parametrize("method", ["none", "standardize", "zca", "pca", "cholesky"])
@pytest.mark.parametrize("scope", ["all", "pixels_per_channel", "channel_values"])
def test_every_whitening_can_be_drawn(method: str, scope: str) -> None:
    images, _, _ = ImageDataModule("fashion-mini", image_size=8, in_channels=3).training_images()
    options = {} if method in ("none", "standardize") else {"scope": scope, "eps": 0.01}
    figure = Whitening(method, 3, 8, **options).fit(images).plot(images[:5])  # type: ignore[arg-type]
    assert len(figure.axes) >= (4 if options else 2)


def test_a_picture_of_whitening_says_what_was_kept_and_how_contrast_was_changed() -> None:
    images, _, _ = ImageDataModule("fashion-mini", image_size=8).training_images()
    figure = Whitening("pca", 1, 8, components=5, contrast="coates", eps=0.1).fit(images).plot(images[:3])
    assert figure.get_suptitle() == "whitening: pca, all, eps=0.1, components=5, contrast=coates"
    (legend,) = [legend for axes in figure.axes if (legend := axes.get_legend())]
    assert [text.get_text() for text in legend.get_texts()] == ["kept: 5", "eps = 0.1"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["fit", "--data.whitening=zcaa"], "no whitening named 'zcaa'; did you mean zca"),
        (["fit", "--data.whitening=zca", "--data.whitening.epsilon=1"], "no option of whitening zca named 'epsilon'"),
        (["fit", "--data.whitening.eps=1"], "whitening standardize takes no options; zca, pca"),
        (["fit", "--data.whitening=standardize", "--data.whitening.eps=1"], "whitening standardize takes no options"),
        (["fit", "--data.whitening={name: zca, eps: much}"], "whitening: eps must be a number, got 'much'"),
        (["fit", "--data.augmentations+=Cutot"], "no augmentation named 'Cutot'; did you mean Cutout"),
        (["fit", "--data.augmentations={name: Cutout, size: 40}"], "a square of 40 pixels is larger than the images"),
        (["fit", "--model=linear", "--model.patch_whitening=0.001"], "patch_whitening sets the first convolution"),
        (["augmentations", "--images=0"], "choose 1 to 5,400 of the training images, not 0"),
        (["augmentations", "--output=nowhere/a.png"], "the folder nowhere does not exist"),
        (["fit", "--data=cifar10"], "there is no file cifar10; did you mean --data.dataset=cifar10?"),
        (["fit", "--data=my_data.Mine"], "a DataModule of yours trains in Python: Trainer().fit(model, data)"),
        (["fit", "--trainer=gpu"], "there is no file gpu; did you mean --trainer.accelerator=gpu?"),
        (
            ["fit", "--data.image_size=32x32"],
            "a whole number or null, not 32x32; images are square: --data.image_size=32",
        ),
        (["fit", "--data.image_size=[32, 32]"], "images are square: --data.image_size=32"),
        (["fit", "--data.batch_size=many"], "the option data.batch_size takes a whole number, not many"),
        (["fit", "--data.follow_links=maybe"], "the option data.follow_links takes true or false, not maybe"),
        (["fit", "--data.resize=stretch"], "no way to resize named 'stretch'"),
        (["fit", "--data.test=1"], "test must be a share of the images in [0, 1), got 1.0"),
        (["evaluate", "x", "--data.augmentations=none"], "--data.augmentations changes nothing in `cvcc-zoo evaluate`"),
        (["scores", "x", "--data.whitening.eps=1"], "--data.whitening.eps changes nothing in `cvcc-zoo scores`"),
        (["calibrate", "x", "--data.seed=1"], "--data.seed changes nothing in `cvcc-zoo calibrate`; leave it out"),
        (["augmentations", "--data.sampler=balanced"], "--data.sampler changes nothing in `cvcc-zoo augmentations`"),
        (["whitening", "--data.augmentations=light"], "--data.augmentations changes nothing in `cvcc-zoo whitening`"),
        (["evaluate", "x", "--data.train=a"], "no option named 'data.train'"),
        (["whitening", "--imagess=3"], "no option named 'imagess'; did you mean images"),
    ],
)
def test_wrong_input_is_answered_with_advice(
    arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    told = message(capsys, arguments)
    assert expected in told and told.count("\n") == 1


def test_another_data_set_is_prepared_as_in_the_run_and_has_none_of_its_folder_size_and_classes() -> None:
    trained = find_trained("linear.fashion_mnist")
    names = ("dataset", "root", "classes", "image_size")

    def chosen(of_run: dict[str, Any], *words: str) -> tuple[Any, ...]:
        run = replace(trained, data={**dict.fromkeys(names), "resize": "crop", **of_run})
        config, _ = with_its_images(evaluate.parser(), ["linear.fashion_mnist", *words], lambda name: run)
        assert config.data.resize == "crop"
        return tuple(config.data[name] for name in names)

    folder, arrays = {"root": "mine"}, {"dataset": "mine.npz", "classes": ["a", "b"]}
    assert chosen(folder) == (None, "mine", None, None)
    assert chosen(folder, "--data.root=moved") == (None, "moved", None, None)
    assert chosen(folder, "--data.dataset=folder") == ("folder", "mine", None, None)
    assert chosen(folder, "--data.dataset=test.npz") == ("test.npz", None, None, 28)
    assert chosen(folder, "--data.dataset=cifar10") == ("cifar10", None, None, 28)
    assert chosen(arrays, "--data.dataset=mine.npz") == ("mine.npz", None, ["a", "b"], None)
    assert chosen(arrays, "--data.dataset=folder", "--data.root=others") == ("folder", "others", None, 28)
