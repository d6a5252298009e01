"""`model.predict` names the classes of paths, images of Pillow, arrays and tensors."""

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning import Trainer
from PIL import Image
from torch.utils.data import DataLoader

from cvcc_zoo import ImageDataModule, create, load
from cvcc_zoo.__main__ import main
from cvcc_zoo.commands.predict import Prediction
from cvcc_zoo.weights.checkpoint import read_checkpoint
from cvcc_zoo.zoo.creation import use_weights
from tests.conftest import Fit

PIXELS = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def model() -> Any:
    return create("linear.cifar10")


def test_every_form_of_an_image_gets_the_same_names_and_probabilities(model: Any, tmp_path: Path) -> None:
    image = Image.fromarray(PIXELS[0])
    image.save(tmp_path / "a.png")
    tensor = torch.from_numpy(PIXELS).permute(0, 3, 1, 2)
    expected = model(tensor).softmax(1).sort(descending=True)
    first = [
        (model.classes[index], share)
        for index, share in zip(expected.indices[0], expected.values[0].tolist(), strict=True)
    ]
    forms = [tmp_path / "a.png", str(tmp_path / "a.png"), image, PIXELS[0], tensor[0]]
    for form in forms:
        found = model.predict(form, top=3)
        assert [name for name, _ in found] == [name for name, _ in first[:3]]
        assert [share for _, share in found] == pytest.approx([share for _, share in first[:3]], abs=1e-5)
    for several in (forms, PIXELS, tensor, list(tensor), [tensor]):
        found = model.predict(several, top=1)
        assert len(found) == (5 if several is forms else 3) and found[0][0][0] == first[0][0]
    assert len(model.predict(image)) == 5 and len(model.predict(image, top=99)) == 10
    assert model.predict([]) == []


def test_grey_transparent_and_large_images_become_pixels_as_in_training(fit: Fit) -> None:
    options = ["--data.resize=crop", "--data.background=black", "--data.image_size=8", "--test=false"]
    assert fit("--model=linear", *options) == 0
    model = load("runs/linear-colours")
    assert model.shaping == {"resize": "crop", "background": "black"} and model.classes == ("blue", "red")
    wide = Image.new("RGBA", (40, 8), (0, 0, 255, 255))
    wide.paste((255, 0, 0, 255), (16, 0, 24, 8))
    wide.save("wide.png")
    red = Image.new("RGB", (8, 8), (255, 0, 0))
    assert model.predict(wide) == model.predict("wide.png") == model.predict(red)
    clear = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    assert (
        model.predict(clear)
        == model.predict(np.zeros((8, 8), np.uint8))
        == model.predict(np.zeros((8, 8, 1), np.uint8))
    )
    assert main(["predict", "runs/linear-colours", "wide.png", "--output=found.csv"]) == 0
    name, share = model.predict("wide.png")[0]
    assert Path("found.csv").read_text().splitlines()[1].startswith(f"wide.png,{name},{share:.6f}")
    assert Prediction(Path("wide.png"), [(str(name), float(share))]).top[0][0] == name


def test_a_checkpoint_of_a_plain_trainer_remembers_how_images_became_pixels(colours: Path, tmp_path: Path) -> None:
    data = ImageDataModule("folder", str(colours), resize="pad", background="black", batch_size=16)
    model = create("linear", num_classes=2, image_size=8)
    trainer = Trainer(max_epochs=1, logger=False, enable_progress_bar=False, accelerator="cpu", limit_val_batches=0)
    trainer.fit(model, data)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    assert model.shaping == load(tmp_path / "a.ckpt").shaping == {"resize": "pad", "background": "black"}
    assert create(tmp_path / "a.ckpt", optimizer="SGD").shaping == model.shaping
    other = create("linear", num_classes=2, image_size=8)
    use_weights(other, read_checkpoint(tmp_path / "a.ckpt"), ("blue", "red"))
    assert other.shaping == model.shaping


