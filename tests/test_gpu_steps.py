"""What only a GPU can show about the steps of a training: what they wait for, whether they repeat, what they keep."""

import copy
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Callback, LightningModule, Trainer
from torch._dynamo.utils import counters

from cvcc_zoo import create
from cvcc_zoo.classifier import ImageClassifier
from cvcc_zoo.data import ImageDataModule
from cvcc_zoo.runs import EMA, Compile, StepGraph

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
    pytest.mark.filterwarnings("default"),  # the compiler wakes the deprecations of what is imported
]
NETWORKS = ("linear", "fcnn", "cnn_small", "cnn_fast", "resnet20", "resnext29_32x4d", "wrn16_4")
LOSS = {"loss": {"name": "focal", "class_weights": [1.0] * 9 + [3.0], "l2": 1e-4}}


def trained(
    name: str,
    *callbacks: Callback,
    batches: int = 10,
    options: dict[str, Any] | None = None,
    data: dict[str, Any] | None = None,
    ckpt_path: Path | None = None,
    **trainer: Any,
) -> ImageClassifier:
    """The network after its training on the images of the package, in full batches of 32."""
    torch.manual_seed(0)
    images = ImageDataModule("fashion-mini", batch_size=32, **(data or {}))
    model = create(name, num_classes=10, in_channels=1, image_size=images.image_size, **(options or {}))
    how: dict[str, Any] = {"accelerator": "gpu", "devices": 1, "max_epochs": 1, "logger": False}
    how |= {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    how |= {"limit_train_batches": batches, "limit_val_batches": 1, "log_every_n_steps": 1000}
    Trainer(callbacks=list(callbacks), **how | trainer).fit(model, images, ckpt_path=ckpt_path)
    return model


class Waits(Callback):
    """Has torch warn of whatever waits for the GPU between the first batches and the end of the epoch."""

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if batch_idx >= 6:  # graphs are recorded and kernels chosen before
            torch.cuda.set_sync_debug_mode("warn")

    def on_train_batch_end(self, *given: Any, **named: Any) -> None:
        torch.cuda.set_sync_debug_mode("default")


CASES: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: (name, {}) for name in NETWORKS},
    "weighted loss": ("cnn_small", {"options": LOSS, "gradient_clip_val": 1.0}),
    "strong augmentation": ("cnn_small", {"data": {"augmentations": "strong"}}),
    "MixUp": ("cnn_small", {"data": {"augmentations": ["standard", "MixUp"]}}),
}


@pytest.mark.parametrize("graph", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_a_step_does_not_wait_for_the_gpu(case: str, graph: bool) -> None:
    name, options = CASES[case]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trained(name, Waits(), EMA(), *([StepGraph()] if graph else []), precision="bf16-mixed", **options)
    waits = {f"{warning.filename}:{warning.lineno}" for warning in caught if "synchronizing" in str(warning.message)}
    assert not waits


@pytest.mark.parametrize("name", NETWORKS)
def test_every_family_has_deterministic_kernels(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    try:
        first, second = (trained(name, batches=3, deterministic=True).state_dict() for _ in range(2))
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_a_training_with_averages_goes_on_and_a_cpu_agrees_with_its_result(tmp_path: Path) -> None:
    where: dict[str, Any] = {"enable_checkpointing": True, "default_root_dir": tmp_path}
    trained("cnn_small", EMA(), **where)
    [checkpoint] = tmp_path.rglob("*.ckpt")
    model = trained("cnn_small", EMA(), **where, max_epochs=2, ckpt_path=checkpoint).eval()
    images = torch.randint(256, (8, 1, 28, 28), dtype=torch.uint8)
    with torch.inference_mode():
        here, there = copy.deepcopy(model).cpu()(images), model.cuda()(images.cuda()).cpu()
    torch.testing.assert_close(here, there, rtol=0.01, atol=0.01)


def test_each_of_ten_networks_in_turn_is_compiled() -> None:
    """Torch compiles one function at most eight times, unless it is reset."""
    torch.compiler.reset()
    for classes in range(10, 20):
        model, compiled = create("linear", num_classes=classes).cuda(), Compile()
        compiled.on_train_start(None, model)  # type: ignore[arg-type]
        before = counters["stats"]["unique_graphs"]
        model.network(torch.rand(4, 3, 32, 32, device="cuda"))
        assert counters["stats"]["unique_graphs"] > before
        compiled.on_train_end(None, model)  # type: ignore[arg-type]


@pytest.mark.parametrize("graph", [False, True])
def test_memory_does_not_grow_from_epoch_to_epoch(graph: bool) -> None:
    kept: list[int] = []

    class Watch(Callback):
        def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
            kept.append(torch.cuda.memory_allocated())

    trained("cnn_small", Watch(), EMA(), *([StepGraph()] if graph else []), max_epochs=4)
    assert len(kept) == 4 and kept[-1] <= kept[1]
