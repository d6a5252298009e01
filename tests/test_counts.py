"""What is counted is that of its own epoch or evaluation, whatever came before."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.strategies import SingleDeviceStrategy
from torch import Tensor

from cvcc_zoo import ImageClassifier, ImageDataModule, Linear
from cvcc_zoo.classifier.metrics import StageMetrics

QUIET: dict[str, Any] = {
    "max_epochs": 1, "logger": False, "accelerator": "cpu", "enable_progress_bar": False,
    "enable_model_summary": False,
}  # fmt: skip


def colours_of(colours: Path) -> ImageDataModule:
    return ImageDataModule("folder", root=str(colours), batch_size=4, validation=0.25)


def linear(family: type[ImageClassifier] = Linear) -> ImageClassifier:
    torch.manual_seed(0)
    model = family(num_classes=2, image_size=8, whitening="none", optimizer={"name": "SGD", "lr": 0.1})
    torch.nn.init.normal_(model.network.get_parameter("fc.weight"))
    return model


def quick(**options: Any) -> Trainer:
    return Trainer(**{"enable_checkpointing": False, **QUIET, **options})


class Breaks(Callback):
    """Ends a stage with an error after its second batch."""

    def _break(self, trainer: Trainer, *args: Any) -> None:
        if args[3] == 1:
            raise RuntimeError("no memory left")

    on_train_batch_end = on_validation_batch_end = on_test_batch_end = _break  # type: ignore[assignment]


@pytest.mark.parametrize("run", ["fit", "validate", "test"])
def test_what_ended_with_an_error_is_not_counted_in_the_next_evaluation(colours: Path, run: str) -> None:
    def measured(model: ImageClassifier) -> list[dict[str, float]]:
        data, trainer, found = colours_of(colours), quick(), []
        runs: list[Any] = [trainer.test, trainer.validate, trainer.fit]
        for again in runs:
            again(model, datamodule=data)
            found.append({name: float(value) for name, value in trainer.callback_metrics.items()})
        return found

    expected, model = measured(linear()), linear()
    with pytest.raises(RuntimeError, match="no memory left"):
        getattr(quick(callbacks=[Breaks()], num_sanity_val_steps=0), run)(model, colours_of(colours))
    model.load_state_dict(linear().state_dict())
    assert measured(model) == expected and int(model.test_confusion.sum()) == 12


def test_a_validation_may_come_before_a_training_that_validates_in_another_mode(colours: Path) -> None:
    found = []
    for before in (False, True):
        model, data = linear(), colours_of(colours)
        if before:
            quick().validate(model, data, verbose=False)
        trainer = quick(inference_mode=False)
        trainer.fit(model, data)
        trainer.test(model, data, verbose=False)
        found.append({name: float(value) for name, value in trainer.callback_metrics.items()})
    assert found[0] == found[1]


def test_metrics_that_were_reset_in_inference_mode_count_outside_of_it() -> None:
    metrics = StageMetrics(3, weighted=True)
    logits, labels = torch.eye(3), torch.tensor([0, 1, 1])
    with torch.inference_mode():
        for each in (*metrics.of("train").values(), *metrics.of("val").values()):
            each.reset()
    for stage in ("train", "val"):
        metrics.count(stage, torch.ones(3), logits, labels)
        assert float(metrics.of(stage)[f"{stage}/accuracy"].compute()) == pytest.approx(2 / 3)
    assert metrics.quality("val").compute()["support"].tolist() == [1, 2, 0]


class CountsNothing(Linear):
    """A model whose training counts no images."""

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        return torch.nn.functional.cross_entropy(self(batch[0]), batch[1])


@pytest.mark.filterwarnings("ignore:Be aware that when using")  # the callback that saved the checkpoint
@pytest.mark.parametrize("family", [CountsNothing, Linear])
def test_a_resumed_epoch_logs_the_metrics_that_it_counted(
    colours: Path, tmp_path: Path, family: type[ImageClassifier]
) -> None:
    save = ModelCheckpoint(tmp_path / "saved", "{step}", every_n_train_steps=3, save_top_k=-1)
    whole = quick(callbacks=[save], enable_checkpointing=True)
    whole.fit(linear(family), colours_of(colours))
    checkpoint = tmp_path / "saved" / "step=3.ckpt"
    content = torch.load(checkpoint, weights_only=True)
    assert ("counted" in content["cvcc_zoo"]) == (family is Linear)
    resumed = quick()
    resumed.fit(linear(family), colours_of(colours), ckpt_path=checkpoint, weights_only=True)
    assert {name: float(value) for name, value in resumed.callback_metrics.items()} == {
        name: float(value) for name, value in whole.callback_metrics.items()
    }
    assert ("train/loss" in resumed.callback_metrics) == (family is Linear)


def test_counts_that_go_on_are_counted_in_every_process_and_held_by_the_first() -> None:
    """All processes must add them up together, also before their first batch."""
    first = StageMetrics(2)
    first.count("train", torch.ones(3), torch.eye(3)[:, :2], torch.zeros(3, dtype=torch.int64))
    one = SingleDeviceStrategy("cpu")
    saved = first.counted("train", one)
    resumed, other = StageMetrics(2), StageMetrics(2)
    resumed.resume("train", saved)
    other.resume("train", {})
    assert resumed.counting == other.counting == {"train"}
    assert float(resumed.of("train")["train/loss"].compute()) == 1
    zeros = other.counted("train", one)
    assert zeros.keys() == saved.keys() and not any(value.any() for each in zeros.values() for value in each.values())
