"""StepGraph: a step that is recorded once and replayed does what an ordinary step does, to the bit."""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import (
    EarlyStopping,
    GradientAccumulationScheduler,
    LambdaCallback,
    LearningRateMonitor,
    StochasticWeightAveraging,
)
from lightning.pytorch.loggers import Logger
from lightning.pytorch.plugins import MixedPrecision
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import cvcc_zoo
from cvcc_zoo.data.pixels import PixelCheck
from cvcc_zoo.optim.capture import without_python_numbers
from cvcc_zoo.runs import EMA, Compile, OptimizerMonitor, StepGraph
from cvcc_zoo.runs.obstacles import reason_against
from cvcc_zoo.runs.recording import RECORDERS, WARM_UP
from tests.conftest import QUICK, Fit, MakeFolder, message
from tests.cpu_graph import CpuGraphs

QUIET: dict[str, Any] = {
    "accelerator": "cpu", "enable_checkpointing": False, "enable_progress_bar": False,
    "enable_model_summary": False, "use_distributed_sampler": False, "log_every_n_steps": 3,
}  # fmt: skip


class Rows(Logger):
    """A logger that remembers what was logged."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[tuple[int | None, dict[str, float]]] = []

    @property
    def name(self) -> str:
        return "rows"

    @property
    def version(self) -> int:
        return 0

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.rows.append((step, dict(metrics)))

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        pass


class Again(CpuGraphs):
    """Runs the Python of a step at each replay: the same arithmetic as a recording, without one."""

    def record(self, step: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
        loss = torch.zeros(())

        def replay() -> None:
            loss.copy_(step())

        return replay, loss


@dataclass
class Fitted:
    model: cvcc_zoo.ImageClassifier
    trainer: Trainer
    rows: list[tuple[int | None, dict[str, float]]]
    recordings: int


@dataclass
class Case:
    """A training run: a model, its options, those of the data and of the Trainer."""

    model: str = "fcnn"
    options: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    trainer: dict[str, Any] = field(default_factory=dict)
    callbacks: Callable[[], list[Callback]] = list

    def fit(self, root: Path, *more: Callback, ckpt_path: str | None = None, **trainer: Any) -> Fitted:
        torch.manual_seed(0)
        data = cvcc_zoo.ImageDataModule(
            "folder", root=str(root), **{"batch_size": 4, "validation": 0.2, "augmentations": "none", **self.data}
        )
        small: dict[str, Any] = {"hidden": (8, 6), "dropout": 0.3} if self.model == "fcnn" else {}
        model = cvcc_zoo.create(self.model, num_classes=2, image_size=data.image_size, **small, **self.options)
        rows, made = Rows(), len(CpuGraphs.made)
        callbacks = [*self.callbacks(), LearningRateMonitor("step"), *more]
        options = {"max_epochs": 3, **QUIET, **self.trainer, **trainer}
        trained = Trainer(callbacks=callbacks, logger=rows, **options)
        trained.fit(model, data, ckpt_path=ckpt_path)
        recordings = sum(len(each.recorded) for each in CpuGraphs.made[made:])
        return Fitted(model, trained, rows.rows, recordings)


@pytest.fixture(autouse=True)
def recorders(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(RECORDERS, "cpu", CpuGraphs)
    CpuGraphs.made.clear()
    yield
    CpuGraphs.made.clear()


def tensors(fitted: Fitted) -> list[Tensor]:
    """The weights and statistics, and the state of the optimizer."""
    states = fitted.trainer.optimizers[0].state_dict()["state"].values()
    kept = [state[name] for state in states for name in sorted(state)]
    return [*fitted.model.state_dict().values(), *(each for each in kept if each is not None)]


def assert_same(one: Fitted, other: Fitted) -> None:
    assert one.trainer.global_step == other.trainer.global_step
    assert one.trainer.fit_loop.state_dict() == other.trainer.fit_loop.state_dict()
    assert one.rows == other.rows and one.rows
    for a, b in zip(tensors(one), tensors(other), strict=True):
        assert torch.equal(a, b)


SGD = {"name": "SGD", "lr": 0.05, "momentum": 0.9, "nesterov": True, "weight_decay": 1e-3}
CASES = {
    "linear, steps of the rate": Case("linear", {"optimizer": SGD, "lr_scheduler": {"name": "Step", "every": 1}}),
    "dropout, one cycle, clipped": Case(
        options={"optimizer": "AdamW", "lr_scheduler": "OneCycle"}, trainer={"gradient_clip_val": 0.1}
    ),
    "clipped by value": Case(trainer={"gradient_clip_val": 1e-3, "gradient_clip_algorithm": "value"}),
    "batch norm, smoothed labels": Case(
        "ResNet", {"depth": 8, "optimizer": SGD, "loss": {"name": "cross_entropy", "label_smoothing": 0.1}}
    ),
    "mixed images": Case(options={"lr_scheduler": "Linear"}, data={"augmentations": ["MixUp"]}),
    "class weights": Case(options={"loss": {"name": "cross_entropy", "class_weights": "balanced", "l2": 1e-3}}),
    "frozen": Case("ResNet", {"depth": 8, "freeze": 3, "optimizer": SGD}),
    "average": Case(callbacks=lambda: [EMA(0.9)]),
    "monitor": Case(callbacks=lambda: [OptimizerMonitor()]),
    "bfloat16": Case(trainer={"precision": "bf16-mixed"}),
    "true bfloat16, average": Case(trainer={"precision": "bf16-true"}, callbacks=lambda: [EMA(0.9)]),
    "float64": Case(trainer={"precision": "64-true"}),
    "torch's optimizer": Case(options={"optimizer": {"name": "torch.optim.AdamW", "fused": True}}),
    "whitened": Case(options={"whitening": {"name": "zca", "eps": 0.1}}),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_replayed_training_has_the_bits_of_an_ordinary_one(case: Case, colours: Path) -> None:
    """Weights, state of the optimizer, and all logged numbers, after 16 steps."""
    ordinary, replayed = case.fit(colours, max_epochs=2), case.fit(colours, StepGraph(), max_epochs=2)
    assert (ordinary.recordings, replayed.recordings) == (0, 1)
    assert replayed.trainer.global_step == 16
    assert_same(ordinary, replayed)


MUON = {"name": "Muon", "lr": 0.02, "adamw_lr": 0.01, "bias_lr": 0.005}
OTHERS = [MUON, {**MUON, "unit_norm": True, "sgd_lr": 0.1, "weight_decay": 0.1}, "RMSprop", "Adafactor", "Adagrad"]


@pytest.mark.parametrize("optimizer", OTHERS)
def test_other_optimizers_differ_by_rounding_alone(
    optimizer: Any, colours: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = Case(options={"optimizer": optimizer, "lr_scheduler": "Linear"}, trainer={"max_epochs": 1})
    ordinary, replayed = case.fit(colours), case.fit(colours, StepGraph())
    assert replayed.recordings == 1
    monkeypatch.setitem(RECORDERS, "cpu", Again)
    assert_same(case.fit(colours, StepGraph()), replayed)
    for a, b in zip(tensors(ordinary), tensors(replayed), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_cnn_fast_with_muon_from_a_recording(make_folder: MakeFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"optimizer": {**MUON, "sgd_lr": 0.1}, "lr_scheduler": "Linear", "patch_whitening": 0.0005}
    case, root = Case("cnn_fast", options, trainer={"max_epochs": 1}), make_folder(size=16)
    replayed = case.fit(root, StepGraph())
    assert replayed.recordings == 1
    monkeypatch.setitem(RECORDERS, "cpu", Again)
    assert_same(case.fit(root, StepGraph()), replayed)


class Watch(Callback):
    """What a callback of a user sees around each step."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, int, Tensor, Tensor]] = []

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *given: Any) -> None:
        outputs, (images, _), batch_idx = given
        self.seen.append((trainer.global_step, batch_idx, outputs["loss"], images.clone()))


