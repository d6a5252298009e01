"""Lightning and torch still have, and still need, the private parts that this package touches."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from lightning import Callback, Fabric, LightningModule, Trainer
from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.loggers import Logger
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode

import cvcc_zoo.internals.lightning as lightning_parts
import cvcc_zoo.internals.torch as torch_parts

BATCHES = 3  # in an epoch
Event = tuple[str, int]


class Batches:
    """The batches of an epoch, the first time from `start` on; the methods say to Lightning that it can be resumed."""

    def __init__(self, start: int = 0) -> None:
        self.start = start

    def __len__(self) -> int:
        return BATCHES

    def __iter__(self) -> Iterator[Tensor]:
        start, self.start = self.start, 0
        yield from torch.ones(BATCHES - start, 2, 1)

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


class Rows(Logger):
    """Notes at which steps rows are written."""

    name, version = "rows", 0

    def __init__(self, events: list[Event]) -> None:
        super().__init__()
        self.events = events

    def log_hyperparams(self, *args: Any, **options: Any) -> None:
        pass

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        assert step is not None
        self.events.append(("row", step))


class Plateau(torch.optim.lr_scheduler.ReduceLROnPlateau):
    """Notes when it is told a number."""

    events: list[Event]

    def step(self, *args: Any, **options: Any) -> None:
        self.events.append(("plateau", self.last_epoch))
        super().step(*args, **options)

    def state_dict(self) -> dict[str, Any]:
        return {name: value for name, value in super().state_dict().items() if name != "events"}


class Line(LightningModule):
    """A weight, trained to give 0."""

    def __init__(self, events: list[Event]) -> None:
        super().__init__()
        self.linear, self.events = nn.Linear(1, 1), events

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        loss: Tensor = self.linear(batch).square().mean()
        self.log("loss", loss)
        return loss

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        self.events.append(("validation", batch_idx))

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1)
        schedule = Plateau(optimizer)
        schedule.events = self.events
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "monitor": "loss"}}


class StoppedError(Exception):
    """The training was stopped."""


class CountError(Exception):
    """Lightning counts epochs or batches otherwise."""


class Saves(Callback):
    """Notes epochs and batches; saves and stops at the start of the batch `stop` (epoch, batch) as `last.ckpt` is."""

    def __init__(self, events: list[Event], path: Path, stop: tuple[int, int] | None) -> None:
        self.events, self.path, self.stop = events, path, stop

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        lightning_parts.start_epoch_anew(trainer)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.events.append(("epoch", trainer.current_epoch))

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if (trainer.current_epoch, batch_idx) == self.stop:
            if batch_idx == 0:
                self.events.pop()  # the start of the epoch, which comes again
            trainer.save_checkpoint(self.path)
            raise StoppedError
        self.events.append(("batch", batch_idx))
        done = lightning_parts.batches_done(trainer), lightning_parts.batches_begun(trainer)
        if done != (batch_idx, trainer.current_epoch * BATCHES + batch_idx + 1):
            raise CountError(done)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *rest: Any) -> None:
        lightning_parts.end_restart(trainer)
        if (done := lightning_parts.batches_done(trainer)) != rest[-1] + 1:
            raise CountError(done)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        lightning_parts.forget_unstarted_batch(checkpoint)


def train(path: Path, stop: tuple[int, int] | None, resume: tuple[int, int] | None, **options: Any) -> list[Event]:
    """What happens in a training of two epochs, or in the part before `stop`, or from `resume` on."""
    events: list[Event] = []
    trainer = Trainer(
        logger=Rows(events), callbacks=[Saves(events, path, stop)], log_every_n_steps=1, accelerator="cpu",
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
        **options,
    )  # fmt: skip
    loader = cast(Any, Batches(resume[1] if resume else 0))
    try:
        trainer.fit(Line(events), loader, cast(Any, Batches()), ckpt_path=path if resume else None)
    except StoppedError:
        assert stop is not None
    return events


LENGTHS = {"epochs": {"max_epochs": 2}, "steps": {"max_epochs": -1, "max_steps": 2 * BATCHES}}
STOPS = [(1, 0), (1, 1)]


@pytest.mark.parametrize("stop", STOPS)
@pytest.mark.parametrize("length", LENGTHS)
def test_a_training_that_is_saved_between_two_batches_resumes_there(
    length: str, stop: tuple[int, int], tmp_path: Path
) -> None:
    path = tmp_path / "last.ckpt"
    whole = train(path, None, None, **LENGTHS[length])
    pieces = train(path, stop, None, **LENGTHS[length]) + train(path, None, stop, **LENGTHS[length])
    assert pieces == whole, "Lightning counts batches, epochs or steps otherwise: see internals/lightning.py"


NEEDED = [
    ("forget_unstarted_batch", "epochs", (1, 1)),
    ("start_epoch_anew", "steps", (1, 0)),
    ("end_restart", "epochs", (1, 1)),
    ("end_restart", "steps", (1, 1)),
]


@pytest.mark.parametrize(("function", "length", "stop"), NEEDED)
def test_without_the_private_parts_it_would_not(
    function: str, length: str, stop: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "last.ckpt"
    whole = train(path, None, None, **LENGTHS[length])
    monkeypatch.setattr(lightning_parts, function, lambda *_: None)
    try:
        pieces = train(path, stop, None, **LENGTHS[length]) + train(path, None, stop, **LENGTHS[length])
    except CountError:
        return
    assert pieces != whole, f"Lightning no longer needs {function}: remove it from internals/lightning.py"


QUIET: dict[str, Any] = {
    "accelerator": "cpu", "logger": False, "enable_checkpointing": False, "enable_progress_bar": False,
    "enable_model_summary": False,
}  # fmt: skip


class Looks(Callback):
    """Notes the number of training batches before and after they are loaded."""

    def __init__(self) -> None:
        self.found: list[float] = []

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.found.append(trainer.num_training_batches)
        lightning_parts.load_training_batches(trainer)
        self.found.append(trainer.num_training_batches)


def test_the_training_batches_can_be_counted_before_the_training_starts() -> None:
    looks, loaders = Looks(), cast(Any, (Batches(), Batches()))
    Trainer(max_epochs=1, callbacks=[looks], log_every_n_steps=1, **QUIET).fit(Line([]), *loaders)
    assert looks.found == [float("inf"), BATCHES], "Lightning loads training batches elsewhere than in setup_data"


def test_a_module_knows_its_trainer() -> None:
    module, trainer = Line([]), Trainer(**QUIET)
    assert lightning_parts.trainer_of(module) is None
    module.trainer = trainer
    assert lightning_parts.trainer_of(module) is trainer
    module = Line([])
    Fabric(accelerator="cpu").setup_module(module)
    assert lightning_parts.trainer_of(module) is None, "under Fabric a module has a Trainer now"


def test_a_trainer_knows_its_callbacks_and_how_often_it_logs() -> None:
    looks = Looks()
    trainer = Trainer(callbacks=[looks], log_every_n_steps=7, **QUIET)
    assert looks in lightning_parts.callbacks_of(trainer), "Trainer.callbacks is gone"
    assert lightning_parts.log_every_n_steps(trainer) == 7, "Trainer.log_every_n_steps is gone"
    events: list[Event] = []
    trainer = Trainer(max_epochs=2, log_every_n_steps=1, **{**QUIET, "logger": Rows(events)})
    lightning_parts.set_log_every_n_steps(trainer, 2)
    trainer.fit(Line(events), *cast(Any, (Batches(), Batches())))
    rows = [step for name, step in events if name == "row"]
    assert rows == [1, 3, 5], "Trainer.log_every_n_steps no longer says when rows are written"


def test_the_number_of_epochs_can_be_changed() -> None:
    trainer = Trainer(max_epochs=5, log_every_n_steps=1, **QUIET)
    lightning_parts.set_max_epochs(trainer, 1)
    trainer.fit(Line([]), *cast(Any, (Batches(), Batches())))
    assert (trainer.max_epochs, trainer.current_epoch) == (1, 1), "FitLoop.max_epochs no longer ends the training"


def test_lightning_can_be_told_which_process_this_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rank_zero_only, "rank", 0)
    calls: list[int] = []
    for rank in (1, 0):
        lightning_parts.set_rank(rank)
        rank_zero_only(calls.append)(rank)
    assert calls == [0], "Lightning no longer looks at rank_zero_only.rank"


# torch


class Sees(torch_parts.TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes the operations of a pass, and the names of their arguments."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen: dict[Any, dict[str, Any]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen[func.overloadpacket] = torch_parts.default_arguments(func)
        return func(*args, **(kwargs or {}))


@pytest.mark.filterwarnings("ignore:.*TorchDispatchMode:DeprecationWarning")
def test_torch_shows_the_operations_of_a_pass() -> None:
    with Sees() as mode, torch.no_grad():
        nn.Conv2d(1, 2, 3, stride=2)(torch.ones(1, 1, 4, 4)).to(torch.float64)
    aten = torch.ops.aten
    assert {aten.convolution, torch_parts.CAST} <= mode.seen.keys(), "TorchDispatchMode no longer sees operations"
    arguments = mode.seen[aten.convolution]
    assert list(arguments)[:4] == ["input", "weight", "bias", "stride"], "operations no longer name their arguments"
    assert mode.seen[torch_parts.CAST]["dtype"] is None, "operations no longer have the defaults of their arguments"


def test_torch_tells_a_tensor_that_stands_for_several() -> None:
    found: list[bool] = []

    def look(one: Tensor) -> Tensor:
        found.append(torch_parts.is_batched(one))
        return one

    torch.func.vmap(look)(torch.ones(2))
    look(torch.ones(2))
    assert found == [True, False], "is_batchedtensor means something else now"


def test_torch_knows_the_instructions_of_this_cpu() -> None:
    flags = Path("/proc/cpuinfo")
    text = flags.read_text() if flags.is_file() else ""
    if "avx2" not in text:
        pytest.skip("needs an x86 CPU under Linux")
    assert torch_parts.has_int8() == ("avx512_vnni" in text), "torch names the instructions of bytes otherwise"
    assert torch_parts.has_bfloat16() == ("avx512_bf16" in text or "amx_tile" in text), "the same for bfloat16"


def test_the_product_of_bytes_does_not_overflow() -> None:
    a, b = torch.full((32, 64), 127, dtype=torch.int8), torch.full((64, 32), -128, dtype=torch.int8)
    expected = torch.full((32, 32), -127 * 128 * 64, dtype=torch.int32)
    assert torch.equal(torch_parts.int8_product(a, b), expected), "torch._int_mm no longer gives int32"


class Sum(torch_parts.KeepsDtype):
    """A sum that is float64."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("total", torch.zeros((), dtype=torch.float64))


