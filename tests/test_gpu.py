"""What only a GPU can show: a training there, from the first batch to the published file."""

import json
from pathlib import Path

import pytest
import torch

from cvcc_zoo import load
from cvcc_zoo.__main__ import main
from tests.conftest import MakeFolder

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
    pytest.mark.filterwarnings("default"),  # the compiler wakes the deprecations of what is imported
]
QUIET = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("model", ["cnn_fast", "resnet20"])
def test_a_training_with_everything_that_is_set_from_images(
    model: str, compiled: bool, make_folder: MakeFolder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Whitening, patches, sizes and augmentation, then going on, evaluation and publication."""
    monkeypatch.setenv("CVCC_ZOO_HOME", str(tmp_path / "home"))
    data = ["--data.dataset=folder", f"--data.root={make_folder(size=32)}", "--data.batch_size=8"]
    words = [f"--model={model}", "--trainer.max_epochs=3", "--run=run"]
    words += ["--data.progressive_resizing={16: 0.3}", "--data.progressive_cropping={24: 0.3}"]
    words += ["--data.augmentations=strong", "--optimizer=Muon", "--lr_scheduler=Linear"]
    words += ["--model.patch_whitening=0.0005"] if model == "cnn_fast" else ["--model.init=lsuv"]
    words += ["--trainer.callbacks+=Compile"] if compiled else []
    assert main(["fit", *data, *words, "--trainer.precision=bf16-mixed", *QUIET]) == 0
    summary = json.loads(Path("run/summary.json").read_text())
    assert summary["hardware"] == torch.cuda.get_device_name() and summary["epochs"] == 3
    more = ["fit", "--config=run/config.yaml", "--ckpt_path=last", "--trainer.max_epochs=4", "--allow_changes=true"]
    assert main([*more, *QUIET]) == 0
    assert all(tensor.isfinite().all() for tensor in load("run").state_dict().values())
    assert main(["publish", "run", "--tag=pets"]) == 0
    assert main(["evaluate", f"{model}.pets", *data]) == 0


def test_ridge_is_solved_on_a_gpu_too(make_folder: MakeFolder) -> None:
    data = ["--data.dataset=folder", f"--data.root={make_folder(size=16)}", "--data.augmentations=none"]
    for accelerator in ("cpu", "gpu"):
        more = ["--model=ridge", f"--trainer.accelerator={accelerator}", f"--run={accelerator}", *QUIET]
        assert main(["fit", *data, *more]) == 0
    here, there = (load(run).state_dict()["network.fc.weight"] for run in ("cpu", "gpu"))
    assert torch.allclose(here, there, atol=1e-6)
