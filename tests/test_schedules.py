"""Schedules in closed form: exact rates, agreement with torch, and the rate that Lightning really uses."""

import copy
import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torch.optim import lr_scheduler
from torch.utils.data import DataLoader, TensorDataset

from cvcc_zoo import ImageDataModule, Linear, create
from cvcc_zoo.optim import make_lr_scheduler, make_optimizer
from cvcc_zoo.optim.curves import CURVES, make_factor, plot_schedules
from cvcc_zoo.optim.schedules import LENGTH
from cvcc_zoo.registry import Spec
from cvcc_zoo.runs import UseChanges

NEEDED: dict[str, dict[str, Any]] = {"Step": {"every": 2}, "MultiStep": {"milestones": [0.5, 0.75]}}


def optimizer(lr: float = 1.0) -> torch.optim.Optimizer:
    return torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=lr)


def rates(spec: Spec, steps: int, count: int | None = None, lr: float = 1.0) -> list[float]:
    """The rate of each step, with one step an epoch."""
    return follow(make_lr_scheduler(spec, optimizer(lr), steps, steps)["scheduler"], count or steps)


def follow(scheduler: Any, count: int) -> list[float]:
    values = []
    for _ in range(count):
        values.append(float(scheduler.optimizer.param_groups[0]["lr"]))
        scheduler.optimizer.step()
        scheduler.step()
    return values


def exactly(values: list[float]) -> Any:
    return pytest.approx(values, abs=1e-12)


def test_the_tables_of_all_schedules() -> None:
    table = [1, 0.98078528040323, 0.92387953251129, 0.83146961230255, math.sqrt(0.5)]
    table += [0.55557023301960, 0.38268343236509, 0.19509032201613]
    assert rates({"name": "QuarterCosine"}, 8) == exactly(table)
    assert rates({"name": "Cosine"}, 4) == exactly([1, 0.5 + math.sqrt(0.125), 0.5, 0.5 - math.sqrt(0.125)])
    assert rates({"name": "Step", "every": 2, "alpha": 0.5}, 5) == exactly([1, 1, 0.5, 0.5, 0.25])
    assert rates({"name": "Linear"}, 4) == exactly([1, 0.75, 0.5, 0.25])
    assert rates({"name": "Linear", "peak": 0.5}, 8) == exactly([0, 0.25, 0.5, 0.75, 1, 0.75, 0.5, 0.25])
    assert rates({"name": "WSD", "decay": 0.5}, 8) == exactly([1, 1, 1, 1, 1, 0.75, 0.5, 0.25])
    assert rates({"name": "WSD", "warmup": 2, "decay": 0.5}, 6) == exactly([1 / 3, 2 / 3, 1, 1, 1, 0.5])


def test_a_warm_up_of_five_epochs_comes_before_two_steps_down() -> None:
    values = rates({"name": "MultiStep", "warmup": 5, "milestones": [95, 145]}, 200)
    assert values == exactly([*(t / 6 for t in range(1, 6)), *[1] * 95, *[0.1] * 50, *[0.01] * 50])


def test_half_a_cosine_is_the_square_of_a_quarter() -> None:
    half, quarter = rates({"name": "Cosine"}, 50), rates({"name": "QuarterCosine"}, 50)
    assert half == exactly([value**2 for value in quarter])
    assert sum(quarter) / 50 == pytest.approx(2 / math.pi, abs=0.011)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ({"name": "Cosine"}, lambda o: lr_scheduler.CosineAnnealingLR(o, 40)),
        ({"name": "Step", "every": 7, "alpha": 0.3}, lambda o: lr_scheduler.StepLR(o, 7, 0.3)),
        ({"name": "MultiStep", "milestones": [0.55, 30]}, lambda o: lr_scheduler.MultiStepLR(o, [22, 30])),
        ({"name": "Linear"}, lambda o: lr_scheduler.PolynomialLR(o, 40)),
        ({"name": "OneCycle"}, lambda o: lr_scheduler.OneCycleLR(o, 0.3, 40, cycle_momentum=False)),
        (
            {"name": "OneCycle", "peak": 0.6},
            lambda o: lr_scheduler.OneCycleLR(o, 0.3, 40, pct_start=0.6, cycle_momentum=False),
        ),
    ],
)
def test_schedules_agree_with_torch(ours: Spec, theirs: Any) -> None:
    assert rates(ours, 40, lr=0.3) == exactly(follow(theirs(optimizer(0.3)), 40))


