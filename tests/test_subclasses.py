"""Models of researchers: subclasses with parts and options of their own, and models inside of other modules."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from cvcc_zoo import FCNN, ImageDataModule, Linear, load

QUIET: dict[str, Any] = {
    "accelerator": "cpu", "logger": False, "enable_progress_bar": False, "enable_model_summary": False,
    "enable_checkpointing": False,
}  # fmt: skip
SMALL: dict[str, Any] = {"num_classes": 2, "image_size": 8}
WORKERS = pytest.mark.filterwarnings("ignore::lightning.fabric.utilities.warnings.PossibleUserWarning")


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


class FineTune(LightningModule):
    """A module with models inside, and options that have the names of theirs."""

    def __init__(self, num_classes: int = 10, freeze: bool = True, *, width: int = 3) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.net = FCNN(hidden=[4], norm="batch", num_classes=num_classes, image_size=8)
        self.features = FCNN(hidden=[4], num_classes=0, image_size=8)
        self.other = Linear(image_size=8)
        self.other.reset_classifier(7)


def test_a_model_in_another_module_has_its_own_options_alone() -> None:
    module = FineTune(num_classes=5)
    alone = FCNN(hidden=[4], norm="batch", num_classes=5, image_size=8)
    assert dict(module.net.hparams) == dict(alone.hparams)
    assert all(parameter.requires_grad for parameter in module.net.parameters())
    pixels = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    for each in (module.net, module.features, module.other):
        each.whitening.fit(torch.arange(384).view(2, 3, 8, 8).to(torch.uint8))
    assert [each(pixels).shape[1] for each in (module.net, module.features, module.other)] == [5, 4, 7]
    assert dict(module.hparams) == {"num_classes": 5, "freeze": True, "width": 3}


class Wide(Linear):
    """Saves its options by Lightning's usual idiom, before and after its base does."""

    def __init__(self, width: int = 2, note: str = "", **options: Any) -> None:
        self.save_hyperparameters("width")
        super().__init__(**options)
        self.save_hyperparameters()
        self.save_hyperparameters(ignore=["note"])
        self.save_hyperparameters({"made": "today"})


def test_a_subclass_may_save_its_hyperparameters_again(colours: Path) -> None:
    options: dict[str, Any] = {"optimizer": "SGD", "lr_scheduler": "OneCycleLR", "ridge": None, **SMALL}
    model = Wide(width=3, note="x", **options)
    assert dict(model.hparams) == {**Linear(**options).hparams, "width": 3, "made": "today"}
    Trainer(fast_dev_run=1, **QUIET).fit(model, images(colours))
    assert model.hparams["optimizer"] == {"name": "SGD"}


class Fixed(FCNN):
    """Fixes options that it cannot be given."""

    def __init__(self, **options: Any) -> None:
        super().__init__(hidden=[5], **options)


class Closed(FCNN):
    """Takes no options at all."""

    def __init__(self) -> None:
        super().__init__(hidden=[5], num_classes=2, image_size=8)


class Replaces(FCNN):
    """Has other defaults than its base, and takes all options."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"hidden": [5], **options})


def test_a_class_whose_checkpoints_could_not_be_loaded_is_told_before_the_training(colours: Path) -> None:
    words = (
        "Fixed cannot be built with hidden=[5], which a checkpoint or a new classifier needs, because its constructor "
        "does not take hidden; write `def __init__(self, hidden=[5], **options)`, and give it to the base: "
        "`super().__init__(hidden=hidden, **options)`"
    )
    model = Fixed(**SMALL)
    with pytest.raises(ValueError, match=re.escape(words)):
        Trainer(fast_dev_run=1, **QUIET).fit(model, images(colours))
    with pytest.raises(ValueError, match=re.escape(words)):
        model.reset_classifier(3)


@pytest.mark.parametrize("family", [Closed, Replaces])
def test_a_class_that_adds_options_for_its_base_comes_back(family: Any, colours: Path) -> None:
    model = family() if family is Closed else family(**SMALL)
    trainer = Trainer(max_epochs=1, limit_train_batches=1, limit_val_batches=1, **QUIET)
    trainer.fit(model, images(colours))
    trainer.save_checkpoint("a.ckpt")
    pixels = torch.arange(384).view(2, 3, 8, 8).to(torch.uint8)
    for found in (load("a.ckpt"), family.load_from_checkpoint("a.ckpt").eval()):
        assert dict(found.hparams) == dict(model.hparams) and found.hparams["hidden"] == [5]
        assert torch.equal(found(pixels), model.eval()(pixels))


def test_a_class_without_options_is_not_built_with_others(colours: Path) -> None:
    with pytest.raises(ValueError, match="Closed cannot be built with num_classes=3, which"):
        Closed().reset_classifier(3)
    data = ImageDataModule("folder", root=str(colours), batch_size=12, whitening="none")
    with pytest.raises(ValueError, match="Closed cannot be built with whitening='none', which"):
        Trainer(fast_dev_run=1, **QUIET).fit(Closed(), data)


class OwnLoss(Linear):
    """A loss of its own in `loss`; the steps that read it are its own if a test adds them."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.loss = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0]))  # type: ignore[assignment]


