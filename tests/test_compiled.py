"""Compile: only the training is compiled, and what is compiled has the gradients of what is not."""

import copy
import functools
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from lightning import Trainer
from lightning.pytorch.callbacks import LambdaCallback
from lightning_utilities.core.imports import RequirementCache
from torch import Tensor
from torch._dynamo.testing import CompileCounter

import cvcc_zoo
from cvcc_zoo.runs import Compile

QUIET: dict[str, Any] = {
    "accelerator": "cpu", "logger": False, "enable_checkpointing": False, "enable_progress_bar": False,
    "enable_model_summary": False, "use_distributed_sampler": False,
}  # fmt: skip


class FakeCompiler:
    """In place of torch.compile: what it was asked for, and which calls came through what it made."""

    def __init__(self, fails_at: int | None = None) -> None:
        self.options: list[dict[str, Any]] = []
        self.training: list[bool] = []
        self.fails_at = fails_at

    def __call__(self, forward: Callable[[Tensor], Tensor], **options: Any) -> Callable[[Tensor], Tensor]:
        self.options.append(options)

        def compiled(x: Tensor) -> Tensor:
            self.training.append(torch.is_grad_enabled())
            if len(self.training) == self.fails_at:
                raise RuntimeError("no compiler")
            return forward(x)

        return compiled


def failing(*_: Any) -> None:
    raise RuntimeError("stop")


def parts(colours: Path) -> tuple[cvcc_zoo.FCNN, cvcc_zoo.ImageDataModule]:
    data = cvcc_zoo.ImageDataModule("folder", root=str(colours), batch_size=4, validation=0.2)
    return cvcc_zoo.FCNN(hidden=(8,), num_classes=2, image_size=8), data


@pytest.mark.parametrize("mode", [None, "max-autotune"])
def test_only_training_batches_are_compiled(colours: Path, monkeypatch: pytest.MonkeyPatch, mode: str | None) -> None:
    compiler = FakeCompiler()
    monkeypatch.setattr(torch, "compile", compiler)
    model, data = parts(colours)
    trainer = Trainer(max_epochs=3, val_check_interval=2, callbacks=[Compile(mode)], **QUIET)
    trainer.fit(model, data)
    assert compiler.options == [{"mode": mode or "default", "dynamic": False}]
    assert compiler.training == [True] * trainer.global_step and trainer.global_step == 3 * len(data.train_dataloader())
    trainer.test(model, data)
    assert len(compiler.training) == trainer.global_step and "forward" not in vars(model.network)


def test_a_training_that_fails_leaves_the_network_as_it_was(colours: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", FakeCompiler(fails_at=3))
    model, data = parts(colours)
    with pytest.raises(RuntimeError, match="no compiler"):
        Trainer(max_epochs=1, callbacks=[Compile()], **QUIET).fit(model, data)
    assert "forward" not in vars(model.network)


def test_a_forward_that_was_set_on_the_network_comes_back(colours: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = FakeCompiler()
    monkeypatch.setattr(torch, "compile", compiler)
    model, data = parts(colours)
    whole, calls = model.network.forward, []

    def mine(x: Tensor) -> Tensor:
        calls.append(torch.is_grad_enabled())
        found: Tensor = whole(x)
        return found

    model.network.forward = mine
    Trainer(max_epochs=1, callbacks=[Compile()], **QUIET).fit(model, data)
    assert vars(model.network)["forward"] is mine and calls.count(True) == len(compiler.training)
    assert calls.count(False) > 0


def test_weights_have_the_names_of_the_network_that_was_compiled(colours: Path, tmp_path: Path) -> None:
    (model, data), (other, _) = parts(colours), parts(colours)
    plain, compiled = model.network, functools.partial[Any](torch.compile, backend="eager")
    model.network = compiled(plain)
    trainer = Trainer(max_epochs=0, **QUIET)
    trainer.fit(model, data)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    state = model.state_dict()
    assert any("_orig_mod" in name for name in state)
    for module in (cvcc_zoo.load(tmp_path / "a.ckpt"), compiled(model)):
        other.load_state_dict(module.state_dict())
        assert all(torch.equal(tensor, plain.state_dict()[name]) for name, tensor in other.network.state_dict().items())
    model.load_state_dict(other.state_dict())
    assert model.state_dict().keys() == state.keys()


def test_an_unknown_mode_is_answered_with_the_nearest() -> None:
    with pytest.raises(ValueError, match="max-autotune"):
        Compile("max-autotun")


@pytest.mark.filterwarnings("default")  # the compiler looks at whatever is imported, and wakes deprecations of others
@pytest.mark.parametrize("fails", [False, True])
def test_all_networks_that_are_trained_in_a_process_are_compiled(
    colours: Path, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    """Torch compiles code at most `recompile_limit` times, and all networks share that of `Network.forward`."""
    torch.compiler.reset()  # what other tests compiled
    counter = CompileCounter()
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=counter))
    frames = []
    with torch._dynamo.config.patch(recompile_limit=1):
        for _ in range(3):
            model, data = parts(colours)
            stop = LambdaCallback(on_train_batch_end=failing if fails else None)
            with pytest.raises(RuntimeError, match="stop") if fails else nullcontext():
                Trainer(max_steps=1, limit_val_batches=0, callbacks=[Compile(), stop], **QUIET).fit(model, data)
            frames.append(counter.frame_count)
    assert 0 < frames[0] < frames[1] < frames[2]


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # the compiler looks at whatever is imported, and wakes deprecations of others
@pytest.mark.parametrize("name", ["cnn_fast", "cnn", "resnet20", "wrn16_4", "resnext20_16x4d"])
def test_compiled_gradients_in_bfloat16_are_those_without(name: str) -> None:
    """As near to those in float32; a maximum that is computed twice can give NaN."""
    torch.manual_seed(0)
    images, labels = torch.randn(16, 3, 32, 32), torch.arange(16) % 10
    network = cvcc_zoo.create(name).network.to(memory_format=torch.channels_last).train()

    def gradients(run: Callable[[Tensor], Tensor], *, half: bool = True) -> Tensor:
        network.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            loss = F.cross_entropy(run(images), labels)
        torch.autograd.backward(loss)
        return torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None])

    exact, without = gradients(network, half=False), gradients(network)
    compiled = gradients(torch.compile(network.forward, dynamic=False))
    assert compiled.isfinite().all()
    near, nearer = (F.cosine_similarity(exact, each, dim=0) for each in (compiled, without))
    assert nearer > 0.9 and near > nearer - 0.02


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_a_model_that_torch_compiled_is_tested_with_the_same_numbers(
    colours: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As in a process that has counted no confusion matrix yet:
    monkeypatch.setattr("torchmetrics.utilities.data._XLA_AVAILABLE", RequirementCache("torch_xla"))
    model, data = parts(colours)
    Trainer(max_epochs=1, **QUIET).fit(model, data)
    compiled: Any = torch.compile(copy.deepcopy(model), backend="eager")
    found = Trainer(**QUIET).test(compiled, data, verbose=False)
    assert found[0] == pytest.approx(Trainer(**QUIET).test(model, data, verbose=False)[0])
