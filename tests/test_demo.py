"""The demo shows what the models give, and looks where the formulas say."""

import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

import cvcc_zoo
from cvcc_zoo.__main__ import main
from cvcc_zoo.data import ImageDataModule
from cvcc_zoo.data.decode import Decoding
from cvcc_zoo.models import Linear

pytest.importorskip("gradio")
pytest.importorskip("captum")

from cvcc_zoo.commands.demo import best_first
from cvcc_zoo.demo import build
from cvcc_zoo.demo.app import analyse, to_image
from cvcc_zoo.demo.explain import heatmap
from cvcc_zoo.demo.pictures import maps

BUILT = """
import sys
from cvcc_zoo.demo import build
(call,) = [each for each in build(sys.argv[1:]).fns.values() if each.api_name == "classify"]
print(len(call.inputs), len(call.outputs))
"""  # in a process of its own: Gradio leaves an event loop open


def test_what_is_shown_are_the_probabilities_of_the_model() -> None:
    pixels = ImageDataModule().some_images(1)[0]
    picture = Image.fromarray(pixels[0, 0].numpy())
    classes, whitened, heat, stages, words = analyse("cnn.fashion_mnist", picture)
    model = cvcc_zoo.create("cnn.fashion_mnist").eval()
    with torch.no_grad():
        expected = model(pixels).softmax(1)[0].topk(5).values.tolist()
    assert list(classes.values()) == pytest.approx(expected, abs=1e-5)
    assert whitened is not None and whitened.shape == heat.shape == (252, 252, 3)
    assert [text for _, text in stages] == ["64 of 14x14", "128 of 7x7", "256 of 3x3"]
    assert "Fashion-MNIST" in words and "Grad-CAM" in words


def test_grad_cam_weights_maps_by_their_mean_gradient() -> None:
    model = cvcc_zoo.create("resnet20.cifar10").eval()
    image = torch.randint(0, 256, (1, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    method, found = heatmap(model, image, 3)
    maps_of_last = model.features(image)[-1].detach().requires_grad_()
    score = model.parted.classify(maps_of_last)[0, 3]
    (gradient,) = torch.autograd.grad(score, maps_of_last)
    cam = (gradient.mean((2, 3), keepdim=True) * maps_of_last).sum(1, keepdim=True).relu()
    cam = F.interpolate(cam.detach(), (32, 32), mode="bilinear")[0, 0]
    assert method == "Grad-CAM"
    torch.testing.assert_close(found, cam / cam.max(), rtol=1e-4, atol=1e-4)


def test_occlusion_finds_the_only_pixels_that_count() -> None:
    model = Linear(num_classes=2, in_channels=1, image_size=16, whitening="none").eval()
    with torch.no_grad():
        for parameter in model.network.parameters():
            parameter.zero_()
        model.network.fc.weight[1].view(16, 16)[:4, :4] = 1
    image = torch.zeros(1, 1, 16, 16, dtype=torch.uint8)
    image[..., :4, :4] = 255
    method, found = heatmap(model, image, 1)
    assert method == "occlusion" and found[:4, :4].min() > 0.3 and found[10:, 10:].max() == 0


def test_a_drawing_lies_on_white_and_is_upright() -> None:
    drawn = Image.new("RGBA", (64, 64), (0, 0, 0, 0))
    drawn.paste((255, 0, 0, 255), (0, 0, 32, 64))
    image = to_image(drawn, Decoding(32, 3, same_size=False, grey_only=False))
    assert image.shape == (1, 3, 32, 32) and image.dtype == torch.uint8
    assert image[0, :, 16, 2].tolist() == [255, 0, 0] and image[0, :, 16, 29].tolist() == [255, 255, 255]
    assert to_image(drawn, Decoding(28, 1, same_size=False, grey_only=False)).shape == (1, 1, 28, 28)


def test_maps_become_a_square_of_at_most_16() -> None:
    sheet = maps(torch.rand(64, 8, 8))
    assert sheet.dtype == np.uint8 and sheet.shape == (272, 272, 3)
    assert maps(torch.zeros(3, 4, 4)).shape[2] == 3  # equal values are no division by zero


def test_the_page_is_built_for_all_published_models_the_best_first() -> None:
    names = best_first()
    assert names[0].endswith(".cifar10") and "linear.fashion_mnist" in names
    found = subprocess.run([sys.executable, "-c", BUILT, *names], capture_output=True, text=True, check=True).stdout
    assert found.split() == ["3", "10"]
    with pytest.raises(ValueError, match="at least one published model"):
        build([])


def test_bad_input_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "resnet21.cifar10"]) == 2
    assert "did you mean resnet20.cifar10" in capsys.readouterr().err
    assert main(["demo", "--port=0"]) == 2
    assert "a port is a number from 1 to 65535, not 0" in capsys.readouterr().err