@pytest.mark.filterwarnings("ignore::lightning.fabric.utilities.warnings.PossibleUserWarning")  # of the own loader
def test_a_checkpoint_says_itself_how_images_became_pixels(colours: Path, tmp_path: Path) -> None:
    data = ImageDataModule("folder", str(colours), resize="crop", background="black", batch_size=16, validation=0)
    quiet: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "accelerator": "cpu"}
    quiet |= {"enable_checkpointing": False, "enable_model_summary": False}
    trainer = Trainer(max_epochs=1, **quiet)
    model = create("linear", num_classes=2, image_size=8)
    trainer.fit(model, data)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    wide = Image.new("RGB", (40, 8), (0, 0, 255))
    wide.paste((255, 0, 0), (16, 0, 24, 8))
    loaded = type(model).load_from_checkpoint(tmp_path / "a.ckpt", weights_only=True)
    assert loaded.shaping == model.shaping == {"resize": "crop", "background": "black"}
    assert loaded.predict(wide) == model.predict(wide)
    fresh = create("linear", num_classes=2, image_size=8)
    squashed = ImageDataModule("folder", str(colours), batch_size=16, validation=0)
    trainer.test(fresh, squashed, ckpt_path=tmp_path / "a.ckpt", weights_only=True, verbose=False)
    assert fresh.shaping == model.shaping

    own: Any = DataLoader([(torch.zeros(3, 8, 8), label) for label in (0, 1)], batch_size=2)  # type: ignore[arg-type]
    trainer = Trainer(max_epochs=1, **quiet)
    trainer.fit(loaded, own)
    trainer.save_checkpoint(tmp_path / "b.ckpt")
    assert load(tmp_path / "b.ckpt").shaping == model.shaping

    Trainer(max_epochs=2, **quiet).fit(fresh, squashed, ckpt_path=tmp_path / "a.ckpt", weights_only=True)
    assert fresh.shaping == {"resize": "squash", "background": "white"}  # it has seen such images last


def test_a_model_in_training_predicts_in_evaluation_mode_and_goes_on_in_its_own() -> None:
    model = create("fcnn", image_size=8, whitening="none", num_classes=3)
    model.network.get_submodule("layers.1").eval()
    image = torch.rand(3, 8, 8)
    assert model.predict(image) == model.predict(image) and [name for name, _ in model.predict(image)] != []
    assert model.training and not model.network.get_submodule("layers.1").training
    assert {name for name, _ in model.predict(image)} == {"0", "1", "2"}


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("nowhere.png", "there is no image nowhere.png"),
        (".", "is a folder; give a list of its images"),
        ("text.png", "text.png is not an image that can be read"),
        (["text.png", "more.png"], "2 images cannot be read"),
        (PIXELS / 255.0, "an array of images is uint8, 0..255, and this one float64"),
        (np.zeros((3, 32, 32), np.uint8), "(H, W, C) with C 1 or 3, not (3, 32, 32); a tensor is (C, H, W)"),
        (np.zeros((32, 32, 4), np.uint8), "not (32, 32, 4); give three of its channels, or an image of Pillow"),
        (torch.zeros(32, 32), "this is not an image: Tensor of shape (32, 32)"),
        (b"png", "this is not an image: bytes; give a path"),
        (None, "this is not an image: NoneType"),
        (torch.zeros(1, 3, 16, 16), "resize them"),
    ],
)
def test_what_is_no_image_is_told(wrong: Any, said: str, model: Any) -> None:
    Path("text.png").write_text("text")
    Path("more.png").write_text("text")
    with pytest.raises((ValueError, OSError)) as error:
        model.predict(wrong)
    assert said in str(error.value)


@pytest.mark.parametrize("kind", ["png", "jpeg"])
def test_an_upload_that_was_cut_off_is_refused_as_any_other_value(kind: str, model: Any) -> None:
    whole = BytesIO()
    Image.effect_noise((64, 64), 50).save(whole, kind)
    half = BytesIO(whole.getvalue()[: len(whole.getvalue()) // 2])
    with pytest.raises(ValueError, match=r"the image cannot be read .* damaged or cut off"):
        model.predict(Image.open(half))


def test_advice_about_a_large_image_names_no_option_of_the_commands(model: Any) -> None:
    Image.new("1", (8000, 8001)).save("big; very.png")
    advice = "big; very.png has 8,000x8,001 pixels, more than the limit of 64,000,000; make it smaller, or give it as"
    with pytest.raises(ValueError, match=advice):
        model.predict("big; very.png")


@pytest.mark.parametrize("top", [0, -1, 1.5, True])
def test_the_number_of_classes_to_name_is_at_least_one(top: Any, model: Any) -> None:
    with pytest.raises(ValueError, match=f"top must be a whole number of at least 1, got {top}"):
        model.predict(PIXELS[0], top=top)


def test_a_model_of_other_channels_takes_tensors() -> None:
    model = create("linear", in_channels=2, image_size=8, whitening="none")
    assert len(model.predict(torch.zeros(2, 8, 8))) == 5
    with pytest.raises(ValueError, match="1 or 3 channels, and the model takes 2; give a tensor"):
        model.predict(np.zeros((8, 8), np.uint8))


@pytest.mark.parametrize("none", [[], PIXELS[:0], torch.zeros(0, 3, 32, 32)])
def test_no_images_have_no_classes(none: Any, model: Any) -> None:
    assert model.predict(none) == []