@pytest.mark.parametrize("name", [name for name in CURVES if name != "OneCycle"])
def test_a_warm_up_leads_to_the_whole_schedule_on_the_rest(name: str) -> None:
    plain = {"name": name, **NEEDED.get(name, {})}
    for warmup in (0.25, 10):
        values = rates({**plain, "warmup": warmup}, 40)
        assert values[:10] == exactly([(t + 1) / 11 for t in range(10)])
        assert values[10:] == exactly(rates(plain, 30))


@pytest.mark.parametrize("name", CURVES)
@pytest.mark.parametrize("steps", [1, 2, 3, 100])
def test_rates_stay_between_0_and_the_optimizers_and_end_where_they_are(name: str, steps: int) -> None:
    values = rates({"name": name, **NEEDED.get(name, {})}, steps, count=steps + 3)
    assert all(0 <= value <= 1 for value in values)
    assert values[steps:] == [values[steps - 1]] * 3 or name == "Step"


@pytest.mark.parametrize("name", CURVES)
def test_a_resumed_schedule_goes_on_exactly(name: str) -> None:
    spec = {"name": name, **NEEDED.get(name, {}), "warmup": 0 if name == "OneCycle" else 3}
    first = make_lr_scheduler(spec, optimizer(), 20, 20)["scheduler"]
    follow(first, 8)
    state, rest = copy.deepcopy(first.state_dict()), follow(first, 12)
    second = make_lr_scheduler(spec, optimizer(), 20, 20)["scheduler"]
    second.load_state_dict(state)
    second.optimizer.param_groups[0]["lr"] = state["_last_lr"][0]
    assert follow(second, 12) == rest


class Rates(Callback):
    """The rate of every optimizer step."""

    def __init__(self) -> None:
        self.used: list[float] = []

    def on_before_optimizer_step(self, trainer: Trainer, module: LightningModule, optimizer: Any) -> None:
        self.used.append(optimizer.param_groups[0]["lr"])


def train(
    spec: Spec, epochs: int, checkpoint: Path | None = None, keep: Callback | None = None, **options: Any
) -> tuple[list[float], Trainer]:
    """Train 10 batches an epoch."""
    used = Rates()
    model = create("linear", in_channels=1, image_size=8, optimizer={"name": "SGD", "lr": 0.1}, lr_scheduler=spec)
    trainer = Trainer(
        max_epochs=epochs, limit_train_batches=10, logger=False,
        enable_checkpointing=keep is not None, enable_progress_bar=False, enable_model_summary=False,
        accelerator="cpu", callbacks=[used, *([keep] if keep else [])], **{"limit_val_batches": 0, **options},
    )  # fmt: skip
    trainer.fit(model, ImageDataModule(image_size=8, batch_size=16), ckpt_path=checkpoint)
    return used.used, trainer


@pytest.mark.parametrize(("accumulate", "steps"), [(1, 30), (4, 9)])
def test_lightning_uses_the_rate_of_each_optimizer_step(accumulate: int, steps: int) -> None:
    used, _ = train({"name": "QuarterCosine", "warmup": 0.1}, 3, accumulate_grad_batches=accumulate)
    assert used == exactly(rates({"name": "QuarterCosine", "warmup": 0.1}, steps, lr=0.1))


def test_lightning_steps_by_epoch_where_asked() -> None:
    used, _ = train({"name": "Cosine", "interval": "epoch"}, 4)
    assert used[::10] == exactly(rates({"name": "Cosine"}, 4, lr=0.1)) and used[::10] == used[9::10]
    used, _ = train({"name": "Step", "every": 2}, 4)
    assert used == exactly([0.1] * 20 + [0.01] * 20)


