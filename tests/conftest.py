"""Small real files for the tests, made anew in temporary folders."""

import gc
import os
import signal
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from cvcc_zoo.__main__ import main
from tests.figures import blank_figures

if "PYTEST_XDIST_WORKER" in os.environ:  # one thread for each worker, and for the processes that it starts
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)

COLOURS = {"blue": (20, 40, 220), "red": (220, 30, 30)}


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, Any, Any]:
    """What is imported and collected is not searched for garbage, neither meanwhile nor in the tests."""
    gc.disable()
    collected = yield
    gc.collect()
    gc.freeze()
    gc.enable()
    return collected


@pytest.fixture(scope="session", autouse=True)
def shared_data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Data and caches of fixtures of whole modules go into a folder of all tests, which it returns."""
    folder = tmp_path_factory.mktemp("data-home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CVCC_ZOO_DATA", str(folder))
        yield folder


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs, caches and data go into the test's own folder, never into the user's."""
    monkeypatch.setenv("CVCC_ZOO_DATA", str(tmp_path / "data-home"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session", autouse=True)
def drawing() -> Iterator[dict[str, Callable[..., Any]]]:
    """The figures of runs are blank, also in fixtures of whole modules; returns what draws them, by its names."""
    with blank_figures() as found:
        yield found


@pytest.fixture(autouse=True)
def drawn_figures(
    request: pytest.FixtureRequest, drawing: dict[str, Callable[..., Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are drawn in tests marked `draws`."""
    if request.node.get_closest_marker("draws") is not None:
        for name, function in drawing.items():
            monkeypatch.setattr(f"cvcc_zoo.runs.figures.{name}", function)


def write_images(folder: Path, count: int, seed: int, size: int = 8, mode: str = "RGB", suffix: str = "png") -> None:
    """`count` noisy images of the folder's colour."""
    folder.mkdir(parents=True)
    generator = np.random.default_rng(seed)
    for number in range(count):
        noise = generator.integers(-20, 20, (size, size, 3))
        pixels = np.clip(noise + COLOURS.get(folder.name, (128, 128, 128)), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).convert(mode).save(folder / f"{number:03}.{suffix}")


def write_folder(root: Path, *, val: int = 0, classes: Sequence[str] = tuple(COLOURS), **options: object) -> Path:
    """An image folder with 20 images of each class to train on and 6 to test; returns its place."""
    counts = {"train": 20, "test": 6} | ({"val": val} if val else {})
    for split, count in counts.items():
        for seed, colour in enumerate(classes):
            write_images(root / split / colour, count, seed=seed + 10 * len(split), **options)  # type: ignore[arg-type]
    return root


MakeFolder = Callable[..., Path]


@pytest.fixture
def make_folder(tmp_path: Path) -> MakeFolder:
    """Make image folders, with the classes blue and red unless others are named, in the folder of the test."""

    def make(name: str = "colours", **options: Any) -> Path:
        return write_folder(tmp_path / name, **options)

    return make


@pytest.fixture
def colours(make_folder: MakeFolder) -> Path:
    """The image folder itself."""
    return make_folder()


@pytest.fixture
def without_nohup() -> Iterator[None]:
    """SIGHUP is not ignored, even if the tests were started by `nohup`."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let torchvision find no network when it downloads."""

    def no_network(*args: object, **kwargs: object) -> None:
        raise OSError("Network is unreachable")

    monkeypatch.setattr("torchvision.datasets.utils._urlretrieve", no_network)
    monkeypatch.setattr("torchvision.datasets.utils._get_redirect_url", lambda url, max_hops: url)


QUICK = [
    "--trainer.max_epochs=1",
    "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false",
    "--trainer.accelerator=cpu",
]
SMALL = ["--model=fcnn", "--model.hidden=[8]"]  # its checkpoints are small, too: the default has 860,000 weights


def on(root: Path) -> list[str]:
    """The words of a short training on an image folder."""
    return ["--data.dataset=folder", f"--data.root={root}", "--data.batch_size=16", *QUICK]


Fit = Callable[..., int]


@pytest.fixture
def fit(colours: Path) -> Fit:
    """Fit on the coloured images with more arguments."""

    def run(*more: str) -> int:
        return main(["fit", *on(colours), *more])

    return run


def message(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> str:
    """What a command prints when it fails; it must not leave a run behind."""
    try:
        code: object = main(arguments)
    except SystemExit as stop:
        code = stop.code
    printed = capsys.readouterr().err
    assert code == 2 and "Traceback" not in printed
    assert not Path("runs").exists() or not list(Path("runs").iterdir())
    return printed