def test_callbacks_of_users_see_each_step_and_its_loss(colours: Path) -> None:
    ordinary, replayed = Watch(), Watch()
    assert_same(Case().fit(colours, ordinary), Case().fit(colours, StepGraph(), replayed))
    for one, other in zip(ordinary.seen, replayed.seen, strict=True):
        assert one[:2] == other[:2] and all(torch.equal(a, b) for a, b in zip(one[2:], other[2:], strict=True))


def test_training_stops_early_as_without(colours: Path) -> None:
    case = Case(trainer={"max_epochs": 9}, callbacks=lambda: [EarlyStopping("train/loss", min_delta=0.1, patience=1)])
    ordinary, replayed = case.fit(colours), case.fit(colours, StepGraph())
    assert_same(ordinary, replayed)
    assert WARM_UP < ordinary.trainer.global_step < 72


def test_a_training_that_is_resumed_within_an_epoch_ends_the_same(colours: Path, tmp_path: Path) -> None:
    case = Case(options={"lr_scheduler": "OneCycle"}, callbacks=lambda: [EMA(0.9)])

    class Save(Callback):
        def on_train_batch_end(self, trainer: Trainer, *given: Any) -> None:
            if trainer.global_step == 13:
                trainer.save_checkpoint(tmp_path / "middle.ckpt")

    ordinary = case.fit(colours)
    case.fit(colours, StepGraph(), Save())
    resumed = case.fit(colours, StepGraph(), ckpt_path=str(tmp_path / "middle.ckpt"))
    assert resumed.recordings == 1
    for a, b in zip(tensors(ordinary), tensors(resumed), strict=True):
        assert torch.equal(a, b)
    later = [row for row in ordinary.rows if row[0] is not None and row[0] > 13]
    assert resumed.rows[-len(later) :] == later


