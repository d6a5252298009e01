"""Several processes: the same evaluation to the last digit, the same training up to the order of sums."""

import json
import shutil
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from cvcc_zoo import load
from cvcc_zoo.data.loader import TensorLoader, in_order
from tests.reliability.processes import Started, ran

QUIET = ("--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false", "--trainer.accelerator=cpu")
TEST_IMAGES = 1_009  # a prime, so that no number of processes divides it
NUMBERS = 7  # metrics that a test prints, in alphabetical order


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of noisy images of 8x8 pixels: 2 x 60 to train on, 1,009 to test."""
    root, generator = tmp_path_factory.mktemp("data") / "noise", np.random.default_rng(0)
    for split, count in (("train", 120), ("test", TEST_IMAGES)):
        for number in range(count):
            folder = root / split / ("bright" if number % 2 else "dark")
            folder.mkdir(parents=True, exist_ok=True)
            pixels = generator.integers(0, 256 - 20 * (number % 2 == 0), (8, 8, 3))
            Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number:05}.png", compress_level=0)
    return root


@pytest.fixture
def shared_cache(own_folders: None, shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The images are decoded once for all tests that have this."""
    monkeypatch.setenv("CVCC_ZOO_DATA", str(shared_data))


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port


def together(args: Sequence[str], folder: Path, processes: int, code: int = 0, shared: bool = True) -> None:
    """Run a command in several processes, which know each other as those that torchrun starts do.

    They see one folder unless it is not `shared`; each must end with the code.
    """
    started, port = [], free_port()
    for rank in range(processes):
        size = str(processes)
        environment = {
            "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size,
            "GROUP_RANK": "0", "NODE_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
            "TORCHELASTIC_RUN_ID": "test",
        }  # fmt: skip
        several = [f"--trainer.devices={processes}", "--trainer.strategy=ddp"] if processes > 1 else []
        mine = folder if shared else folder / str(rank)
        mine.mkdir(parents=True, exist_ok=True)
        started.append(Started([*args, *several], mine, environment if processes > 1 else None))
    for process in started:
        process.ends(code)


def data(images: Path) -> list[str]:
    return ["--data.dataset=folder", f"--data.root={images}", "--data.batch_size=40"]


