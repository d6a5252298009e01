"""The demo shows what the models give, and looks where the formulas say."""

import asyncio
import os
import signal
import stat
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

import cvcc_zoo
from cvcc_zoo.__main__ import main
from cvcc_zoo.data import ImageDataModule
from cvcc_zoo.data.decode import Decoding
from cvcc_zoo.models import Linear

pytest.importorskip("gradio")
pytest.importorskip("captum")

from cvcc_zoo.commands.demo import best_first
from cvcc_zoo.demo import build, own_files
from cvcc_zoo.demo.app import EMPTY, analyse, as_html, show, to_image
from cvcc_zoo.demo.examples import write_examples
from cvcc_zoo.demo.explain import heatmap, maps, stages
from cvcc_zoo.demo.uploads import FILES, Drawings, Limits, as_files
from cvcc_zoo.files.signals import ended_by_signals
from tests.reliability.hostile_helpers import png
from tests.reliability.processes import ran

BUILT = """
import sys
from cvcc_zoo.demo import build
from pathlib import Path
(call,) = [each for each in build(sys.argv[1:], Path()).fns.values() if each.api_name == "classify"]
print(len(call.inputs), len(call.outputs), *sorted({event for _, event in call.targets}))
"""  # in a process of its own: Gradio leaves an event loop open


def test_what_is_shown_are_the_probabilities_of_the_model() -> None:
    pixels = ImageDataModule().some_images(1)[0]
    Image.fromarray(pixels[0, 0].numpy()).save("a.png")
    classes, pictures, words = analyse("cnn.fashion_mnist", "a.png")
    model = cvcc_zoo.create("cnn.fashion_mnist").eval()
    with torch.no_grad():
        expected = model(pixels).softmax(1)[0].topk(5).values.tolist()
    assert list(classes.values()) == pytest.approx(expected, abs=1e-5)
    assert [each.shape for each, _ in pictures[:2]] == 2 * [(252, 252, 3)]
    assert [text for _, text in pictures] == [
        "whitened input", "where it looks",
        "stage 1: 64 maps of 14x14", "stage 2: 128 maps of 7x7", "stage 3: 256 maps of 3x3",
    ]  # fmt: skip
    assert "Grad-CAM" in words


