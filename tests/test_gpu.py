"""What only a GPU can show: a training there, from the first batch to the published file."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from lightning import Callback, Trainer
from lightning.pytorch.callbacks import LambdaCallback

from cvcc_zoo import create, load
from cvcc_zoo.__main__ import main
from cvcc_zoo.data import ImageDataModule, Whitening
from cvcc_zoo.optim import Muon
from cvcc_zoo.runs import EMA, OptimizerMonitor, StepGraph
from cvcc_zoo.runs.recording import CudaGraphs, Step
from tests.conftest import MakeFolder

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
    pytest.mark.filterwarnings("default"),  # the compiler wakes the deprecations of what is imported
]
QUIET = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]


@pytest.fixture(autouse=True)
def nothing_compiled() -> None:
    """Torch compiles a function at most eight times."""
    torch.compiler.reset()


@pytest.mark.parametrize("callbacks", [(), ("Compile",), ("StepGraph",), ("Compile", "StepGraph")])
@pytest.mark.parametrize("model", ["cnn_fast", "resnet20"])
def test_a_training_with_everything_that_is_set_from_images(
    model: str, callbacks: tuple[str, ...], make_folder: MakeFolder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Whitening, patches, sizes and augmentation, then going on, evaluation and publication."""
    monkeypatch.setenv("CVCC_ZOO_HOME", str(tmp_path / "home"))
    data = ["--data.dataset=folder", f"--data.root={make_folder(size=32)}", "--data.batch_size=8"]
    words = [f"--model={model}", "--trainer.max_epochs=3", "--run=run"]
    words += ["--data.progressive_resizing={16: 0.3}", "--data.progressive_cropping={24: 0.3}"]
    words += ["--data.augmentations=strong", "--optimizer=Muon", "--lr_scheduler=Linear"]
    words += ["--model.patch_whitening=0.0005"] if model == "cnn_fast" else ["--model.init=lsuv"]
    words += [f"--trainer.callbacks+={name}" for name in callbacks]
    assert main(["fit", *data, *words, "--trainer.precision=bf16-mixed", *QUIET]) == 0
    summary = json.loads(Path("run/summary.json").read_text())
    assert summary["hardware"] == torch.cuda.get_device_name() and summary["epochs"] == 3
    more = ["fit", "--config=run/config.yaml", "--ckpt_path=last", "--trainer.max_epochs=4", "--allow_changes=true"]
    assert main([*more, *QUIET]) == 0
    assert all(tensor.isfinite().all() for tensor in load("run").state_dict().values())
    assert main(["publish", "run", "--tag=pets"]) == 0
    assert main(["evaluate", f"{model}.pets", *data]) == 0


@pytest.mark.parametrize("options", [{}, {"unit_norm": True}, {"weight_decay": 0.1}])
def test_muon_does_the_same_from_a_graph(options: dict[str, Any]) -> None:
    """Several matrices of one shape, one alone, high ones; the graph is there from the third step on."""
    shapes = [(16, 8, 3, 3), (16, 8, 3, 3), (64, 16), (12, 40, 1, 1)]
    torch.manual_seed(0)
    begin = [torch.randn(shape, device="cuda") for shape in shapes]
    rounds = [[torch.randn_like(p) for p in begin] for _ in range(5)]

    def trained(largest: int, monkeypatch: pytest.MonkeyPatch) -> tuple[list[torch.Tensor], Muon]:
        monkeypatch.setattr("cvcc_zoo.optim.replay.LARGEST", largest)
        params = [p.clone().requires_grad_() for p in begin]
        optimizer = Muon(params, lr=0.1, **options)
        for grads in rounds:
            for p, g in zip(params, grads, strict=True):
                p.grad = g.clone()
            optimizer.step()
        return params, optimizer

    with pytest.MonkeyPatch.context() as monkeypatch:
        eager, without = trained(0, monkeypatch)
        replayed, with_graph = trained(2**23, monkeypatch)
    assert not without._replay._graphs and len(with_graph._replay._graphs) == 1
    assert all(torch.equal(a, b) for a, b in zip(eager, replayed, strict=True))
    assert all(not torch.equal(a, b) for a, b in zip(begin, replayed, strict=True))
    again = copy.deepcopy(with_graph)
    again.load_state_dict(with_graph.state_dict())


EXACT = 2.0**-5  # a learning rate that is the same number in float32, as which a graph takes it
RUNS: dict[str, tuple[dict[str, Any], dict[str, Any], list[type[Callback]]]] = {
    "linear": ({"optimizer": {"name": "SGD", "lr": EXACT, "momentum": 0.9}}, {}, [EMA]),
    "fcnn": ({"optimizer": {"name": "AdamW", "lr": EXACT}, "hidden": (32, 16)}, {"gradient_clip_val": 1.0}, []),
    "resnet20": ({"optimizer": {"name": "SGD", "lr": EXACT}}, {"precision": "bf16-mixed"}, [OptimizerMonitor]),
    "cnn_fast": ({"optimizer": {"name": "Muon", "sgd_lr": 0.1}, "lr_scheduler": "Linear"}, {}, []),
    "cnn": ({"optimizer": "torch.optim.RMSprop", "lr_scheduler": "OneCycle"}, {}, []),
}


