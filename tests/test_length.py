"""How long a training is, whatever ends it and however many batches are summed up to a step."""

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning import Callback, Trainer
from lightning.pytorch.callbacks import GradientAccumulationScheduler
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from cvcc_zoo import load
from cvcc_zoo.__main__ import main
from cvcc_zoo.data.length import images_of_batch
from cvcc_zoo.data.loader import TensorLoader
from cvcc_zoo.runs import RunFolder
from cvcc_zoo.runs.metrics_file import read_metrics
from tests.conftest import Fit
from tests.test_choices import folder, linear, quick

SUMMED = ["--trainer.callbacks+=GradientAccumulationScheduler", "--trainer.callbacks.scheduling={1: 2}"]


def test_a_training_goes_on_in_an_epoch_that_sums_up_more_batches(fit: Fit, monkeypatch: pytest.MonkeyPatch) -> None:
    more = ["--model=fcnn", "--model.hidden=[8]", "--trainer.max_epochs=3", "--data.batch_size=4", *SUMMED]
    more += ["--data.validation=0", "--trainer.log_every_n_steps=1", "--checkpoint_minutes=1e-9", "--test=false"]
    assert fit(*more, "--run=whole") == 0
    count = RunFolder.on_train_batch_end

    def killed_here(run: RunFolder, trainer: Trainer, *args: Any) -> None:
        if (trainer.current_epoch, trainer.fit_loop.batch_idx) == (1, 5):
            raise RuntimeError("killed")
        count(run, trainer, *args)

    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="killed"):
        patch.setattr(RunFolder, "on_train_batch_end", killed_here)
        fit(*more, "--run=killed")
    batches = torch.load("killed/last.ckpt", weights_only=True)["ImageDataModule"]["batches"]
    assert batches == 4  # in the middle of an epoch, where no gradient is kept
    assert main(["fit", "--config=killed/config.yaml", "--ckpt_path=last", "--trainer.enable_progress_bar=false"]) == 0
    whole, killed = (load(run).state_dict() for run in ("whole", "killed"))
    assert all(torch.equal(whole[name], killed[name]) for name in whole)
    assert Path("whole/metrics.csv").read_text() == Path("killed/metrics.csv").read_text()


@pytest.mark.filterwarnings("ignore:When using `Trainer")  # that our `optimizer_step` is called once a step
@pytest.mark.parametrize(
    ("scheduling", "length", "steps"),
    [
        ({1: 2}, {"max_epochs": 3}, 5 + 3 + 3),
        ({0: 5}, {"max_epochs": 2}, 1 + 1),
        ({1: 2, 3: 4}, {"max_epochs": -1, "max_steps": 14}, 14),
        ({2: 3}, {"max_epochs": 4, "max_steps": 7}, 7),
        ({9: 2}, {"max_epochs": 2}, 5 + 5),
    ],
)
def test_a_schedule_spans_a_training_whose_steps_grow(
    colours: Path, scheduling: dict[int, int], length: dict[str, int], steps: int
) -> None:
    rates: dict[int, float] = {}

    class Watch(Callback):
        def on_train_batch_start(self, trainer: Trainer, *args: Any) -> None:
            rates[trainer.global_step] = trainer.optimizers[0].param_groups[0]["lr"]

    model = linear(optimizer={"name": "SGD", "lr": 1.0}, lr_scheduler="Linear")
    trainer = quick(callbacks=[Watch(), GradientAccumulationScheduler(scheduling)], **length)
    trainer.fit(model, folder(colours, validation=0))
    assert list(rates.values()) == pytest.approx([1 - step / steps for step in range(steps)])


class Stream(IterableDataset[Any]):
    """Images that come one by one; nobody knows how many."""

    def __iter__(self) -> Iterator[Any]:
        return iter([(torch.zeros(3, 8, 8), label % 2) for label in range(40)])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("length", [{"max_epochs": 2}, {"max_epochs": -1, "max_steps": 14}])
def test_a_schedule_over_a_stream_needs_the_length_of_an_epoch(length: dict[str, int]) -> None:
    loader = DataLoader(Stream(), batch_size=4)
    with pytest.raises(ValueError, match=r"images come as a stream; give .* Trainer\(limit_train_batches=100\)"):
        quick(**length).fit(linear(lr_scheduler="Cosine", whitening="none"), loader)
    trainer = quick(limit_train_batches=5, **length)
    trainer.fit(linear(lr_scheduler="Cosine", whitening="none"), loader)
    assert trainer.global_step == length.get("max_steps", 2 * 5)


@pytest.mark.parametrize("more", [[], ["--trainer.val_check_interval=2"], ["--trainer.accumulate_grad_batches=2"]])
def test_steps_that_end_in_an_epoch_end_with_a_validation(fit: Fit, more: list[str]) -> None:
    steps = ["--trainer.max_steps=3", "--data.batch_size=4", "--trainer.log_every_n_steps=1"]
    assert fit("--model=linear", "--optimizer=SGD", "--optimizer.lr=0", *steps, *more, "--run=run") == 0
    summary, metrics = json.loads(Path("run/summary.json").read_text()), read_metrics(Path("run/metrics.csv"))
    assert summary["steps"] == 3 and summary["tested"] == "best.ckpt" and summary["val_accuracy"] is not None
    assert "val/loss" in summary["last_epoch"] and metrics["val/loss"][0][-1] == 2  # the third step


def test_the_last_row_has_the_numbers_of_the_last_step(fit: Fit) -> None:
    more = ["--model=linear", "--trainer.max_steps=7", "--data.batch_size=4", "--trainer.callbacks+=OptimizerMonitor"]
    found = []
    for every in (1, 3):
        assert fit(*more, "--test=false", f"--trainer.log_every_n_steps={every}", f"--run={every}") == 0
        found.append(read_metrics(Path(f"{every}/metrics.csv")))
    for name in ("train/batch_loss", "train/grad_norm", "train/update_ratio"):
        each, third = (dict(zip(*metrics[name], strict=True)) for metrics in found)
        assert third == {step: each[step] for step in (2, 5, 6)}


def test_every_process_counts_the_images_of_whole_batches() -> None:
    """39 images in 3 processes of 13; 40 in shares of 14, 13 and 13."""
    images, labels, samples = torch.zeros(99, 1, 8, 8), torch.zeros(99, dtype=torch.int64), torch.arange(99)
    for batch_size in (39, 40):
        for rank in range(3):
            loader = TensorLoader(images, labels, samples, batch_size, shuffle_seed=0, rank=rank, world_size=3)
            trainer: Any = SimpleNamespace(train_dataloader=loader, world_size=3)
            assert [images_of_batch(trainer, batch) for batch in loader] == [batch_size, batch_size]
    others: Any = SimpleNamespace(train_dataloader=DataLoader(TensorDataset(images, labels), 9), world_size=2)
    assert images_of_batch(others, next(iter(others.train_dataloader))) == 18