@pytest.mark.parametrize("name", ["resnet20.cifar10", "wrn16_4.cifar10"])  # the latter has a norm after its stages
def test_grad_cam_weights_maps_by_their_mean_gradient(name: str) -> None:
    model = cvcc_zoo.create(name)
    image = torch.randint(0, 256, (1, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    method, found = heatmap(model, image, 3)
    maps_of_last = model.features(image)[-1].detach().requires_grad_()
    score = model.parted.classify(maps_of_last)[0, 3]
    (gradient,) = torch.autograd.grad(score, maps_of_last)
    cam = (gradient.mean((2, 3), keepdim=True) * maps_of_last).sum(1, keepdim=True).relu()
    cam = F.interpolate(cam.detach(), (32, 32), mode="bilinear")[0, 0]
    assert method == "Grad-CAM"
    torch.testing.assert_close(found, cam / cam.max(), rtol=1e-4, atol=1e-4)


class Bare(nn.Module):
    """A network that does not define its parts."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.fc = nn.Linear(3, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.fc(x.mean((2, 3)))
        return y


class OfTimm(Bare):
    """A class of timm, which a user has wrapped."""

    def forward_intermediates(self, x: Tensor, intermediates_only: bool = False) -> list[Tensor]:
        return [x]


@pytest.mark.parametrize("network", [Bare, OfTimm])
def test_a_network_without_parts_is_explained_without_maps(network: type[nn.Module]) -> None:
    model = cvcc_zoo.ImageClassifier.wrap(network, num_classes=2, image_size=8, whitening="none").eval()
    image = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
    assert stages(model, image) == [] and heatmap(model, image, 0)[0] == "occlusion"


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
    drawn.save("a.png")
    image = to_image("a.png", Decoding(32, 3, same_size=False, grey_only=False))
    assert image.shape == (1, 3, 32, 32) and image.dtype == torch.uint8
    assert image[0, :, 16, 2].tolist() == [255, 0, 0] and image[0, :, 16, 29].tolist() == [255, 255, 255]
    assert to_image("a.png", Decoding(28, 1, same_size=False, grey_only=False)).shape == (1, 1, 28, 28)


def test_maps_become_a_square_of_at_most_16() -> None:
    sheet = maps(torch.rand(64, 8, 8))
    assert sheet.dtype == np.uint8 and sheet.shape == (276, 276, 3)
    assert maps(torch.zeros(3, 4, 4)).shape[2] == 3  # equal values are no division by zero


def test_the_page_is_built_for_all_published_models_the_best_first() -> None:
    names = best_first()
    assert names[0].endswith(".cifar10") and "linear.fashion_mnist" in names
    assert ran(BUILT, *names).split() == [
        "3",
        "6",
        "change",
        "clear",
        "input",
        "load",
        "upload",
    ]  # it acts on what is changed: there is no button
    with pytest.raises(ValueError, match="at least one published model"):
        build([], Path())


def test_without_an_image_the_page_says_what_to_do_and_what_the_models_know() -> None:
    Image.new("RGBA", (8, 8), (0, 0, 0, 0)).save("a.png")
    blank: dict[str, str | None] = {"background": None, "composite": "a.png"}
    for drawn in (None, dict.fromkeys(blank), blank):
        classes, pictures, knows, *_ = show(drawn, "cnn.fashion_mnist", "linear.cifar10")
        assert classes is None and EMPTY in pictures
        assert "Knows 10 classes of Fashion-MNIST: T-shirt/top, Trouser," in knows


def test_captions_are_below_their_pictures_and_names_are_no_markup() -> None:
    content = as_html([(np.zeros((4, 4, 3), dtype=np.uint8), "a <b>")], "for <i>")
    assert content.index("<img") < content.index("<figcaption>a &lt;b&gt;</figcaption>") and "for &lt;i&gt;" in content


def test_the_examples_are_what_the_models_take_them_for(tmp_path: Path) -> None:
    paths = write_examples(tmp_path)
    assert [path.stem for path in paths] == [
        "ship", "airplane", "truck", "T-shirt or top", "Trouser", "Pullover", "Dress", "Coat"
    ]  # fmt: skip
    for path in paths:
        model = "resnet20.cifar10" if path.stem in ("ship", "airplane", "truck") else "resnet20.fashion_mnist"
        classes, *_ = show({"background": str(path)}, model)
        assert next(iter(classes)).replace("/", " or ") == path.stem


@pytest.mark.usefixtures("without_nohup")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_what_is_uploaded_lies_in_a_folder_of_the_user_and_is_gone_afterwards(
    monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    monkeypatch.delenv(FILES, raising=False)
    with pytest.raises(SystemExit) as stopped, own_files() as folder, ended_by_signals():
        assert os.environ[FILES] == str(folder) and stat.S_IMODE(folder.stat().st_mode) == 0o700
        (folder / "mine.png").write_bytes(b"")
        os.kill(os.getpid(), number)
    assert stopped.value.code == 128 + number
    assert not folder.exists() and FILES not in os.environ


def test_an_image_that_the_folder_reader_refuses_is_refused_in_words() -> None:
    Image.new("RGB", (8, 8)).save("a.png", "EPS")
    Path("b.png").write_bytes(png(60_000_000, 1))
    Path("c.png").write_bytes(png(10_000, 8_000))
    for name, message in (
        ("a.png", "the image is not an image that can be read (not one of PNG"),
        ("b.png", "a side may have at most 65,535"),
        ("c.png", "the image has more than 64,000,000 pixels; make it smaller"),
    ):
        classes, words, _ = show({"background": None, "composite": name}, "linear.cifar10")
        assert classes is None and message in words


def test_the_page_hands_on_files_and_decodes_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(FILES, str(tmp_path))
    editor = SimpleNamespace(temp_files=set(), accept_blobs=lambda data: accepted.append(data))
    accepted: list[Any] = []
    as_files(editor)
    file = SimpleNamespace(path="a.png")
    uploaded = SimpleNamespace(id=None, background=file, composite=None)
    assert editor.preprocess(uploaded) == {"background": "a.png", "composite": None}
    editor.blob_storage["1"] = SimpleNamespace(background=None, layers=[], composite=b"no image")
    found = editor.preprocess(SimpleNamespace(id="1"))
    assert Path(found["composite"]).read_bytes() == b"no image" and found["composite"] in editor.temp_files
    assert editor.preprocess(SimpleNamespace(id="1")) is None and editor.preprocess(None) is None
    layer = {"index": "3", "type": "layer", "id": "1"}
    editor.accept_blobs(SimpleNamespace(data=layer))
    with pytest.raises(ValueError, match="a drawing has at most 100 layers"):
        editor.accept_blobs(SimpleNamespace(data=layer | {"index": "1000000000"}))
    assert len(accepted) == 1


def test_the_oldest_drawing_makes_room_for_a_new_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cvcc_zoo.demo.uploads.HELD", 100)
    drawings = Drawings()
    for name in "abc":
        drawings[name] = SimpleNamespace(background=bytes(10), layers=[None, bytes(10)], composite=bytes(25))
    assert list(drawings) == ["b", "c"]


def answers(limits: Limits, *sizes: int | None, path: str = "/gradio_api/upload") -> list[int]:
    """The statuses of requests of so many bytes that come at the same time."""
    statuses: list[int] = []

    async def ask(size: int | None) -> None:
        async def receive() -> dict[str, Any]:
            await asyncio.sleep(0)
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(part: Any) -> None:
            statuses.extend([part["status"]] if "status" in part else [])

        headers = [] if size is None else [(b"content-length", str(size).encode())]
        await limits({"type": "http", "method": "POST", "path": path, "headers": headers}, receive, send)

    async def all_at_once() -> None:
        await asyncio.gather(*map(ask, sizes))

    asyncio.run(all_at_once())
    return sorted(statuses)


def test_uploads_are_limited_in_size_and_number(tmp_path: Path) -> None:
    async def server(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200})

    limits = Limits(server, tmp_path)
    assert answers(limits, 50_000_001, None, 1) == [200, 411, 413]
    assert answers(limits, *20 * [40_000_000]) == 12 * [200] + 8 * [429]
    assert answers(limits, *20 * [40_000_000], path="/gradio_api/queue/join") == 20 * [200]
    with (tmp_path / "held.png").open("wb") as file:
        file.truncate(499_000_000)
    assert answers(limits, 2_000_000, 500_000) == [200, 429]


def test_bad_input_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "resnet21.cifar10"]) == 2
    assert "did you mean resnet20.cifar10" in capsys.readouterr().err
    assert main(["demo", "--port=0"]) == 2
    assert "a port is a number from 1 to 65535, not 0" in capsys.readouterr().err