def test_cycles_of_torch_are_stepped_after_every_batch() -> None:
    cycle: dict[str, Any] = {"base_lr": 0.01, "max_lr": 0.1, "step_size_up": 4}
    used, _ = train({"name": "CyclicLR", **cycle}, 2)
    assert used == exactly(follow(lr_scheduler.CyclicLR(optimizer(), **cycle, cycle_momentum=False), 20))
    lengths: list[dict[str, Any]] = [{"epochs": 2, "steps_per_epoch": 10}, {"total_steps": 20}]
    for length in lengths:
        used, _ = train({"name": "OneCycleLR", **length}, 2)
        assert used == exactly(rates({"name": "OneCycle"}, 20, lr=0.1))
    used, _ = train({"name": "CyclicLR", **cycle, "interval": "epoch"}, 2)
    assert used[::10] == used[9::10] and used[0] != used[-1]


@pytest.mark.filterwarnings("ignore:The dirpath has changed")
def test_a_training_that_goes_on_uses_the_rates_of_the_rest(tmp_path: Path) -> None:
    spec = {"name": "Cosine", "warmup": 2}

    def keep(folder: str) -> ModelCheckpoint:
        return ModelCheckpoint(tmp_path / folder, "{epoch}", save_top_k=-1, save_on_train_epoch_end=True)

    whole, _ = train(spec, 4, keep=keep("a"))
    half = tmp_path / "a/epoch=1.ckpt"
    rest, _ = train(spec, 4, half, keep("b"))
    assert rest == exactly(whole[20:])
    longer, _ = train(spec, 8, half, keep("c"))
    assert longer[1:] == exactly(rates(spec, 80, lr=0.1)[21:])  # a closed form: the new length counts from now on


@pytest.mark.filterwarnings("ignore:Be aware that when using")  # the callback that saved the checkpoint
@pytest.mark.parametrize("name", LENGTH)
def test_a_training_that_is_made_longer_has_the_rates_of_a_longer_schedule_of_torch(name: str, tmp_path: Path) -> None:
    train({"name": name}, 1, keep=ModelCheckpoint(tmp_path, "{epoch}", save_on_train_epoch_end=True))
    longer, _ = train({"name": name}, 2, tmp_path / "epoch=0.ckpt")
    whole, _ = train({"name": name}, 2)
    assert longer == exactly(whole[10:])


@pytest.mark.filterwarnings("ignore:Be aware that when using")  # the callback that saved the checkpoint
@pytest.mark.filterwarnings("ignore:The dirpath has changed")
@pytest.mark.parametrize(
    ("spec", "again"),
    [
        ({"name": "Cosine"}, None),
        ({"name": "Cosine", "interval": "epoch"}, None),
        ({"name": "Step", "every": 1}, UseChanges()),
    ],
)
def test_a_training_that_goes_on_after_the_validation_of_an_epoch_has_the_rates_of_the_next(
    spec: Spec, again: Callback | None, tmp_path: Path
) -> None:
    """With 10 batches, of which a step sums up four, the last step of an epoch has two."""
    keep = ModelCheckpoint(tmp_path, "{epoch}", save_top_k=-1, save_on_train_epoch_end=False)
    more: dict[str, Any] = {"limit_val_batches": 1, "accumulate_grad_batches": 4}
    whole, _ = train(spec, 3, keep=keep, **more)
    rest, _ = train(spec, 3, tmp_path / "epoch=0.ckpt", again, **more)
    assert len(whole) == 9 and rest == exactly(whole[3:])