class OwnLossAndSteps(OwnLoss):
    """The same with steps of its own."""

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        loss: Tensor = self.loss(self(batch[0]), batch[1])
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self.log("val/mine", self.training_step(batch, batch_idx))

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self.log("test/mine", self.training_step(batch, batch_idx))


class OwnTraining(OwnLoss):
    """The same with a step of its own for the training alone."""

    training_step = OwnLossAndSteps.training_step


class OwnTrainingLoss(OwnLoss):
    """The same with a loss of a batch of its own."""

    def training_loss(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        loss: Tensor = self.loss(self(batch[0]), batch[1])
        return loss


def loader() -> Any:
    pixels = torch.randint(0, 256, (8, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return DataLoader(TensorDataset(pixels, torch.arange(8) % 2), batch_size=4)


@WORKERS
@pytest.mark.parametrize("ours", [False, True], ids=["loader", "module"])
def test_a_loss_of_ones_own_is_read_by_steps_of_ones_own(ours: bool, colours: Path) -> None:
    model = OwnLossAndSteps(whitening="none", **SMALL)
    data, val = (images(colours), None) if ours else (loader(), loader())
    trainer = Trainer(max_epochs=1, **QUIET)
    trainer.fit(model, data, val)
    trainer.save_checkpoint("a.ckpt")
    assert {"test/mine"} == trainer.test(model, data, ckpt_path="a.ckpt", verbose=False)[0].keys()
    Trainer(max_epochs=2, **QUIET).fit(model, data, val, ckpt_path="a.ckpt")
    found = OwnLossAndSteps.load_from_checkpoint("a.ckpt")
    assert isinstance(found.loss, nn.CrossEntropyLoss)
    found.reset_classifier(2)
    assert isinstance(found.loss, nn.CrossEntropyLoss)


@WORKERS
@pytest.mark.parametrize(("family", "validated"), [(OwnLoss, False), (OwnLoss, True), (OwnTraining, True)])
def test_a_loss_of_ones_own_is_refused_before_a_step_of_ours_would_read_it(family: Any, validated: bool) -> None:
    given = [loader()] * (1 + validated)
    with pytest.raises(ValueError, match=f"`loss` of {family.__name__} is a CrossEntropyLoss; choose one by name"):
        Trainer(max_epochs=1, num_sanity_val_steps=0, **QUIET).fit(family(whitening="none", **SMALL), *given)


@WORKERS
@pytest.mark.parametrize("family", [OwnTraining, OwnTrainingLoss])
def test_a_loss_of_ones_own_needs_no_step_that_does_not_run(family: Any) -> None:
    model = family(whitening="none", **SMALL)
    trainer = Trainer(max_epochs=1, **QUIET)
    trainer.fit(model, loader())
    assert trainer.global_step == 2
    with pytest.raises(ValueError, match="is a CrossEntropyLoss; choose one by name"):
        trainer.test(model, loader(), verbose=False)


def test_other_metrics_in_the_place_of_ours_are_refused() -> None:
    model = Linear(**SMALL)
    with pytest.raises(ValueError, match="`metrics` of Linear are those that every model counts; give your ModuleDict"):
        model.metrics = nn.ModuleDict()  # type: ignore[assignment]