def loader(count: int) -> DataLoader[Any]:
    torch.manual_seed(1)
    return DataLoader(TensorDataset(torch.rand(count, 3, 8, 8), torch.arange(count) % 2), batch_size=4)


def small(**options: Any) -> cvcc_zoo.FCNN:
    torch.manual_seed(0)
    return cvcc_zoo.FCNN(hidden=(8,), num_classes=2, image_size=8, whitening="none", **options)


def train(model: LightningModule, batches: DataLoader[Any], *callbacks: Callback, **options: Any) -> Trainer:
    """Train on batches of a DataLoader, and validate on others, which are valid."""
    trainer = Trainer(callbacks=list(callbacks), **{**QUIET, "logger": False, "max_epochs": 1, **options})
    trainer.fit(model, batches, loader(4))
    return trainer


def test_a_smaller_last_batch_runs_the_ordinary_way() -> None:
    found = []
    for callbacks in ([], [StepGraph()]):
        model, rows = small(), Rows()
        trainer = train(model, loader(10), *callbacks, max_epochs=5, logger=rows, log_every_n_steps=1)
        found.append(Fitted(model, trainer, rows.rows, sum(len(each.recorded) for each in CpuGraphs.made)))
    assert_same(*found)
    assert [each.recordings for each in found] == [0, 1]


class Growing(LightningDataModule):
    """A single batch of two images in the first epoch, and four larger batches before one like it in the others."""

    def train_dataloader(self) -> DataLoader[Any]:
        assert self.trainer is not None
        return loader(2 if self.trainer.current_epoch == 0 else 18)

    def val_dataloader(self) -> DataLoader[Any]:
        return loader(4)


def test_the_newest_loss_is_logged_whichever_way_a_step_runs() -> None:
    found = []
    runs: list[list[Callback]] = [[], [StepGraph()]]
    for callbacks in runs:
        model, rows = small(), Rows()
        options = {**QUIET, "max_epochs": 3, "reload_dataloaders_every_n_epochs": 1, "log_every_n_steps": 1}
        trainer = Trainer(callbacks=callbacks, logger=rows, **options)
        trainer.fit(model, datamodule=Growing())
        found.append(Fitted(model, trainer, rows.rows, 0))
    assert_same(*found)


