"""No file that is written of a training holds an image that it was trained or tested on."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from cvcc_zoo.__main__ import main
from cvcc_zoo.files.own import write_picture
from cvcc_zoo.plots.figure import Figure
from tests.conftest import QUICK, MakeFolder


def holds(content: bytes, image: npt.NDArray[np.uint8]) -> bool:
    """Whether an image (H, W, C) uint8 is in a file, in either order of its axes, as bytes or as numbers."""
    forms: list[npt.NDArray[Any]] = [image, image.transpose(2, 0, 1)]
    forms += [form.astype(np.float32) / np.float32(scale) for form in forms for scale in (1, 255)]
    return any(np.ascontiguousarray(form).tobytes() in content for form in forms)


def colours(path: Path) -> npt.NDArray[np.int64]:
    """The colours (N, 3) of a picture."""
    with Image.open(path) as picture:
        counted: Any = picture.convert("RGB").getcolors(2**24)
    return np.array([colour for _, colour in counted])


def shows(drawn: npt.NDArray[np.int64], image: npt.NDArray[np.uint8]) -> bool:
    """Whether a picture of these colours may show an image (H, W, 3): it has all of its colours, up to rounding."""
    apart = np.abs(image.reshape(-1, 1, 3).astype(int) - drawn).max(2)
    return bool((apart.min(1) <= 1).all())


@pytest.fixture
def images(make_folder: MakeFolder) -> list[npt.NDArray[np.uint8]]:
    """All images of a folder."""
    root = make_folder("mine", classes=("left", "right"))
    return [np.asarray(Image.open(path)) for path in sorted(root.rglob("*.png"))]


def test_an_image_is_found_where_there_is_one(images: list[npt.NDArray[np.uint8]]) -> None:
    planes = np.stack(images[:3]).transpose(0, 3, 1, 2)
    assert holds(b"head" + planes.tobytes(), images[1]) and not holds(planes.tobytes(), images[3])
    assert holds((planes.astype(np.float32) / 255).tobytes(), images[2])
    figure = Figure(figsize=(2, 2))
    figure.subplots().imshow(images[1] / 255, interpolation="nearest")
    write_picture(Path("drawn.png"), figure)
    assert shows(colours(Path("drawn.png")), images[1]) and not shows(colours(Path("drawn.png")), images[3])


@pytest.mark.draws
def test_runs_searches_and_published_weights_hold_none(
    images: list[npt.NDArray[np.uint8]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CVCC_ZOO_HOME", str(Path("published").resolve()))
    data = ["--model=linear", "--data.dataset=folder", "--data.root=mine"]
    assert main(["fit", *data, *QUICK, "--run=written/run"]) == 0
    assert main(["publish", "written/run", "--folder=written/weights"]) == 0
    search = ["--folder=written/search", "--space={optimizer.lr: [0.01]}", "--trials=1"]
    assert main(["search", *search, *data, *QUICK]) == 0
    files = [path for path in Path("written").rglob("*") if path.is_file()]
    assert {path.suffix for path in files} >= {".ckpt", ".safetensors", ".json", ".png", ".csv", ".yaml"}
    for path in files:
        content = path.read_bytes()
        assert not any(holds(content, image) for image in images), path
        if path.suffix == ".png":
            drawn = colours(path)
            assert len(drawn) > 10 and not any(shows(drawn, image) for image in images), path
    kept = [path for path in Path(os.environ["CVCC_ZOO_DATA"]).rglob("*.uint8")]
    assert any(holds(path.read_bytes(), images[0]) for path in kept)  # the decoded images stay in the user's own cache
