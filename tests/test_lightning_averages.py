"""Lightning's own averages of weights, which the command line refuses, work in Python."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging, StochasticWeightAveraging

from cvcc_zoo import FCNN, ImageDataModule, Linear, load
from cvcc_zoo.internals.averages import training_epochs

QUIET: dict[str, Any] = {
    "accelerator": "cpu", "logger": False, "enable_progress_bar": False, "enable_model_summary": False,
    "enable_checkpointing": False,
}  # fmt: skip


def images(colours: Path, **options: Any) -> ImageDataModule:
    return ImageDataModule("folder", root=str(colours), batch_size=9, validation=0.25, **options)


@pytest.mark.parametrize("whitening", ["standardize", {"name": "zca", "eps": 0.1}], ids=["standardize", "zca"])
def test_an_average_has_the_whitening_of_its_model_from_the_start(whitening: Any, colours: Path) -> None:
    model = Linear(num_classes=2, image_size=8, whitening=whitening)
    trainer = Trainer(max_epochs=1, callbacks=[EMAWeightAveraging(update_starting_at_step=100)], **QUIET)
    trainer.fit(model, images(colours))
    assert float(trainer.callback_metrics["val/loss"]) == pytest.approx(0.693147, abs=1e-5)  # ln 2, of zero weights
    assert model.whitening.fitted and not model.network.get_parameter("fc.weight").any()


class Seen(EMAWeightAveraging):
    """Keeps the average with which a training starts."""

    average: Any = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert self._average_model is not None
        self.average = {name: tensor.clone() for name, tensor in self._average_model.state_dict().items()}


def test_a_resumed_average_is_that_of_the_checkpoint_and_no_new_copy(colours: Path) -> None:
    for epochs, path in ((1, None), (2, "1.ckpt")):
        average = Seen(decay=0.5)
        trainer = Trainer(max_epochs=epochs, callbacks=[average], **QUIET)
        trainer.fit(Linear(num_classes=2, image_size=8), images(colours), ckpt_path=path)
        trainer.save_checkpoint(f"{epochs}.ckpt")
    saved = torch.load("1.ckpt", weights_only=True)["state_dict"]
    assert saved["network.fc.weight"].any()
    assert all(torch.equal(tensor, average.average[f"module.{name}"]) for name, tensor in saved.items())
    assert load("2.ckpt").whitening.fitted


def test_a_training_that_is_resumed_without_its_average_goes_on_from_the_trained_weights(colours: Path) -> None:
    trainer = Trainer(max_epochs=1, callbacks=[EMAWeightAveraging(decay=0.5)], **QUIET)
    trainer.fit(Linear(num_classes=2, image_size=8), images(colours))
    trainer.save_checkpoint("1.ckpt")
    content = torch.load("1.ckpt", weights_only=True)
    content["current_model_state"] = {name: tensor.clone() for name, tensor in content["state_dict"].items()}
    trained = content["current_model_state"]["network.fc.bias"].add_(1).clone()
    torch.save(content | {"callbacks": {}}, "1.ckpt")
    model = Linear(num_classes=2, image_size=8)
    Trainer(max_epochs=1, **QUIET).fit(model, images(colours), ckpt_path="1.ckpt")
    assert torch.equal(model.network.get_parameter("fc.bias"), trained)


@pytest.mark.filterwarnings("ignore:Swapping scheduler")
def test_an_average_has_the_features_that_its_model_has_fitted(colours: Path) -> None:
    model = Linear([{"name": "PCA", "components": 0.9}], num_classes=2, image_size=8)
    Trainer(max_epochs=2, callbacks=[StochasticWeightAveraging(0.1, 1)], **QUIET).fit(model, images(colours))
    assert model.network.get_parameter("fc.weight").any()


SWAPS = pytest.mark.filterwarnings("ignore:Swapping scheduler", "ignore:SWA is currently only supported every epoch")


def small(**options: Any) -> FCNN:
    return FCNN(hidden=[4, 4], num_classes=2, image_size=8, optimizer={"name": "SGD", "lr": 0.1}, **options)


def test_frozen_norms_are_not_reset_by_an_average(colours: Path) -> None:
    trainer = Trainer(max_epochs=2, callbacks=[StochasticWeightAveraging(0.1, 1)], **QUIET)
    with pytest.raises(ValueError, match=r"but freeze=1 keeps those of the frozen parts; use cvcc_zoo\.runs\.EMA"):
        trainer.fit(small(freeze=1), images(colours))
    trainer = Trainer(fast_dev_run=1, callbacks=[StochasticWeightAveraging(0.1, 1)], **QUIET)
    trainer.fit(small(freeze=1, norm="layer"), images(colours))


class Rates(Callback):
    """Keeps the learning rate of each step."""

    def __init__(self) -> None:
        self.rates: list[float] = []

    def on_train_batch_start(self, trainer: Trainer, *given: Any) -> None:
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])


@SWAPS
def test_the_epoch_that_measures_norms_is_no_part_of_the_schedule(colours: Path) -> None:
    found = []
    for averages in ([], [StochasticWeightAveraging(0.5, 3)]):
        rates = Rates()
        trainer = Trainer(max_epochs=4, callbacks=[rates, *averages], **QUIET)
        trainer.fit(small(lr_scheduler="Cosine"), images(colours))
        found.append(rates.rates)
    assert found[0][:6] == found[1][:6]  # 3 steps an epoch, and 2 epochs before the average
    assert [len(rates) for rates in found] == [12, 15] and training_epochs(trainer) == trainer.max_epochs == 4


@SWAPS
def test_a_training_is_resumed_after_an_average_began(colours: Path) -> None:
    class Saves(Callback):
        def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
            if trainer.current_epoch == 2:
                trainer.save_checkpoint("a.ckpt")

    rates = []
    for path in (None, "a.ckpt"):
        callbacks = [StochasticWeightAveraging(0.5, 2, 2), Rates(), Saves()]
        model = small(lr_scheduler="Cosine")
        trainer = Trainer(max_epochs=4, callbacks=callbacks, **QUIET)
        trainer.fit(model, images(colours), ckpt_path=path, weights_only=False)
        rates.append(callbacks[1].rates)  # type: ignore[attr-defined]
        assert trainer.current_epoch == 5
    assert rates[1] == pytest.approx(rates[0][-len(rates[1]) :])