@pytest.mark.parametrize("spec", [{"name": "Cosine"}, {"name": "Cosine", "interval": "epoch"}, {"name": "OneCycleLR"}])
def test_a_trainer_that_fits_again_uses_the_rates_of_the_rest(spec: Spec) -> None:
    used = Rates()
    model = create("linear", in_channels=1, image_size=8, optimizer={"name": "SGD", "lr": 0.1}, lr_scheduler=spec)
    trainer = Trainer(
        max_epochs=1, limit_train_batches=10, limit_val_batches=0, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, accelerator="cpu", callbacks=[used],
    )  # fmt: skip
    data = ImageDataModule(image_size=8, batch_size=16)
    trainer.fit(model, data)
    trainer.fit_loop.max_epochs = 3
    trainer.fit(model, data)
    whole, _ = train(spec, 3)
    assert used.used[10:] == exactly(whole[10:]) and len(used.used) == 30


class FailsOnce(Callback):
    """An error in the fifth batch or in the validation of the first epoch."""

    def __init__(self, where: str) -> None:
        self.where = where

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *batch: Any) -> None:
        if batch[1] == 4 and self.where == "batch":
            self.where = ""
            raise RuntimeError

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.where == "validation":
            self.where = ""
            raise RuntimeError


@pytest.mark.parametrize("where", ["batch", "validation"])
@pytest.mark.parametrize("spec", [{"name": "Cosine", "interval": "epoch"}, {"name": "OneCycleLR"}])
def test_a_trainer_that_fits_again_after_an_error_repeats_the_epoch(spec: Spec, where: str) -> None:
    """The schedule goes on at the step of the Trainer, and ends with the last of the repeated epochs."""
    used, fails = Rates(), FailsOnce(where)
    model = create("linear", in_channels=1, image_size=8, optimizer={"name": "SGD", "lr": 0.1}, lr_scheduler=spec)
    trainer = Trainer(
        max_epochs=3, limit_train_batches=10, limit_val_batches=1, num_sanity_val_steps=0, logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, accelerator="cpu",
        callbacks=[used, fails],
    )  # fmt: skip
    data = ImageDataModule(image_size=8, batch_size=16)
    with pytest.raises(RuntimeError):
        trainer.fit(model, data)
    made = len(used.used)
    trainer.fit(model, data)
    assert trainer.current_epoch == 3 and len(used.used) == made + 30
    if spec["name"] == "OneCycleLR":
        assert used.used[made:] == exactly(rates(spec, made + 30, lr=0.1)[made:])
    else:
        assert used.used[made:] == exactly(train(spec, 3)[0])


@pytest.mark.filterwarnings("ignore::lightning.fabric.utilities.warnings.PossibleUserWarning")
@pytest.mark.parametrize("own", [False, True])
def test_a_plateau_with_other_options_goes_on_from_the_rate_that_it_reached(own: bool, tmp_path: Path) -> None:
    loader = DataLoader(TensorDataset(torch.zeros(8, 1, 8, 8), torch.zeros(8, dtype=torch.int64)), batch_size=8)
    quiet: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    quiet |= {"accelerator": "cpu", "enable_checkpointing": False}

    def trained(lr: float, factor: float, epochs: int, *callbacks: Callback, ckpt_path: Path | None = None) -> Trainer:
        plateau = {"name": "ReduceLROnPlateau", "monitor": "train/loss", "patience": 0, "threshold": 0.5}
        model = create(
            "linear", in_channels=1, image_size=8, whitening="none", optimizer={"name": "SGD", "lr": lr},
            lr_scheduler={**plateau, "factor": factor, "eps": 0.0},
        )  # fmt: skip
        trainer = Trainer(max_epochs=epochs, callbacks=[*callbacks], **quiet)
        trainer.fit(model, loader, ckpt_path=ckpt_path)
        return trainer

    first = trained(1e-6, 0.5, 3)
    if own:  # one of torch without the initial rates, which a model makes by itself
        del first.optimizers[0].param_groups[0]["initial_lr"]
    first.save_checkpoint(tmp_path / "a.ckpt")
    second = trained(1e-5, 0.1, 4, UseChanges(), ckpt_path=tmp_path / "a.ckpt")
    assert [each.optimizers[0].param_groups[0]["lr"] for each in (first, second)] == pytest.approx(
        [0.25e-6, 0.1 * (0.25e-6 if own else 0.25e-5)]
    )