@pytest.mark.parametrize(("most", "sizes", "left"), [(1, [8], 1), (4, [8], 2), (2, [8, 10], 1)])
def test_each_size_of_images_has_a_recording_and_one_too_many_replaces_all(
    most: int, sizes: list[int], left: int, make_folder: MakeFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cvcc_zoo.runs.step_graph.MOST", most)
    count = len(sizes) + 1
    data = {"progressive_resizing": dict.fromkeys(sizes, 1 / count)}
    case, root = Case("ResNet", {"depth": 8}, data, trainer={"max_epochs": count}), make_folder(size=12)
    graphs, held = StepGraph(), []
    look = LambdaCallback(on_train_batch_end=lambda *given: held.append(len(graphs._steps)))
    ordinary, replayed = case.fit(root), case.fit(root, graphs, look)
    assert_same(ordinary, replayed)
    assert replayed.recordings == count and held[-1] == left and max(held) == min(most, count)


class Change(Callback):
    """Changes a number of all modules, or what is trained, at the start of the second epoch."""

    def __init__(self, name: str, value: Any) -> None:
        self.name, self.value = name, value

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for each in (*pl_module.get_submodule("network").modules(), pl_module.get_parameter("network.fc.bias")):
            if trainer.current_epoch == 1 and hasattr(each, self.name):
                setattr(each, self.name, self.value)


@pytest.mark.parametrize("change", [("p", 0.0), ("momentum", 0.5), ("requires_grad", False)], ids=str)
def test_a_number_that_changes_between_epochs_is_recorded_anew(change: tuple[str, Any], colours: Path) -> None:
    case = Case(callbacks=lambda: [Change(*change)])
    ordinary, replayed = case.fit(colours), case.fit(colours, StepGraph())
    assert_same(ordinary, replayed)
    assert replayed.recordings == 2


def test_an_option_of_the_optimizer_that_changes_in_each_step_is_never_recorded(colours: Path) -> None:
    class Momentum(Callback):
        def on_train_batch_start(self, trainer: Trainer, *given: Any) -> None:
            trainer.optimizers[0].param_groups[0]["momentum"] = 0.9 - 0.01 * trainer.global_step

    case = Case(options={"optimizer": SGD}, callbacks=lambda: [Momentum()])
    ordinary, replayed = case.fit(colours), case.fit(colours, StepGraph())
    assert_same(ordinary, replayed)
    assert replayed.recordings == 0


@pytest.mark.filterwarnings("ignore:Swapping scheduler")
@pytest.mark.parametrize(("model", "options"), [("fcnn", {}), ("ResNet", {"depth": 8})])
def test_weights_are_averaged_by_lightning_as_without(model: str, options: dict[str, Any], colours: Path) -> None:
    """Batch norms have an epoch of their own."""
    case = Case(model, {"optimizer": SGD, **options}, callbacks=lambda: [StochasticWeightAveraging(1e-2, 1, 1)])
    assert_same(case.fit(colours, max_epochs=4), case.fit(colours, StepGraph(), max_epochs=4))


def test_a_copy_of_a_model_in_training_does_not_have_its_steps(colours: Path) -> None:
    copies: list[LightningModule] = []
    keep = LambdaCallback(on_train_epoch_end=lambda trainer, model: copies.append(copy.deepcopy(model)))
    model = Case("linear").fit(colours, StepGraph(), keep).model
    for each in (model, *copies):
        assert each.optimizer_step.__func__ is cvcc_zoo.ImageClassifier.optimizer_step  # type: ignore[attr-defined]
        assert each.optimizer_step.__self__ is each  # type: ignore[attr-defined]


def test_an_average_moves_in_the_first_step_after_a_training_that_failed() -> None:
    average = EMA(0.5)
    average.moved = True
    model = small()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    train(model, loader(4), average)  # one step
    assert any(not torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_numbers_that_an_ordinary_step_kept_on_the_host_move_to_the_device() -> None:
    p = nn.Parameter(torch.zeros(2, device="meta"))  # as on a GPU, NAdam keeps the product of momenta on the host
    p.grad = torch.zeros(2, device="meta")
    optimizer = torch.optim.NAdam([p], foreach=False)
    optimizer.step()
    assert optimizer.state[p]["mu_product"].is_cpu
    with without_python_numbers(optimizer, [torch.zeros((), device="meta")]):
        assert all(value.is_meta for value in optimizer.state[p].values())


def test_one_callback_serves_two_trainings(colours: Path) -> None:
    graphs = StepGraph()
    first, second = (Case().fit(colours, graphs) for _ in range(2))
    assert_same(first, second)
    assert first.recordings == second.recordings == 1 and "optimizer_step" not in vars(second.model)


def test_compile_makes_no_graphs_within_a_graph(colours: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.compile", lambda forward, mode, dynamic: forward)
    compiler = Compile()
    Case(trainer={"max_epochs": 1}).fit(colours, compiler, StepGraph())
    assert compiler.within_graph
    Case(trainer={"max_epochs": 1}).fit(colours, compiler, StepGraph(required=False), accumulate_grad_batches=2)
    assert not compiler.within_graph


def test_compile_with_graphs_of_its_own_is_refused(colours: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"StepGraph: Compile\(mode=reduce-overhead\) makes CUDA graphs of its own"):
        Case().fit(colours, StepGraph(), Compile("reduce-overhead"))


class OwnStep(cvcc_zoo.FCNN):
    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return super().training_step(batch, batch_idx)


class OwnLook(Callback):
    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        pass


class Plain(LightningModule):
    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        output: Tensor = self.layer(batch[0].mean((2, 3)))
        return output.square().mean()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        pass

    def configure_optimizers(self) -> Any:
        self.layer: nn.Module = nn.Linear(3, 1)
        return torch.optim.AdamW(self.layer.parameters())


def hooked() -> cvcc_zoo.FCNN:
    model = small()
    model.network.register_forward_hook(lambda *given: None)
    return model


def watched() -> cvcc_zoo.FCNN:
    model = small()
    model.register_forward_hook(lambda *given: None)
    return model


class OwnOptimizer(cvcc_zoo.FCNN):
    def configure_optimizers(self) -> Any:
        optimizer = super().configure_optimizers()
        optimizer.register_step_post_hook(lambda *given: None)
        return optimizer


SCALED = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu"))


@pytest.mark.filterwarnings("ignore:When using `Trainer.accumulate_grad_batches")  # of the scheduler below
@pytest.mark.parametrize(
    ("make", "options", "reason"),
    [
        (Plain, {}, "Plain is not a model of this package; wrap its network"),
        (lambda: OwnStep(num_classes=2, image_size=8, whitening="none"), {}, "OwnStep has a training_step of its own"),
        (hooked, {}, "the network of FCNN has hooks"),
        (watched, {}, "FCNN has hooks"),
        (lambda: OwnOptimizer(num_classes=2, image_size=8, whitening="none"), {}, "the optimizer has hooks"),
        (small, {"accumulate_grad_batches": 2}, "gradients are accumulated over several batches"),
        (small, {"callbacks": [GradientAccumulationScheduler({1: 2})]}, "gradients are accumulated"),
        (small, {"plugins": [SCALED]}, "precision=16-mixed looks at the gradients"),
        (small, {"callbacks": [OwnLook()]}, r"the callback OwnLook looks into every step \(on_after_backward\)"),
        (
            small,
            {"callbacks": [LambdaCallback(on_before_zero_grad=lambda *given: None)]},
            "the callback LambdaCallback",
        ),
        (lambda: small(optimizer="LowRankAdam"), {}, "LowRankAdam does more in some steps than in others"),
        (lambda: small(optimizer="torch.optim.SGD"), {}, "SGD reads its learning rate in Python; .*set fused=true"),
        (lambda: small(optimizer="LBFGS"), {}, "LBFGS reads its learning rate in Python; choose an optimizer"),
        (lambda: small(optimizer="timm.lamb"), {}, "Lamb reads its learning rate in Python"),
    ],
)
def test_what_forbids_a_recording_is_said_before_training(
    make: Callable[[], LightningModule], options: dict[str, Any], reason: str
) -> None:
    for required in (True, False):
        callbacks = [*options.get("callbacks", []), StepGraph(required=required)]
        more = {name: value for name, value in options.items() if name != "callbacks"}
        if required:
            with pytest.raises(ValueError, match=f"StepGraph: {reason}"):
                train(make(), loader(8), *callbacks, **more)
        else:
            assert train(make(), loader(8), *callbacks, **more).global_step > 0 and not CpuGraphs.made


def test_a_schedule_of_the_momentum_is_said_before_training(colours: Path) -> None:
    options = {"optimizer": SGD, "lr_scheduler": {"name": "OneCycleLR", "cycle_momentum": True}}
    with pytest.raises(ValueError, match="StepGraph: the schedule changes the momentum in every step"):
        Case(options=options).fit(colours, StepGraph())


def test_several_processes_are_said_before_training() -> None:
    trainer = Trainer(accelerator="cpu", devices=2, strategy="ddp", logger=False)
    assert reason_against(trainer, small()) == "training runs in 2 processes; train in one (--trainer.devices=1)"


def test_ridge_regression_has_no_steps_to_record(colours: Path) -> None:
    with pytest.raises(ValueError, match="StepGraph: ridge regression is solved in one pass"):
        Case("ridge").fit(colours, StepGraph(), max_epochs=1)


def test_a_device_without_graphs_is_said_on_the_command_line(
    fit: Fit,
    colours: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delitem(RECORDERS, "cpu")
    data = ["--data.dataset=folder", f"--data.root={colours}"]
    printed = message(capsys, ["fit", "--model=linear", *data, *QUICK, "--trainer.callbacks+=StepGraph"])
    assert "StepGraph: a cpu has no CUDA graphs; train on an NVIDIA GPU" in printed
    optional = ["--trainer.callbacks+=StepGraph", "--trainer.callbacks.required=false"]
    assert fit("--model=linear", *optional) == 0
    assert "Training steps are not replayed as CUDA graphs: a cpu has no CUDA graphs" in caplog.text


def test_a_model_that_reads_a_value_in_its_step_is_said() -> None:
    model = small()
    forward = model.network.forward
    model.network.forward = lambda x: forward(x) * float(x.mean() > -1)
    with pytest.raises(RuntimeError, match=r"cannot be recorded .*aten\._local_scalar_dense.*; leave out"):
        train(model, loader(20), StepGraph())
    assert "optimizer_step" not in vars(model)


def replaying(images: Tensor, labels: Tensor, **options: Any) -> None:
    """Train on batches of 4; the first steps warm up."""
    train(small(**options), DataLoader(TensorDataset(images, labels), batch_size=4), StepGraph())


def test_wrong_labels_and_pixels_are_found_in_replayed_steps() -> None:
    images, labels = torch.rand(24, 3, 8, 8), torch.arange(24) % 2
    replaying(images, labels)
    with pytest.raises(ValueError, match=r"labels must be in 0 \.\. 1"):
        replaying(images, torch.cat([labels[:20], labels[20:] + 5]))
    with pytest.raises(ValueError, match="divide them by 255"):
        replaying(torch.cat([images[:20], images[20:] * 255]), labels)


def test_a_loss_that_is_not_finite_ends_a_replayed_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PixelCheck, "__call__", lambda self, images: None)  # which refuses NaN
    with pytest.raises(FloatingPointError, match="loss is nan at step 5"):
        replaying(torch.cat([torch.rand(20, 3, 8, 8), torch.full((4, 3, 8, 8), torch.nan)]), torch.arange(24) % 2)
