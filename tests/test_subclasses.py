"""Models of researchers: subclasses with parts and options of their own, and models inside of other modules."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Trainer
from torch import nn

from cvcc_zoo import ImageDataModule, Linear

QUIET: dict[str, Any] = {
    "accelerator": "cpu", "logger": False, "enable_progress_bar": False, "enable_model_summary": False,
    "enable_checkpointing": False,
}  # fmt: skip
SMALL: dict[str, Any] = {"num_classes": 2, "image_size": 8}


def images(colours: Path) -> ImageDataModule:
    return ImageDataModule("folder", root=str(colours), batch_size=12)


class Distilled(Linear):
    """Takes `temperature` for its own option."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.temperature = 4.0


def test_a_temperature_that_training_sets_back_is_mentioned(colours: Path, caplog: pytest.LogCaptureFixture) -> None:
    for family in (Linear, Distilled):
        caplog.clear()
        model = family(**SMALL)
        with caplog.at_level("INFO"):
            Trainer(fast_dev_run=1, **QUIET).fit(model, images(colours))
        assert model.temperature == 1
        assert ("The temperature 4, which calibrates" in caplog.text) == (family is Distilled)
        assert ("needs another name than `temperature`" in caplog.text) == (family is Distilled)


@pytest.mark.parametrize(
    ("name", "part", "said"),
    [
        ("confusion", nn.Identity(), "Linear has a property `confusion`, which would hide the Identity"),
        ("features", nn.Identity(), "Linear has a method `features`, which would hide the Identity"),
        ("temperature", nn.Parameter(torch.ones(1)), "a property `temperature`, which would hide the Parameter"),
    ],
)
def test_a_part_under_a_name_that_is_taken_is_refused(name: str, part: Any, said: str) -> None:
    model = Linear(**SMALL)
    with pytest.raises(ValueError, match=re.escape(said) + "; give it another name"):
        setattr(model, name, part)
    assert name not in dict(model.named_children())
    model.add_on = nn.Identity()
    assert isinstance(model.add_on, nn.Identity)