def test_a_module_within_a_model_keeps_its_dtype_and_moves_with_it() -> None:
    model = nn.Sequential(nn.Linear(1, 1), Sum())
    assert model.to(torch.bfloat16)[1].total.dtype is torch.float64, "Module._apply no longer casts"
    assert model[0].weight.dtype is torch.bfloat16
    assert model.to("meta")[1].total.is_meta, "Module._apply no longer moves"


def test_names_that_are_the_models_own_are_kept() -> None:
    tensors = {f"{prefix}fc.{name}": torch.ones(1) for prefix in ("", "module.") for name in ("weight", "bias")}
    assert torch_parts.under_names(tensors.keys(), tensors) is tensors
    some = {"module.fc.weight": torch.ones(1), "orig_mod.b": torch.ones(1)}
    assert [*torch_parts.under_names(["fc.weight", "b"], some)] == ["fc.weight", "orig_mod.b"]
    assert [*torch_parts.under_names(tensors.keys(), {"_orig_mod.fc.weight": torch.ones(1)})] == ["_orig_mod.fc.weight"]


LISTS = sorted(name for name in vars(torch_parts) if name.startswith("foreach_"))
MORE = {"addcdiv_": 2, "addcmul": 2, "addcmul_": 2, "lerp": 2, "lerp_": 2, "neg": 0, "reciprocal": 0, "sqrt": 0}
"""Tensors that an operation takes beside the first; the others take one."""