@pytest.fixture(scope="module")
def trained(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a network with batch norm."""
    folder = tmp_path_factory.mktemp("trained")
    more = ["--model=cnn_small", "--trainer.max_epochs=1", *QUIET, "--run=run"]
    together(["fit", *data(images), *more], folder, 1)
    return folder / "run"


@pytest.mark.usefixtures("shared_cache")
def test_an_evaluation_gives_the_same_digits_on_any_number_of_processes(
    images: Path, trained: Path, tmp_path: Path
) -> None:
    """Every number that Lightning's test prints, and the predictions of all images, in order."""
    found: list[Any] = []
    for processes in (1, 3):
        folder = tmp_path / str(processes)
        args = [*data(images), f"--ckpt_path={trained}/best.ckpt", *QUIET]
        together(["test", *args], folder, processes)
        printed = (folder / "output.txt").read_text()
        found.append([line.split("│")[1:3] for line in printed.splitlines() if "test/" in line][:NUMBERS])
        together(["predict", *args], folder, processes)
        found[-1].append((trained / "predictions-noise.csv").read_bytes())
    assert found[0] == found[1]
    assert len(found[0][0]) == 2 and "test/accuracy" in found[0][0][0] and "test/loss" in found[0][NUMBERS - 1][0]
    assert found[0][NUMBERS].count(b"\n") == TEST_IMAGES + 1


def test_processes_that_see_other_checkpoints_are_told(images: Path, trained: Path, tmp_path: Path) -> None:
    """They also find an empty cache, and decode the images at the same time."""
    shutil.copytree(trained, tmp_path / "0/run")
    more = ["--model=cnn_small", "--trainer.max_epochs=2", "--allow_changes=true", *QUIET]
    together(
        ["fit", *data(images), *more, "--run=run", "--ckpt_path=last"], tmp_path, processes=2, code=2, shared=False
    )
    for rank in (0, 1):
        printed = (tmp_path / str(rank) / "output.txt").read_text()
        assert "the processes start from different checkpoints" in printed and "Traceback" not in printed


@pytest.mark.parametrize("shuffle_seed", [None, 0])
def test_every_image_comes_once_however_many_processes(shuffle_seed: int | None) -> None:
    for count, batch_size, processes in ((103, 10, 3), (5, 10, 4), (40, 20, 7)):
        shares = [
            TensorLoader(
                torch.zeros(count, 1, 1, 1), torch.arange(count), torch.arange(count), batch_size,
                shuffle_seed=shuffle_seed, rank=rank, world_size=processes,
            )
            for rank in range(processes)
        ]  # fmt: skip
        seen = [[batch.labels.tolist() for batch in share] for share in shares]
        assert len({len(batches) for batches in seen}) == 1
        every = sorted(label for batches in seen for batch in batches for label in batch)
        if shuffle_seed is None:
            assert every == list(range(count))
        else:
            assert len(every) == len(set(every)) == count // min(batch_size, count) * min(batch_size, count)


def test_a_batch_that_the_processes_cannot_share_is_refused() -> None:
    with pytest.raises(ValueError, match="a batch of 2 images cannot be divided among 3 processes"):
        TensorLoader(torch.zeros(9, 1), torch.zeros(9), torch.arange(9), 2, shuffle_seed=0, rank=0, world_size=3)


def test_without_processes_the_order_is_that_of_the_batches() -> None:
    assert in_order([1, 2, 3]) == [1, 2, 3]


@pytest.mark.usefixtures("shared_cache")
@pytest.mark.parametrize(
    ("batch_size", "more"),
    [(40, []), (39, []), (39, ["--model.loss.class_weights={dark: 5}", "--data.sampler=balanced"])],
)
def test_two_processes_train_as_one(images: Path, tmp_path: Path, batch_size: int, more: list[str]) -> None:
    """Without batch norm and dropout, whose statistics and draws belong to a process; 39 images are shared unevenly."""
    args = [
        "fit", *data(images), f"--data.batch_size={batch_size}", "--model=fcnn", "--model.hidden=[32]",
        "--model.dropout=0", "--model.norm=none", "--data.whitening=zca", "--optimizer=SGD", "--optimizer.lr=0.1",
        "--optimizer.momentum=0.9", "--trainer.max_epochs=4", "--trainer.log_every_n_steps=1", *QUIET, "--run=run",
        *more,
    ]  # fmt: skip
    states, summaries, curves = [], [], []
    for processes in (1, 2):
        together(args, tmp_path / str(processes), processes)
        run = tmp_path / str(processes) / "run"
        states.append(load(run / "last.ckpt").state_dict())
        summaries.append(json.loads((run / "summary.json").read_text()))
        curves.append(len((run / "metrics.csv").read_text().splitlines()))
    for name, tensor in states[0].items():
        if name == "whitening.mean":  # of sums of integers; an eigenvalue differs in its last digit with the threads
            assert torch.equal(tensor, states[1][name])
        elif tensor.is_floating_point():
            torch.testing.assert_close(tensor, states[1][name], rtol=1e-4, atol=1e-6)
    assert curves[0] == curves[1] and summaries[0]["steps"] == summaries[1]["steps"]
    assert abs(summaries[0]["test_loss"] - summaries[1]["test_loss"]) < 1e-5
    for name in ("test_f1", "test_log_loss", "test_brier_score", "test_calibration_error"):
        assert summaries[0][name] == pytest.approx(summaries[1][name], abs=1e-5)
    assert summaries[0]["test_per_class"] == summaries[1]["test_per_class"]


@pytest.mark.usefixtures("shared_cache")
def test_two_processes_search_along_the_same_line(images: Path, tmp_path: Path) -> None:
    """By the loss of the whole batch, of which they have 20 and 19 images."""
    args = [
        "fit", *data(images), "--data.batch_size=39", "--model=linear", "--model.loss.class_weights={dark: 5}",
        "--optimizer=LBFGS", "--optimizer.lr=1", "--optimizer.line_search_fn=strong_wolfe",
        "--lr_scheduler=null", "--trainer.max_steps=2", "--test=false", *QUIET, "--run=run",
    ]  # fmt: skip
    weights = []
    for processes in (1, 2):
        together(args, tmp_path / str(processes), processes)
        weights.append(load(tmp_path / str(processes) / "run/last.ckpt").state_dict()["network.fc.weight"])
    torch.testing.assert_close(*weights, rtol=1e-3, atol=1e-4)


@pytest.mark.usefixtures("shared_cache")
@pytest.mark.parametrize(("features", "whitening"), [("null", "standardize"), ("[{name: HOG, cell: 2}]", "none")])
def test_ridge_has_the_same_bits_on_one_process_and_two(
    images: Path, tmp_path: Path, features: str, whitening: str
) -> None:
    """Whole numbers for pixels, rounded sums for other vectors; lambda is chosen by leave-one-out in both."""
    args = [
        "fit", *data(images), "--data.augmentations=none", "--data.validation=0", "--model=ridge",
        f"--model.features={features}", f"--data.whitening={whitening}", "--model.ridge.name=leave_one_out",
        "--model.ridge.grid=[1, 30, 1000]", *QUIET, "--run=run",
    ]  # fmt: skip
    found = []
    for processes in (1, 2):
        together(args, tmp_path / str(processes), processes)
        found.append(load(tmp_path / str(processes) / "run/last.ckpt").state_dict())
    assert found[0]["network.fc.weight"].abs().sum() > 0
    assert all(torch.equal(tensor, found[1][name]) for name, tensor in found[0].items())


def test_a_process_has_the_environment_of_the_test_that_starts_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not that of the first one, of which it is forked."""
    for name in ("one", "two"):
        monkeypatch.setenv("CVCC_ZOO_DATA", name)
        with monkeypatch.context() as patch:
            patch.setenv("ONLY", name)
            assert ran("import os; print(os.environ['CVCC_ZOO_DATA'], os.environ['ONLY'])").split() == [name, name]
    assert ran("import os; print('ONLY' in os.environ)") == "False\n"
    with pytest.raises(EOFError):
        ran("raise ValueError('shown among the errors')")