class OwnForms(Linear):
    """A model with an optimizer of its own, in one of the forms that Lightning takes."""

    form, gamma = "lists", 0.5

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=1e-3)
        schedule = lr_scheduler.StepLR(optimizer, 1, self.gamma)
        seldom = {"scheduler": schedule, "interval": "epoch", "frequency": 2}
        return {
            "lists": ([optimizer], [schedule]),
            "schedule": {"optimizer": optimizer, "lr_scheduler": schedule},
            "seldom": [{"optimizer": optimizer, "lr_scheduler": seldom}],
            "optimizers": [optimizer],
        }[self.form]


@pytest.mark.filterwarnings("ignore::lightning.fabric.utilities.warnings.PossibleUserWarning")
@pytest.mark.parametrize(("form", "steps"), [("lists", 4), ("schedule", 4), ("seldom", 2), ("optimizers", 0)])
def test_new_options_of_an_optimizer_of_ones_own_are_used_in_any_form(form: str, steps: int, tmp_path: Path) -> None:
    loader = DataLoader(TensorDataset(torch.zeros(8, 1, 8, 8), torch.zeros(8, dtype=torch.int64)), batch_size=8)
    quiet: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    quiet |= {"accelerator": "cpu", "enable_checkpointing": False}

    def trained(gamma: float, epochs: int, *callbacks: Callback, ckpt_path: Path | None = None) -> Trainer:
        model = OwnForms(in_channels=1, image_size=8, whitening="none")
        model.form, model.gamma = form, gamma
        trainer = Trainer(max_epochs=epochs, callbacks=[*callbacks], **quiet)
        trainer.fit(model, loader, ckpt_path=ckpt_path)
        return trainer

    trained(0.5, 2).save_checkpoint(tmp_path / "a.ckpt")
    longer = trained(0.1, 4, UseChanges(), ckpt_path=tmp_path / "a.ckpt")
    assert longer.optimizers[0].param_groups[0]["lr"] == pytest.approx(1e-3 * 0.1**steps)


