"""A training that is killed at any moment and goes on ends with the same bits as one that was left alone."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch

from cvcc_zoo.__main__ import main
from cvcc_zoo.files.own import UNFINISHED
from tests.conftest import write_images
from tests.reliability.processes import Started

QUIET = ("--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false", "--trainer.accelerator=cpu")
GO_ON = ("fit", "--config=run/config.yaml", "--ckpt_path=last")
CLOCK = ("train_seconds", "images_per_second", "finished", "commit")
SCENARIOS: dict[str, list[str]] = {
    "ema, dropout, accumulated gradients, validation": [
        "--model=fcnn", "--model.dropout=0.5", "--model.hidden=[64]", "--optimizer=AdamW", "--lr_scheduler=OneCycle",
        "--trainer.callbacks+=cvcc_zoo.runs.EMA", "--trainer.accumulate_grad_batches=3", "--trainer.max_epochs=6",
    ],
    "batch norm, mixed images, small images first, no validation": [
        "--model=resnet20", "--optimizer=Muon", "--optimizer.lr=0.02", "--lr_scheduler=QuarterCosine",
        "--data.validation=0", "--data.image_size=16", "--data.progressive_resizing={8: 0.5}",
        "--data.augmentations=[standard, CutMix]", "--trainer.max_epochs=4",
    ],
    "steps that end within an epoch": [
        "--model=fcnn", "--model.hidden=[64]", "--model.dropout=0.2", "--trainer.max_epochs=-1",
        "--trainer.max_steps=130", "--lr_scheduler=Linear", "--trainer.log_every_n_steps=1",
    ],
    "schedule by epoch": [
        "--model=cnn_small", "--optimizer=SGD", "--optimizer.lr=0.05", "--optimizer.momentum=0.9",
        "--lr_scheduler=StepLR", "--lr_scheduler.step_size=1", "--lr_scheduler.gamma=0.5",
        "--lr_scheduler.interval=epoch", "--trainer.max_epochs=5",
    ],
    "schedule by what is measured, validation within the epoch": [
        "--model=fcnn", "--model.hidden=[64]", "--model.dropout=0.2", "--optimizer=RMSprop", "--optimizer.lr=0.001",
        "--lr_scheduler=ReduceLROnPlateau", "--lr_scheduler.monitor=val/loss", "--lr_scheduler.patience=0",
        "--trainer.val_check_interval=0.5", "--trainer.gradient_clip_val=1", "--trainer.max_epochs=5",
    ],
}  # fmt: skip


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 240 coloured images."""
    root = tmp_path_factory.mktemp("data") / "colours"
    for seed, colour in enumerate(("blue", "red")):
        write_images(root / "train" / colour, 100, seed=seed)
        write_images(root / "test" / colour, 20, seed=seed + 10)
    return root


def everything(run: Path) -> dict[str, Any]:
    """All that a run left, but for what the clock says and where it lies; of pictures, which are blank, their names."""
    left: dict[str, Any] = {path.name: path.read_bytes() for path in run.glob("*.csv")}
    left["pictures"] = sorted(path.name for path in run.glob("*.png"))
    summary = json.loads((run / "summary.json").read_text())
    left["summary.json"] = {key: value for key, value in summary.items() if key not in CLOCK}
    left["config.yaml"] = (run / "config.yaml").read_text()
    for path in run.glob("*.ckpt"):
        content = torch.load(path, weights_only=True)
        content["callbacks"]["RunFolder"].pop("seconds")
        left[path.name] = flat(content, str(run.resolve()))
    return left


