"""What is counted is that of its own epoch or evaluation, whatever came before."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Trainer

from cvcc_zoo import ImageClassifier, ImageDataModule, Linear
from cvcc_zoo.classifier.metrics import StageMetrics

QUIET: dict[str, Any] = {
    "max_epochs": 1, "logger": False, "accelerator": "cpu", "enable_progress_bar": False,
    "enable_model_summary": False,
}  # fmt: skip


def colours_of(colours: Path) -> ImageDataModule:
    return ImageDataModule("folder", root=str(colours), batch_size=4, validation=0.25)


def linear() -> ImageClassifier:
    torch.manual_seed(0)
    model = Linear(num_classes=2, image_size=8, whitening="none", optimizer={"name": "SGD", "lr": 0.1})
    torch.nn.init.normal_(model.network.get_parameter("fc.weight"))
    return model


def quick(**options: Any) -> Trainer:
    return Trainer(**{"enable_checkpointing": False, **QUIET, **options})


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
