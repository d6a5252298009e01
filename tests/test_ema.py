"""The moving average of the weights is what is validated, tested, kept and published."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint, ModelPruning
from torch import Tensor, nn
from torch.nn.utils import prune

import cvcc_zoo
from cvcc_zoo import load
from cvcc_zoo.__main__ import main
from cvcc_zoo.internals.averages import CURRENT
from cvcc_zoo.runs import EMA, RunFolder
from cvcc_zoo.runs.ema import WIDE
from cvcc_zoo.runs.measure import measure
from tests.conftest import SMALL, Fit

MORE = [*SMALL, "--trainer.callbacks+=cvcc_zoo.runs.EMA", "--trainer.callbacks.decay=0.9"]


class Watch(Callback):
    """The weights after every step."""

    def __init__(self) -> None:
        self.seen: list[dict[str, Tensor]] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.seen.append({name: tensor.clone() for name, tensor in pl_module.state_dict().items()})

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        self.seen.append({name: tensor.clone() for name, tensor in pl_module.state_dict().items()})


def test_the_average_is_that_of_the_formula(colours: Path) -> None:
    watch = Watch()
    data = cvcc_zoo.ImageDataModule("folder", root=str(colours), batch_size=4, validation=0)
    model = cvcc_zoo.FCNN(hidden=(8,), num_classes=2, image_size=8, optimizer={"name": "SGD", "lr": 0.1})
    trainer = Trainer(
        max_epochs=2, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=[watch, EMA(0.6)], use_distributed_sampler=False,
    )  # fmt: skip
    trainer.fit(model, data)
    assert len(watch.seen) == 21
    expected = watch.seen[0]
    for step, weights in enumerate(watch.seen[1:]):
        decay = min(0.6, (1 + step) / (10 + step))
        expected = {
            name: decay * expected[name] + (1 - decay) * tensor if tensor.is_floating_point() else tensor
            for name, tensor in weights.items()
        }
    for name, tensor in model.state_dict().items():
        assert torch.allclose(tensor, expected[name], atol=1e-6), name
    assert not torch.equal(model.state_dict()["network.fc.weight"], watch.seen[-1]["network.fc.weight"])


def test_checkpoints_that_would_hold_other_weights_than_are_validated_are_refused(colours: Path) -> None:
    data = cvcc_zoo.ImageDataModule("folder", root=str(colours))
    saver = ModelCheckpoint(save_weights_only=True)
    trainer = Trainer(max_epochs=1, accelerator="cpu", logger=False, callbacks=[EMA(), saver])
    with pytest.raises(
        ValueError, match=r"ModelCheckpoint\(save_weights_only=True\) would .*; leave save_weights_only"
    ):
        trainer.fit(cvcc_zoo.FCNN(hidden=(8,), num_classes=2, image_size=8), data)


@pytest.mark.filterwarnings("ignore:The dirpath has changed")
@pytest.mark.parametrize("dropouts", [(0.0, 0.5), (0.5, 0.0)])
def test_a_training_goes_on_with_or_without_dropout(dropouts: tuple[float, float], tmp_path: Path) -> None:
    """Dropout is a layer with a number, so the names of the later ones differ, also those in the average."""
    data = torch.utils.data.TensorDataset(torch.rand(8, 3, 8, 8), torch.arange(8) % 2)
    batches = torch.utils.data.DataLoader(data, batch_size=4)
    watch = Watch()
    for epochs, dropout in enumerate(dropouts, 1):
        options: dict[str, Any] = {"num_classes": 2, "image_size": 8, "whitening": "none"}
        model = cvcc_zoo.FCNN(hidden=(8, 8), dropout=dropout, **options)
        trainer = Trainer(
            max_epochs=epochs, accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
            callbacks=[watch, EMA(0.6), ModelCheckpoint(tmp_path / str(epochs), "last")],
        )  # fmt: skip
        trainer.fit(model, batches, batches, ckpt_path=None if epochs == 1 else tmp_path / "1/last.ckpt")
    trained, restored = (list(weights.values()) for weights in watch.seen[2:4])  # two steps, then the next start
    assert all(torch.equal(*pair) for pair in zip(trained, restored, strict=True))


@pytest.mark.parametrize("validation", ["0.2", "0"])
def test_what_is_tested_is_what_is_kept(fit: Fit, validation: str, colours: Path) -> None:
    assert fit(*MORE, f"--data.validation={validation}", "--trainer.max_epochs=2", "--run=run") == 0
    summary = json.loads(Path("run/summary.json").read_text())
    data = cvcc_zoo.ImageDataModule("folder", root=str(colours))
    found = measure(load("run"), data)
    assert found["test_accuracy"] == summary["test_accuracy"]
    assert found["test_loss"] == pytest.approx(summary["test_loss"], abs=1e-5)


@pytest.mark.parametrize("precision", ["32-true", "bf16-true"])
def test_a_run_with_an_average_goes_on_with_the_same_bits(
    fit: Fit, monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    more = [*MORE, "--trainer.max_epochs=3", f"--trainer.precision={precision}"]
    assert fit(*more, "--run=runs/whole") == 0

    def killed_here(run: RunFolder, trainer: Trainer, *args: Any) -> None:
        if (trainer.current_epoch, trainer.fit_loop.batch_idx) == (2, 1):
            raise RuntimeError("killed")

    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="killed"):
        patch.setattr(RunFolder, "on_train_batch_end", killed_here)
        fit(*more, "--run=runs/killed")
    quiet = ["--trainer.enable_progress_bar=false"]
    assert main(["fit", "--config=runs/killed/config.yaml", "--ckpt_path=last", *quiet]) == 0
    for file in ("best.ckpt", "last.ckpt"):
        whole, killed = (load(f"runs/{name}/{file}").state_dict() for name in ("whole", "killed"))
        assert all(torch.equal(whole[name], killed[name]) for name in whole)
    wide = [torch.load(f"runs/{name}/last.ckpt", weights_only=True).get(WIDE, {}) for name in ("whole", "killed")]
    assert bool(wide[0]) == (precision == "bf16-true") and wide[0].keys() == wide[1].keys()
    assert all(torch.equal(tensor, wide[1][name]) for name, tensor in wide[0].items())


def test_a_run_that_goes_on_without_its_average_goes_on_from_the_trained_weights(fit: Fit) -> None:
    assert fit(*MORE, "--run=run") == 0
    trained = torch.load("run/last.ckpt", weights_only=True)[CURRENT]["network.fc.weight"]
    assert not torch.equal(trained, load("run/last.ckpt").state_dict()["network.fc.weight"])
    still = ["--optimizer.lr=0", "--trainer.max_epochs=2", "--allow_changes=true", "--ckpt_path=run/last.ckpt"]
    assert fit(*SMALL, *still, "--run=new") == 0
    assert torch.equal(trained, load("new/last.ckpt").state_dict()["network.fc.weight"])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("share", [0.001, torch.tensor(0.001)])
def test_small_steps_towards_weights_of_any_precision_are_not_lost(dtype: torch.dtype, share: Any) -> None:
    average, trainer = EMA(0.999), Trainer(accelerator="cpu", enable_checkpointing=False, **QUIET)
    model = cvcc_zoo.FCNN(hidden=(8,), num_classes=2, image_size=8).to(dtype)
    weight = model.network.get_parameter("fc.weight")
    nn.init.zeros_(weight)
    average.on_train_start(trainer, model)
    nn.init.ones_(weight)
    for _ in range(1000):
        average.move(model, share)
    average.on_fit_end(trainer, model)
    assert weight.dtype == dtype
    assert torch.allclose(weight, torch.tensor(1 - 0.999**1000, dtype=dtype), rtol=1e-2 if dtype.itemsize < 4 else 1e-4)


QUIET: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}


def fcnn(data: cvcc_zoo.ImageDataModule, lr: float, epochs: int, *callbacks: Callback) -> cvcc_zoo.FCNN:
    model = cvcc_zoo.FCNN(hidden=(8,), num_classes=2, image_size=8, optimizer={"name": "SGD", "lr": lr})
    how: dict[str, Any] = {"accelerator": "cpu", "enable_checkpointing": False, "callbacks": [*callbacks]}
    Trainer(max_epochs=epochs, num_sanity_val_steps=0, **how, **QUIET).fit(model, data)
    return model


class Reparametrises(Callback):
    """A callback that replaces a weight by two tensors, as pruning does."""

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        prune.identity(pl_module.network.fc, "weight")  # type: ignore[no-untyped-call, union-attr]


@pytest.mark.parametrize("callback", [Reparametrises(), ModelPruning("l1_unstructured")])
def test_weights_that_a_callback_renames_have_no_average(callback: Callback, colours: Path) -> None:
    data = cvcc_zoo.ImageDataModule("folder", root=str(colours), batch_size=4)
    with pytest.raises(ValueError, match=r"EMA cannot average .* renames .*; leave EMA"):
        fcnn(data, 0.1, 2, EMA(), callback)


class Interrupted(Callback):
    """A callback whose `hook` interrupts a training."""

    def __init__(self, hook: str) -> None:
        setattr(self, hook, self.interrupt)

    def interrupt(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        raise InterruptedError

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self.left = pl_module.state_dict()


@pytest.mark.parametrize("hook", ["on_train_batch_end", "on_validation_batch_end"])
def test_an_interrupted_training_leaves_the_trained_weights_and_no_average(hook: str, colours: Path) -> None:
    data = cvcc_zoo.ImageDataModule("folder", root=str(colours), batch_size=4, validation=0.5)
    average, watch, end = EMA(0.6), Watch(), Interrupted(hook)
    with pytest.raises(InterruptedError):
        fcnn(data, 0.1, 1, average, watch, end)
    assert all(torch.equal(tensor, watch.seen[-1][name]) for name, tensor in end.left.items())
    again = Watch()
    weight = fcnn(data, 0.0, 1, average, again).network.get_parameter("fc.weight")
    assert torch.equal(weight, again.seen[0]["network.fc.weight"])


def test_a_training_without_an_epoch_has_no_average(colours: Path) -> None:
    data = cvcc_zoo.ImageDataModule("folder", root=str(colours), batch_size=4)
    assert fcnn(data, 0.1, 0, EMA()).network.get_parameter("fc.weight").isfinite().all()


def test_wrong_use_is_told(fit: Fit, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="must be in"):
        EMA(1.0)
    assert fit(*SMALL, "--run=run") == 0
    assert fit(*MORE, "--ckpt_path=run/last.ckpt", "--trainer.max_epochs=2", "--allow_changes=true") == 2
    assert "this checkpoint has no EMA of the weights" in capsys.readouterr().err
    assert fit(*MORE[2:], "--model=ridge", "--data.augmentations=none") == 2
    assert "ridge is solved in one pass, without steps to average; leave EMA out" in capsys.readouterr().err
