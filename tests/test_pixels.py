"""What is no image in 0..255 or 0..1 is told, before it gives other classes in silence."""

import warnings

import pytest
import torch
from lightning import Trainer
from torch.utils.data import DataLoader, TensorDataset

from cvcc_zoo import create
from cvcc_zoo.classifier import ImageClassifier

IMAGES = torch.randint(0, 256, (6, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def model() -> ImageClassifier:
    model = create("linear")
    model.whitening.fit(IMAGES)
    return model.eval()


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.int16, torch.int8, torch.bool])
def test_whole_numbers_other_than_uint8_are_refused(dtype: torch.dtype, model: ImageClassifier) -> None:
    for take in (model, model.features, model.whitening):
        with pytest.raises(ValueError, match=r"uint8 in 0\.\.255 or floats in 0\.\.1, and these are torch\.\w+; pass"):
            take(IMAGES.to(dtype))


@pytest.mark.parametrize("wrong", [IMAGES.float(), IMAGES.double() - 120, IMAGES.half()])
def test_floats_in_0_to_255_are_refused(wrong: torch.Tensor, model: ImageClassifier) -> None:
    with pytest.raises(ValueError, match=r"float images are in 0\.\.1, and these have .*divide them by 255"):
        model(wrong)


def test_nan_is_refused(model: ImageClassifier) -> None:
    images = IMAGES / 255
    images[0, 0, 0, 0] = torch.nan
    with pytest.raises(ValueError, match=r"these have NaN; replace it: images\.nan_to_num\(\)"):
        model(images)


def test_floats_in_0_to_1_are_the_same_images_without_a_word(model: ImageClassifier) -> None:
    logits = model(IMAGES)
    torch.testing.assert_close(model(IMAGES / 255), logits)
    torch.testing.assert_close(model(IMAGES / 255 + 1e-6), logits, rtol=1e-4, atol=1e-4)
    assert model(IMAGES[:0] / 255).shape == (0, 10)


def test_images_that_were_normalised_already_are_told_once(model: ImageClassifier) -> None:
    normalised = (IMAGES / 255 - 0.5) / 0.25
    with pytest.warns(UserWarning, match=r"were they normalised already\?.*remove torchvision's Normalize") as told:
        model(normalised)
        model.train()(normalised)
        model.eval()(normalised)
    assert len(told) == 1


def test_a_test_by_lightning_tells_it_too(model: ImageClassifier) -> None:
    loader = DataLoader(TensorDataset((IMAGES / 255 - 0.5) / 0.25, torch.zeros(6, dtype=torch.int64)), batch_size=2)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        Trainer(**quiet).test(model, loader, verbose=False)  # type: ignore[arg-type]
    assert sum("normalised already" in str(each.message) for each in told) == 1


def test_what_is_transformed_exported_or_without_values_is_let_through(model: ImageClassifier) -> None:
    images = (IMAGES / 255).requires_grad_()
    expected = model(images)
    torch.testing.assert_close(torch.func.vmap(lambda image: model(image[None])[0])(images), expected)
    program = torch.export.export(model, (images.detach(),))
    torch.testing.assert_close(program.module()(images.detach()), expected)
    assert create("linear", whitening="none").to("meta")(images.detach().to("meta")).shape == (6, 10)