def trained(
    root: Path, accelerator: str, model: str, *callbacks: Callback, deterministic: Literal[True, "warn"] = "warn"
) -> tuple[list[torch.Tensor], float]:
    """The weights after three epochs, and the loss in the last one."""
    options, more, others = RUNS[model]
    torch.manual_seed(0)
    data = ImageDataModule("folder", str(root), batch_size=4, augmentations=["standard"], validation=0.2)
    made = create(model, num_classes=data.num_classes, image_size=data.image_size, **options)
    how: dict[str, Any] = {"max_epochs": 3, "logger": False, "enable_checkpointing": False, "devices": 1, **more}
    every = [*(each() for each in others), *callbacks]
    trainer = Trainer(accelerator=accelerator, deterministic=deterministic, callbacks=every, **how)
    try:
        trainer.fit(made, data)
    finally:
        torch.use_deterministic_algorithms(False)
    return [each.cpu() for each in made.state_dict().values()], float(trainer.callback_metrics["train/loss"])


@pytest.mark.parametrize("model", RUNS)
def test_a_training_from_graphs_of_steps_is_that_without(
    model: str, make_folder: MakeFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the bit with a fused optimizer and a rate that float32 holds; dropout has the same random numbers."""
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    root, recordings, record = make_folder(size=16), [0], CudaGraphs.record

    def counted(self: CudaGraphs, step: Step) -> tuple[Callable[[], None], torch.Tensor]:
        recordings[0] += 1
        return record(self, step)

    monkeypatch.setattr(CudaGraphs, "record", counted)
    (ordinary, loss), (replayed, its_loss) = (trained(root, "gpu", model, *each) for each in ([], [StepGraph()]))
    assert recordings == [1]
    exact = model not in ("cnn_fast", "cnn")
    assert its_loss == pytest.approx(loss, rel=0 if exact else 0.02)
    for a, b in zip(ordinary, replayed, strict=True):
        torch.testing.assert_close(a, b, **({"rtol": 0, "atol": 0} if exact else {"rtol": 0.05, "atol": 0.01}))


@pytest.mark.parametrize("model", RUNS)
def test_a_deterministic_training_gives_the_same_bits_twice(
    model: str, make_folder: MakeFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    root = make_folder(size=16)
    (first, loss), (second, its_loss) = (trained(root, "gpu", model, deterministic=True) for _ in range(2))
    assert loss == its_loss and all(map(torch.equal, first, second))


def test_whitening_is_fitted_on_images_on_a_gpu_as_on_those_on_a_cpu() -> None:
    images = torch.randint(256, (400, 3, 8, 8), dtype=torch.uint8)
    here, there = (Whitening("zca", 3, 8).fit(each) for each in (images, images.cuda()))
    assert torch.equal(here.matrix, there.matrix)


def test_batches_made_ahead_on_a_gpu_are_those_of_a_cpu(make_folder: MakeFolder) -> None:
    root = str(make_folder(size=16))
    epochs: list[list[tuple[torch.Tensor, ...]]] = []
    for accelerator in ("cpu", "gpu"):
        data = ImageDataModule("folder", root, batch_size=4, augmentations=["standard", "Cutout"], validation=0)
        model = create("linear", num_classes=data.num_classes, image_size=16)
        seen: list[tuple[torch.Tensor, ...]] = []
        watch = LambdaCallback(on_train_batch_start=lambda *given, seen=seen: seen.append(tuple(given[2])))
        trainer = Trainer(
            accelerator=accelerator, max_epochs=2, callbacks=[watch], logger=False, enable_checkpointing=False
        )
        trainer.fit(model, data)
        epochs.append(seen)
    assert all(image.is_cuda for image, _ in epochs[1]) and len(epochs[0]) == len(epochs[1]) > 4
    for here, there in zip(*epochs, strict=True):
        assert all(torch.equal(a, b.cpu()) for a, b in zip(here, there, strict=True))


def test_ridge_is_solved_on_a_gpu_too(make_folder: MakeFolder) -> None:
    data = ["--data.dataset=folder", f"--data.root={make_folder(size=16)}", "--data.augmentations=none"]
    for accelerator in ("cpu", "gpu"):
        more = ["--model=ridge", f"--trainer.accelerator={accelerator}", f"--run={accelerator}", *QUIET]
        assert main(["fit", *data, *more]) == 0
    here, there = (load(run).state_dict()["network.fc.weight"] for run in ("cpu", "gpu"))
    assert torch.allclose(here, there, atol=1e-6)