def flat(value: Any, place: str) -> Any:
    """Nested content in a form that `==` compares to the bit."""
    if isinstance(value, torch.Tensor):
        return (value.dtype, tuple(value.shape), value.contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    if isinstance(value, dict):
        return {str(flat(key, place)): flat(item, place) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [flat(item, place) for item in value]
    return value.replace(place, "RUN") if isinstance(value, str) else value


def differences(one: Any, other: Any, name: str = "") -> list[str]:
    """Where two contents differ, for the message of a test that fails."""
    if isinstance(one, dict) and isinstance(other, dict):
        names = [*one, *(key for key in other if key not in one)]
        return [found for key in names for found in differences(one.get(key), other.get(key), f"{name}/{key}")]
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        pairs = enumerate(zip(one, other, strict=True))
        return [found for number, pair in pairs for found in differences(*pair, f"{name}/{number}")]
    return [] if one == other else [f"{name}: {str(one)[:300]} != {str(other)[:300]}"]


def killed_and_resumed(images: Path, folder: Path, options: list[str], kills: int, seed: int) -> int:
    """Train once alone, and once with SIGKILLs at random moments; returns how many hit, and compares what was left."""
    data = ["--data.dataset=folder", f"--data.root={images}", "--data.batch_size=8"]
    start = ["fit", *data, *options, *QUIET, "--run=run", "--checkpoint_minutes=0.005"]
    (folder / "whole").mkdir(parents=True)
    whole = Started(start, folder / "whole")
    whole.wait_for(folder / "whole/run/config.yaml")
    length = whole.ends()
    expected, chance, hits, tries = everything(folder / "whole/run"), random.Random(seed), 0, 0
    while hits < kills:
        tries += 1
        place = folder / f"killed-{tries}"
        place.mkdir()
        process = Started(start, place)
        process.wait_for(place / "run/config.yaml")
        for _ in range(kills - hits):
            if not process.kill_after(chance.uniform(0, length)):
                break
            hits += 1
            process = Started(GO_ON, place, {"PL_GLOBAL_SEED": str(hits)})
        process.ends()
        assert differences(expected, everything(place / "run")) == []
    return hits


MOST_CHANGES = 120  # to the files of the run below, which makes some 140, and more on a slow machine


def killed_before_changes(images: Path, folder: Path, kills: int, seed: int) -> None:
    """Train once alone, and with SIGKILLs before changes of the run's files that are drawn; compare what is left."""
    data = ["--data.dataset=folder", f"--data.root={images}", "--data.batch_size=8", "--trainer.log_every_n_steps=5"]
    options = SCENARIOS["ema, dropout, accumulated gradients, validation"]
    start = ["fit", *data, *options, "--trainer.max_epochs=3", *QUIET, "--run=run"]
    start += ["--ckpt_path=last", "--checkpoint_minutes=0.002"]
    (folder / "whole").mkdir(parents=True)
    Started(start, folder / "whole").ends()
    expected, chance, hits, number = everything(folder / "whole/run"), random.Random(seed), 0, 0
    while hits < kills:
        number += 1
        place = folder / f"killed-{number}"
        place.mkdir()
        while not Started(start, place, killed_before=chance.randint(1, MOST_CHANGES)).ended_well():
            hits += 1
        assert differences(expected, everything(place / "run")) == []
        assert not [path.name for path in (place / "run").iterdir() if path.name.endswith(UNFINISHED)]


def test_kills_before_changes_of_files_change_nothing(images: Path, tmp_path: Path) -> None:
    killed_before_changes(images, tmp_path, kills=3, seed=0)


@pytest.mark.slow
def test_a_hundred_kills_before_changes_of_files_change_nothing(images: Path, tmp_path: Path) -> None:
    killed_before_changes(images, tmp_path, kills=100, seed=1)


@pytest.mark.slow
def test_three_kills_change_nothing(images: Path, tmp_path: Path) -> None:
    options = SCENARIOS["ema, dropout, accumulated gradients, validation"]
    assert killed_and_resumed(images, tmp_path, options, kills=3, seed=0) == 3


@pytest.mark.slow
@pytest.mark.parametrize("scenario", SCENARIOS)
@pytest.mark.parametrize("seed", [1, 2])
def test_many_kills_change_nothing(images: Path, tmp_path: Path, scenario: str, seed: int) -> None:
    assert killed_and_resumed(images, tmp_path, SCENARIOS[scenario], kills=6, seed=seed) == 6


def test_a_finished_run_can_be_finished_again(images: Path) -> None:
    """As where it was killed while it was tested."""
    data = ["--data.dataset=folder", f"--data.root={images}", "--data.batch_size=8"]
    options = SCENARIOS["ema, dropout, accumulated gradients, validation"]
    assert main(["fit", *data, *options, *QUIET, "--run=run"]) == 0
    before = everything(Path("run"))
    assert main(GO_ON) == 0
    assert differences(before, everything(Path("run"))) == []


def test_the_comparison_sees_a_single_bit() -> None:
    one = {"a": torch.tensor([1.0, 2.0]), "b": [1, "x"]}
    other = {"a": torch.tensor([1.0, 2.0]).nextafter(torch.tensor(3.0)), "b": [1, "x"]}
    assert differences(flat(one, "-"), flat(one, "-")) == []
    assert len(differences(flat(one, "-"), flat(other, "-"))) == 1
