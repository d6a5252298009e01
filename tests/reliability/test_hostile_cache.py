"""Full disks, kills and many files: the cache of decoded images, and of downloads, is whole or not there."""

import errno
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import datasets as tv_datasets

from cvcc_zoo import ImageDataModule
from cvcc_zoo.data import decoded, folder
from cvcc_zoo.data.decode import Decoding
from tests.reliability.hostile_folders import cache, in_child, pixels
from tests.reliability.hostile_helpers import answer
from tests.test_datasets import write_idx

ROOT = Path(__file__).parents[2]


def right(root: Path) -> torch.Tensor:
    """The training images, decoded here."""
    decoding = Decoding(8, 3, same_size=True, grey_only=False)
    return torch.from_numpy(np.stack([decoding(path) for path in sorted((root / "train").rglob("*.png"))]))


@pytest.mark.parametrize("when", ["fsync", "write"])
def test_a_full_disk_is_told_and_leaves_no_cache(when: str, colours: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        if when == "fsync":
            patch.setattr(os, "fsync", full)
        else:
            patch.setattr("cvcc_zoo.data.decoded.tracked", full)
        with pytest.raises(OSError, match=r"No space left on device\); make room there, or choose .*CVCC_ZOO_DATA"):
            pixels(colours)
    assert cache() == []
    assert torch.equal(pixels(colours), right(colours))


def test_a_limit_of_the_size_of_files_is_told_and_leaves_no_cache(colours: Path) -> None:
    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
        pixels(colours)

    said = in_child(limited)
    assert "the decoded images of colours/train take 0.0 MB and cannot be written to " in said
    assert "(File too large); make room" in said
    assert cache() == []
    assert torch.equal(pixels(colours), right(colours))


def test_a_cache_that_cannot_be_made_is_told(colours: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("data-home").write_text("a file")
    printed = answer(capsys, "fit", "--data.dataset=folder", f"--data.root={colours}")
    assert "cannot be written to " in printed
    assert "(Not a directory); make room there, or choose another folder: $CVCC_ZOO_DATA" in printed


@pytest.mark.parametrize("moment", ["between images", "fsync", "rename", "renamed"])
def test_after_a_kill_the_next_start_has_the_right_images(
    moment: str, colours: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoded, "AT_ONCE", 4)

    def kill(*_: Any, **__: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def tenth(images: Any, *_: Any) -> Iterator[Any]:
        for number, image in enumerate(images, start=1):
            if number == 10:
                kill()
            yield image

    def killed() -> None:
        if moment == "between images":
            vars(decoded)["tracked"] = tenth
        elif moment == "fsync":
            os.fsync = kill
        elif moment == "rename":
            Path.replace = kill  # type: ignore[assignment,method-assign]
        else:
            vars(folder)["_unchanged"] = kill
        pixels(colours)

    assert in_child(killed) == ""
    left = cache()
    assert len(left) == 1 and left[0].startswith(".") == (moment != "renamed")
    old = Path("data-home/decoded") / left[0]
    if moment != "renamed":
        os.utime(old, (0, 0))  # another process could still be writing into a younger one
    assert torch.equal(pixels(colours), right(colours))
    assert len(cache()) == 1 and not cache()[0].startswith(".")
    assert cache()[0].endswith(".uint8")


@pytest.mark.parametrize("size", [0, 1000, 7681])
def test_a_cache_of_another_size_is_made_anew(size: int, colours: Path) -> None:
    pixels(colours)
    (file,) = Path("data-home/decoded").iterdir()
    os.truncate(file, size)
    assert torch.equal(pixels(colours), right(colours))


# Downloaded sets


@pytest.fixture
def digits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The files of MNIST as they are downloaded, with a few images."""
    resources = []
    for split, count in (("train", 40), ("t10k", 20)):
        images = np.random.default_rng(0).integers(0, 256, (count, 28, 28)).astype(np.uint8)
        for what, content in (("images-idx3", images), ("labels-idx1", (np.arange(count) % 10).astype(np.uint8))):
            resources.append(write_idx(tmp_path / f"MNIST/raw/{split}-{what}-ubyte.gz", content))
    monkeypatch.setattr(tv_datasets.MNIST, "resources", resources)
    return tmp_path / "MNIST/raw"


@pytest.mark.parametrize("file", ["train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"])
@pytest.mark.parametrize("size", [0, 3, 15, 100])
def test_half_unpacked_files_are_damaged_and_made_anew_once_removed(
    file: str, size: int, digits: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = str(digits.parents[1])
    expected = ImageDataModule("mnist", root, validation=0).training_images()[0]
    size = min(size, 10) if "labels" in file else size
    os.truncate(digits / file, size)
    printed = answer(capsys, "fit", "--data.dataset=mnist", f"--data.root={root}")
    assert f"the files of mnist in {digits} are damaged" in printed and "remove them and start again" in printed
    (digits / file).unlink()
    assert torch.equal(ImageDataModule("mnist", root, validation=0).training_images()[0], expected)


def test_a_disk_that_fills_while_a_set_is_unpacked_is_told(digits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        (digits / "train-images-idx3-ubyte").write_bytes(bytes(100))
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    root = str(digits.parents[1])
    with monkeypatch.context() as patch:
        patch.setattr("torchvision.datasets.mnist.download_and_extract_archive", full)
        with pytest.raises(FileNotFoundError, match="No space left on device"):
            ImageDataModule("mnist", root).prepare_data()
    assert ImageDataModule("mnist", root, validation=0).training_images()[0].float().std() > 50


# Many files


@pytest.mark.slow
def test_a_hundred_thousand_files_take_seconds_and_little_memory(tmp_path: Path) -> None:
    pictures = []
    for number in range(100):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(tmp_path / "a.png")
        pictures.append((tmp_path / "a.png").read_bytes())
    root = tmp_path / "many"
    for split, count in (("train", 45_000), ("test", 5_000)):
        for colour in ("blue", "red"):
            place = root / split / colour
            place.mkdir(parents=True)
            for number in range(count):
                (place / f"{number:05}.png").write_bytes(pictures[number % 100])
    code = """
import resource, sys, time
from cvcc_zoo import ImageDataModule
def megabytes():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
before = megabytes()
for _ in range(2):
    start = time.monotonic()
    data = ImageDataModule("folder", sys.argv[1], validation=0)
    listed = time.monotonic()
    images, labels, samples = data.training_images()
    assert len(samples) == 90_000 and images[12_345, 0, 0, 0] == 45 and images[89_999, 0, 7, 7] == 99
    print(listed - start, time.monotonic() - listed, megabytes() - before)
"""
    done = subprocess.run([sys.executable, "-c", code, str(root)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = [[float(word) for word in line.split()] for line in done.stdout.splitlines() if line[:1].isdigit()]
    print("seconds to list, seconds to decode or to find decoded, MB: ", rows)
    assert len(rows) == 2 and rows[1][1] < rows[0][1] and rows[1][2] < 400