class TwiceABatch(Linear):
    """A model that calls its optimizer twice a batch, and then its schedule."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.automatic_optimization = False
        self.used: list[float] = []

    def training_step(self, batch: Any, batch_idx: int) -> None:  # type: ignore[override]
        optimizer: Any = self.optimizers()
        schedule: Any = self.lr_schedulers()
        self.used.append(optimizer.param_groups[0]["lr"])
        for _ in range(2):
            optimizer.zero_grad()
            self.manual_backward(self.training_loss(batch))
            optimizer.step()
        schedule.step()


@pytest.mark.filterwarnings("ignore::lightning.fabric.utilities.warnings.PossibleUserWarning")
@pytest.mark.filterwarnings("ignore:Be aware that when using")  # the callback that saved the checkpoint
@pytest.mark.parametrize(
    ("spec", "changes", "lr"),
    [({"name": "Cosine"}, [], 0.1), ({"name": "Step", "every": 3, "interval": "step"}, [UseChanges()], 0.2)],
)
def test_a_schedule_that_a_model_steps_by_itself_goes_on_where_it_was(
    spec: Spec, changes: list[Callback], lr: float, tmp_path: Path
) -> None:
    loader = DataLoader(TensorDataset(torch.zeros(8, 1, 8, 8), torch.zeros(8, dtype=torch.int64)), batch_size=2)
    quiet: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}

    def trained(lr: float, *callbacks: Callback, saves: bool = False, ckpt_path: Path | None = None) -> list[float]:
        optimizer = {"name": "SGD", "lr": lr}
        model = TwiceABatch(in_channels=1, image_size=8, whitening="none", optimizer=optimizer, lr_scheduler=spec)
        trainer = Trainer(max_epochs=2, accelerator="cpu", enable_checkpointing=saves, callbacks=[*callbacks], **quiet)
        trainer.fit(model, loader, ckpt_path=ckpt_path)
        return model.used

    whole = trained(0.1, ModelCheckpoint(tmp_path / "a", "{epoch}", save_top_k=-1), saves=True)
    assert whole == exactly(rates(spec, 8, lr=0.1))
    rest = trained(lr, *changes, ckpt_path=tmp_path / "a/epoch=0.ckpt")
    assert rest == exactly([lr / 0.1 * rate for rate in whole[4:]])


def test_a_training_that_passes_its_last_step_is_validated() -> None:
    loader = DataLoader(TensorDataset(torch.zeros(8, 1, 8, 8), torch.zeros(8, dtype=torch.int64)), batch_size=2)
    model = TwiceABatch(in_channels=1, image_size=8, whitening="none", lr_scheduler="Cosine")
    trainer = Trainer(
        max_steps=5, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(model, loader, loader)
    assert trainer.global_step == 6 and "val/loss" in trainer.callback_metrics


def test_a_checkpoint_of_ones_own_from_within_an_epoch_goes_on_with_a_whole_one(colours: Path, tmp_path: Path) -> None:
    data = ImageDataModule("folder", str(colours), batch_size=4)  # nine batches
    quiet: Any = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    model = create("linear", num_classes=2, image_size=8, lr_scheduler=None)
    first, then = (
        Trainer(max_steps=steps, accelerator="cpu", enable_checkpointing=False, **quiet) for steps in (3, 12)
    )
    first.fit(model, data)
    first.save_checkpoint(tmp_path / "own.ckpt")
    then.fit(model, data, ckpt_path=tmp_path / "own.ckpt", weights_only=True)
    assert (then.global_step, then.current_epoch) == (12, 2)


def test_a_warm_up_of_a_schedule_that_rises_is_refused_with_the_model() -> None:
    with pytest.raises(ValueError, match="lr_scheduler OneCycle: it rises to its peak by itself"):
        create("linear", lr_scheduler={"name": "OneCycle", "warmup": 0.1})


def test_a_schedule_without_a_trainer_says_how_to_make_it() -> None:
    with pytest.raises(ValueError, match=r"in a loop of your own, make it with cvcc_zoo\.optim\.make_lr_scheduler"):
        create("linear", lr_scheduler="Cosine").configure_optimizers()


def test_what_weight_decay_leaves_of_a_weight_depends_on_the_schedule() -> None:
    def left(name: str) -> float:
        return math.prod(1 - 0.05 * rate for rate in rates({"name": name}, 100, lr=0.1))

    assert left("QuarterCosine") == pytest.approx(0.725, abs=2e-3)
    assert left("Cosine") == pytest.approx(0.777, abs=2e-3)


@pytest.mark.parametrize("total", [1, 2, 3])
def test_a_long_warm_up_leaves_a_step_to_the_curve(total: int) -> None:
    factor = make_factor("Cosine", total, warmup=0.9)
    assert [factor(t) for t in range(total + 1)] == exactly([*(t / total for t in range(1, total)), 1.0, 1.0])


def test_the_bare_cosine_climbs_again_after_its_end_where_the_factor_stays() -> None:
    assert CURVES["Cosine"](12, 6) == pytest.approx(1)
    factor = make_factor("Cosine", 6)
    assert factor(12) == factor(5) < 0.1


def test_schedules_can_be_drawn() -> None:
    figure = plot_schedules({"a": {"name": "Cosine"}, "b": {"name": "WSD", "warmup": 0.1}}, total=100)
    first, second = (np.asarray(line.get_ydata()).tolist() for line in figure.axes[0].lines)
    assert first == exactly(rates({"name": "Cosine"}, 100))
    assert second == exactly(rates({"name": "WSD", "warmup": 0.1}, 100))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"name": "QuarterCosin"}, "no lr_scheduler named 'QuarterCosin'; did you mean QuarterCosine"),
        ({"name": "Step"}, "lr_scheduler Step needs the option every"),
        ({"name": "Step", "every": 0}, r"Step needs every above 0 \(epochs or steps\), got 0"),
        ({"name": "MultiStep", "milestones": 30}, "MultiStep: milestones must be a list of numbers, not 30"),
        ({"name": "MultiStep", "milestones": [0, 0.5]}, "milestones must be above 0"),
        ({"name": "Cosine", "T_max": 3}, "no option of lr_scheduler Cosine named 'T_max'"),
        ({"name": "Cosine", "warmup": 40}, "a warm-up of 40 does not fit into a training run of 40"),
        ({"name": "Cosine", "warmup": -1}, "a warm-up of -1 does not fit"),
        (
            {"name": "OneCycle", "warmup": 0.1},
            r"OneCycle: it rises to its peak by itself.*leave warmup out",
        ),
        ({"name": "Linear", "peak": 0.3, "warmup": 5}, "lr_scheduler Linear: it rises to its peak by itself"),
        ({"name": "Cosine", "warmup": "long"}, "lr_scheduler Cosine: warmup must be a number, not 'long'"),
        ({"name": "Cosine", "interval": "week"}, "no interval of lr_scheduler Cosine named 'week'; known are"),
        ({"name": "OneCycle", "peak": 1.0}, r"peak must be a share of training in \[0, 1\), got 1.0"),
        ({"name": "WSD", "decay": 0}, "the decay of WSD must be above 0"),
        ({"name": "OneCycleLR", "pct_start": 0.025}, "OneCycleLR divides by 0 in a training of 40 steps.*a larger pct"),
        ({"name": "StepLR", "step_size": 0}, "step_size must be above 0, not 0"),
        ({"name": "CosineAnnealingLR", "T_max": 0}, "T_max must be above 0, not 0"),
    ],
)
def test_wrong_options_are_refused(spec: Spec, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rates(spec, 40)


@pytest.mark.parametrize(
    "chosen",
    [
        {"name": "SGD", "lr": 0.1},
        {"name": "RMSprop"},
        {"name": "Adagrad"},
        {"name": "Adam", "betas": (0.0, 0.9)},
    ],
)
@pytest.mark.parametrize("spec", [{"name": "OneCycleLR"}, {"name": "CyclicLR", "base_lr": 0.01, "max_lr": 0.1}])
def test_a_schedule_gives_no_momentum_to_an_optimizer_chosen_without(spec: Spec, chosen: Spec) -> None:
    optimizer = make_optimizer(chosen, nn.Linear(2, 2))
    make_lr_scheduler(spec, optimizer, 40, 40)
    with pytest.raises(ValueError, match=f"this {chosen['name']} has none; set lr_scheduler.cycle_m"):
        make_lr_scheduler({**spec, "cycle_momentum": True}, optimizer, 40, 40)


@pytest.mark.parametrize("options", [{}, {"sgd_lr": 0.1}])
def test_a_schedule_does_not_change_the_momentum_of_muon_in_part(options: Spec) -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2))
    optimizer = make_optimizer({"name": "Muon", **options}, network)
    with pytest.raises(ValueError, match=r"that of AdamW alone in Muon; set lr_scheduler.cycle_momentum=false"):
        make_lr_scheduler({"name": "OneCycleLR", "cycle_momentum": True}, optimizer, 40, 40)


@pytest.mark.parametrize("spec", [{"name": "Cosine", "warmup": 0.1}, {"name": "Step", "every": 3, "interval": "step"}])
def test_a_schedule_goes_on_after_it_was_pickled_and_from_a_state_of_a_function(spec: Spec) -> None:
    def make() -> tuple[Any, Any]:
        optimizer = make_optimizer({"name": "SGD", "lr": 0.1}, nn.Linear(2, 2))
        return optimizer, make_lr_scheduler(spec, optimizer, 40, 40)["scheduler"]

    optimizer, schedule = make()
    for _ in range(10):
        optimizer.step()
        schedule.step()
    copied, (_, loaded) = pickle.loads(pickle.dumps(schedule)), make()
    loaded.load_state_dict({**schedule.state_dict(), "lr_lambdas": [None]})
    for each in (schedule, copied, loaded):
        each.optimizer.step()
        each.step()
    assert schedule.get_last_lr() == copied.get_last_lr() == loaded.get_last_lr() != [0.1]