@pytest.mark.parametrize("name", LISTS)
def test_an_operation_on_lists_is_that_on_each_tensor(name: str) -> None:
    operation = name.removeprefix("foreach_")
    lists = [[torch.rand(3) + 1, torch.rand(2) + 1] for _ in range(1 + MORE.get(operation, 1))]
    if operation.startswith("lerp"):
        lists[2] = [each / 2 for each in lists[2]]
    expected = [getattr(torch.Tensor, operation)(first.clone(), *rest) for first, *rest in zip(*lists, strict=True)]
    found = getattr(torch_parts, name)(*lists)
    found = lists[0] if operation.endswith("_") else found
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True)), f"torch._{name} is another operation"


def test_a_checkpoint_callback_resumes_in_a_folder_that_was_moved(tmp_path: Path) -> None:
    state = lightning_parts.MovableCheckpoint(tmp_path / "old", "best", monitor="x").state_dict()
    score = torch.tensor(0.5)
    best = f"{tmp_path}/old/best.ckpt"
    state |= {
        "best_model_path": best,
        "best_k_models": {best: score},
        "best_model_score": score,
        "current_score": score,
    }
    callback = lightning_parts.MovableCheckpoint(tmp_path / "new", "best", monitor="x")
    callback.load_state_dict(state)
    assert callback.best_model_path == f"{tmp_path}/new/best.ckpt", "Lightning no longer takes over the best file"
    assert callback.best_k_models == {f"{tmp_path}/new/best.ckpt": score}
    assert callback.current_score == score, "ModelCheckpoint has another name for its last score"


def test_a_mode_that_sees_operations_is_noticed() -> None:
    with torch.device("cpu"):  # a mode, too, but one that only chooses where tensors are made
        assert not torch_parts.is_recorded()
    with FakeTensorMode():
        assert torch_parts.is_recorded()
    assert not torch_parts.is_recorded()
