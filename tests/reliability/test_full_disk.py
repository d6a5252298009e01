"""A training on a full disk ends with one line that names a file, and goes on to the same result when there is room."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from cvcc_zoo import load
from cvcc_zoo.__main__ import main
from tests.conftest import QUICK

DISK = 1 << 20  # bytes
STEP = 32 << 10


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of a megabyte, for those who may make one."""
    place = tmp_path / "disk"
    place.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(place)], capture_output=True)
    if made.returncode:
        pytest.skip("only an administrator can mount a small disk")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


def training(colours: Path, folder: Path) -> list[str]:
    data = ["--data.dataset=folder", f"--data.root={colours}", "--data.batch_size=8", "--trainer.log_every_n_steps=1"]
    return ["fit", "--model=linear", *data, *QUICK[1:], "--trainer.max_epochs=3", f"--run={folder}", "--ckpt_path=last"]


@pytest.mark.slow
def test_a_full_disk_at_every_write(disk: Path, colours: Path, tmp_path: Path) -> None:
    assert main(training(colours, tmp_path / "whole")) == 0
    whole, failed = tmp_path / "whole", 0
    for free in range(0, DISK, STEP):
        run, ballast = disk / "run", disk / "ballast"
        ballast.write_bytes(bytes(DISK - free - 4096))
        done = subprocess.run(
            [sys.executable, "-m", "cvcc_zoo", *training(colours, run)], capture_output=True, text=True, cwd=tmp_path
        )
        ballast.unlink()
        if done.returncode == 0:
            break
        failed += 1
        last = done.stderr.strip().splitlines()[-1]
        assert done.returncode == 2 and "Traceback" not in done.stderr, f"{free} bytes: {done.stderr}"
        assert last.startswith("cvcc-zoo: error: ") and str(disk) in last and "No space left" in last, last
        left = [path for path in disk.rglob("*") if path.is_file() and path.name[0] != "."]
        assert all(path.stat().st_size for path in left)
        assert main(training(colours, run)) == 0
        same(run, whole)
        subprocess.run(["rm", "-r", str(run)], check=True)
    assert 5 < failed < DISK // STEP  # so it failed at many places, and at last there was room for all


def same(run: Path, whole: Path) -> None:
    """Whether a run ended as another did."""
    mine, other = (load(f"{each}/last.ckpt").state_dict() for each in (run, whole))
    assert all(torch.equal(mine[name], other[name]) for name in other)
    assert (run / "metrics.csv").read_text() == (whole / "metrics.csv").read_text()
    keys = ("test_accuracy", "val_accuracy", "test_loss", "epochs", "steps", "tested")
    numbers = [json.loads((each / "summary.json").read_text()) for each in (run, whole)]
    assert [numbers[0][key] for key in keys] == [numbers[1][key] for key in keys]
    assert {path.name for path in run.iterdir()} == {path.name for path in whole.iterdir()}
