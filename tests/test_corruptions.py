"""Corruptions do what their formulas say, in the same way for an image in any batch, and evaluate measures them."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from cvcc_zoo import create
from cvcc_zoo.__main__ import main
from cvcc_zoo.data import ImageDataModule
from cvcc_zoo.data.corruptions import CORRUPTIONS, STRENGTHS, corrupt, title_of
from cvcc_zoo.data.datasets import FashionMini
from cvcc_zoo.data.images import Images
from cvcc_zoo.plots.corruptions import plot_corruptions
from cvcc_zoo.runs.robustness import corruption_table, measure_corruptions
from cvcc_zoo.weights.card import read_card, write
from cvcc_zoo.zoo.published import make_card
from tests.conftest import message

GREY = torch.full((8, 3, 32, 32), 0.4)


def photographs(channels: int = 3) -> Tensor:
    """Images of clothes, uint8 (16, channels, 28, 28)."""
    return ImageDataModule(in_channels=channels).some_images(16)[0][:, :channels]


def changed(images: Tensor, name: str, strength: int, first: int = 0) -> Tensor:
    return corrupt(images, name, strength, torch.arange(first, first + len(images)))


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_the_noise_of_an_image_depends_on_its_position_alone(name: str) -> None:
    images = photographs()
    whole = changed(images, name, 4)
    assert whole.dtype == torch.uint8 and whole.shape == images.shape and not torch.equal(whole, images)
    assert torch.equal(torch.cat([changed(images[:5], name, 4), changed(images[5:], name, 4, first=5)]), whole)
    assert not torch.equal(changed(images, name, 2), whole)


@pytest.mark.parametrize("name", ["defocus_blur", "motion_blur", "zoom_blur", "elastic_transform", "pixelate"])
def test_what_moves_pixels_leaves_an_even_area_unchanged(name: str) -> None:
    for strength in range(1, STRENGTHS + 1):
        torch.testing.assert_close(changed(GREY, name, strength), GREY, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", sorted(CORRUPTIONS.keys() - {"elastic_transform", "pixelate"}))
def test_a_higher_strength_changes_more(name: str) -> None:
    images = photographs().float() / 255
    moved = [float((changed(images, name, strength) - images).abs().mean()) for strength in range(1, STRENGTHS + 1)]
    assert moved == sorted(moved) and moved[-1] > 1.2 * moved[0]


def test_gaussian_noise_has_the_deviation_of_its_strength() -> None:
    noise = changed(GREY, "gaussian_noise", 3) - GREY
    assert float(noise.std()) == pytest.approx(0.08, rel=0.03) and abs(float(noise.mean())) < 0.002


def test_shot_noise_has_the_mean_and_variance_of_counted_photons() -> None:
    level = 102 / 255
    for strength, photons in ((1, 500), (5, 50)):
        found = changed(torch.full((8, 3, 32, 32), level), "shot_noise", strength)
        assert float(found.mean()) == pytest.approx(level, abs=0.003)
        assert float(found.var()) == pytest.approx(level / photons, rel=0.05)
        assert torch.allclose(found * photons, (found * photons).round(), atol=1e-3)
    black = torch.zeros(2, 3, 32, 32)
    assert torch.equal(changed(black, "shot_noise", 5), black)


def test_impulse_noise_makes_its_share_black_or_white() -> None:
    found = changed(GREY, "impulse_noise", 5)
    shares = [float((found == value).float().mean()) for value in (0.0, 1.0)]
    assert shares == [pytest.approx(0.035, abs=0.005)] * 2


def test_contrast_and_brightness_follow_their_formulas() -> None:
    images = 0.1 + 0.5 * photographs().float() / 255
    mean = images.mean((2, 3), keepdim=True)
    torch.testing.assert_close(changed(images, "contrast", 3), mean + 0.4 * (images - mean))
    brighter = changed(images, "brightness", 2)
    torch.testing.assert_close(brighter.amax(1), images.amax(1) + 0.1)
    torch.testing.assert_close(brighter / brighter.amax(1, keepdim=True), images / images.amax(1, keepdim=True))


def test_fog_adds_a_cloud_and_keeps_the_brightest_value() -> None:
    images = photographs().float() / 255
    foggy = changed(images, "fog", 3)
    brightest = images.flatten(1).amax(1)[:, None, None, None]
    cloud = foggy * (brightest + 0.75) / brightest - images
    assert float(cloud.min()) > -1e-4 and float(cloud.max()) < 0.751
    torch.testing.assert_close(cloud[:, 0], cloud[:, 1], atol=1e-4, rtol=0)


def test_zoom_blur_averages_factors_below_the_largest() -> None:
    point = torch.zeros(1, 1, 33, 33)
    point[..., 16, 16] = 1  # the middle, which stays where it is
    found = changed(point, "zoom_blur", 1)[0, 0]
    weights = [1.0, 1.0, 1.01, 1.02, 1.03, 1.04, 1.05]  # the image, and its enlargements
    for away in (0, 1):  # each pixel by linear interpolation
        expected = sum(max(0.0, 1 - away / factor) for factor in weights) / len(weights)
        assert float(found[16, 16 + away]) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("side", [32, 64, 224])
def test_defocus_blur_is_a_disk_with_a_soft_edge_that_grow_with_the_image(side: int) -> None:
    point, middle = torch.zeros(1, 1, side, side), side // 2
    point[..., middle, middle] = 1
    away = torch.arange(side) - middle
    for strength, (radius, softness) in enumerate(CORRUPTIONS["defocus_blur"].strengths[:3], start=1):
        found = changed(point, "defocus_blur", strength)[0, 0].double()
        disk = (away[:, None] ** 2 + away**2 <= (radius * side / 32) ** 2).double()
        soft = torch.exp(-0.5 * (away / (softness * side / 32)) ** 2).double()
        if side == 32:
            soft[away.abs() > 1] = 0  # the program has three pixels
        variances = [float((row * away**2).sum() / row.sum()) for row in (disk.sum(1), soft, found.sum(1))]
        assert variances[2] == pytest.approx(variances[0] + variances[1], rel=0.03)


def test_pixelate_shrinks_to_whole_pixels() -> None:
    ramp = torch.arange(32.0).div(31).expand(1, 1, 32, 32)
    found = changed(ramp, "pixelate", 5)  # 32 -> 20 -> 32
    assert float(found.mean()) == pytest.approx(0.5, abs=1e-5)
    assert float(found[0, 0, 0, 0]) == pytest.approx((0 + 0.6 / 31) / 1.6, abs=1e-5)  # the first 1.6 pixels


@pytest.mark.parametrize("name", ["pixelate", "zoom_blur"])
def test_corrupted_images_of_16_bits_are_those_of_32_bits_rounded_once(name: str) -> None:
    images = (photographs() / 255).bfloat16()
    assert torch.equal(changed(images, name, 3), changed(images.float(), name, 3).bfloat16())


def test_grey_images_are_corrupted_too() -> None:
    for name in CORRUPTIONS:
        assert changed(photographs(1), name, 5).shape == (16, 1, 28, 28)


def test_what_is_no_corruption_is_refused() -> None:
    with pytest.raises(ValueError, match="no corruption named 'gaussian_noize'; did you mean gaussian_noise"):
        changed(GREY, "gaussian_noize", 1)
    for strength in (0, 6):
        with pytest.raises(ValueError, match=f"the strength of a corruption is 1 to 5, got {strength}"):
            changed(GREY, "fog", strength)
    with pytest.raises(ValueError, match=r"4 images need as many positions, got the shape \(1,\)"):
        corrupt(photographs()[:4], "gaussian_noise", 1, torch.tensor([0]))


def test_each_corrupted_image_is_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    test = FashionMini().load("test")
    assert test is not None
    few = Images(test.images[::10], test.labels[::10])
    monkeypatch.setattr(FashionMini, "load", lambda dataset, split: few)
    model = create("linear.fashion_mnist").eval()
    found = measure_corruptions(model, ImageDataModule(batch_size=30))
    assert found["accuracy"].keys() == CORRUPTIONS.keys()
    with torch.no_grad():
        right = model(changed(few.images, "contrast", 5)).argmax(1) == few.labels
    assert found["accuracy"]["contrast"][4] == float(right.double().mean())
    assert found["mean"] == pytest.approx(sum(map(sum, found["accuracy"].values())) / 60)
    names = list(corruption_table(found, 0.8).columns[0].cells)
    assert len(names) == 13 and {"Gaussian noise", "fog", "JPEG compression"} < set(names)


def test_each_panel_has_the_name_of_its_corruption_as_a_text_writes_it() -> None:
    figure = plot_corruptions({title_of(name): [0.5] * STRENGTHS for name in CORRUPTIONS}, 0.9, "a model")
    titles = [axes.get_title() for axes in figure.axes]
    assert len(titles) == 12 and titles[:2] == ["Gaussian noise", "shot noise"] and titles[-1] == "JPEG compression"


def test_evaluate_draws_the_corruptions_and_keeps_them_in_the_card(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CVCC_ZOO_HOME", str(tmp_path / "home"))
    one = {"contrast": CORRUPTIONS["contrast"]}
    monkeypatch.setattr("cvcc_zoo.runs.robustness.CORRUPTIONS", one)
    trained = create("linear.fashion_mnist")
    assert trained.classes is not None
    card = make_card(trained, "mini", list(trained.classes), dataset="", measured={}, training={}, license="MIT")
    path = write(tmp_path / "home", card, trained.state_dict())
    assert "must end in .png" in message(capsys, ["evaluate", card.name, "--corruptions=true"])
    assert main(["evaluate", card.name, "--update_card=true", "--corruptions=drawn.png"]) == 0
    assert "accuracy under corruption" in capsys.readouterr().out and Path("drawn.png").stat().st_size > 10_000
    first = read_card(path).measured["corruptions"]
    assert first["accuracy"].keys() == {"contrast"} and 0.2 < first["mean"] < 0.9
    assert main(["evaluate", card.name, "--update_card=true"]) == 0
    assert json.loads(path.read_text())["measured"]["corruptions"] == first
    pixels, labels = (np.arange(20 * 784) % 251).astype(np.uint8).reshape(20, 28, 28), np.arange(20) % 10
    names = np.array(trained.classes)
    np.savez("few.npz", x_train=pixels, y_train=labels, x_test=pixels, y_test=labels, classes=names)
    assert main(["evaluate", card.name, "--data.dataset=few.npz", "--update_card=true"]) == 0
    assert "corruptions" not in read_card(path).measured  # they were measured on other images
