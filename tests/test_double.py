"""A training in float64 is in float64 from its first step to the last user of its weights."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Trainer

from cvcc_zoo import ImageDataModule, create, load
from cvcc_zoo.__main__ import main
from cvcc_zoo.export.program import export
from cvcc_zoo.runs import RunFolder
from cvcc_zoo.runs.metrics_file import read_metrics
from cvcc_zoo.zoo.trained import find_trained
from tests.conftest import Fit

MORE = ["--model=fcnn", "--model.hidden=[4]", "--trainer.precision=64-true", "--data.batch_size=16"]
MORE += ["--data.validation=0", "--trainer.log_every_n_steps=1", "--trainer.max_epochs=2"]
AVERAGED = ["--trainer.callbacks+=cvcc_zoo.runs.EMA", "--data.validation=0.2"]


@pytest.fixture
def run(fit: Fit) -> Path:
    assert fit(*MORE, "--run=whole") == 0
    return Path("whole")


def test_a_training_in_float64_goes_on_with_all_digits(run: Path, fit: Fit, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed_here(run: RunFolder, trainer: Trainer, *args: Any) -> None:
        if trainer.current_epoch == 1:
            raise RuntimeError("killed")
        run.images += 16

    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="killed"):
        patch.setattr(RunFolder, "on_train_batch_end", killed_here)
        fit(*MORE, "--run=killed")
    assert main(["fit", "--config=killed/config.yaml", "--ckpt_path=last", "--trainer.enable_progress_bar=false"]) == 0
    whole, killed = (torch.load(f"{name}/last.ckpt", weights_only=True)["state_dict"] for name in ("whole", "killed"))
    assert all(torch.equal(whole[name], killed[name]) for name in whole)
    assert Path("whole/metrics.csv").read_text() == Path("killed/metrics.csv").read_text()


def test_weights_in_float64_keep_their_digits_wherever_they_are_loaded(
    run: Path, fit: Fit, capsys: pytest.CaptureFixture[str]
) -> None:
    images = torch.randint(256, (64, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    saved = torch.load(run / "last.ckpt", weights_only=True)["state_dict"]
    model = load(run)
    assert all(torch.equal(tensor, saved[name]) for name, tensor in model.state_dict().items())
    assert model(images).dtype == torch.float64
    start = ["--trainer.limit_train_batches=1", "--optimizer=SGD", "--optimizer.lr=0", "--weights=whole"]
    for precision, dtype in (("64-true", torch.float64), ("32-true", torch.float32)):  # what was chosen holds
        assert fit(*MORE, *start, f"--trainer.precision={precision}", f"--run={precision}", "--test=false") == 0
        weight = load(precision).state_dict()["network.fc.weight"]
        assert weight.dtype == dtype and torch.equal(weight, saved["network.fc.weight"].to(dtype))
    capsys.readouterr()
    assert main(["evaluate", "whole"]) == 0 and "of 12 images correct" in capsys.readouterr().out
    agreement = export(find_trained("whole"), Path("whole.pt2"), "torch_export", images)
    assert agreement.same_classes


@pytest.mark.parametrize(
    ("precision", "dtype", "more"),
    [("32-true", torch.float32, []), ("bf16-true", torch.bfloat16, AVERAGED)],
)
def test_a_training_in_float64_goes_on_in_the_precision_that_is_chosen(
    precision: str, dtype: torch.dtype, more: list[str], fit: Fit
) -> None:
    assert fit(*MORE, *more, "--run=whole") == 0
    on = ["--ckpt_path=whole/last.ckpt", f"--trainer.precision={precision}", "--trainer.max_epochs=3", "--run=new"]
    assert fit(*MORE, *more, *on, "--allow_changes=true") == 0
    saved = torch.load("new/last.ckpt", weights_only=True)["state_dict"]
    assert {tensor.dtype for tensor in saved.values() if tensor.is_floating_point()} == {dtype}
    assert json.loads(Path("new/summary.json").read_text())["precision"] == f"64-true; then {precision}"


@pytest.mark.parametrize(
    ("dtype", "options"),
    [
        (torch.float64, {}),
        (torch.bfloat16, {}),
        (torch.float64, {"features": [{"name": "PCA", "components": 0.5}, "Standardize"]}),
    ],
)
def test_what_a_model_learns_of_its_images_has_its_precision(dtype: torch.dtype, options: dict[str, Any]) -> None:
    model = create("linear", in_channels=1, image_size=8, **options).to(dtype)
    trainer = Trainer(
        max_steps=1, limit_val_batches=0, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, log_every_n_steps=1, accelerator="cpu",
    )  # fmt: skip
    trainer.fit(model, ImageDataModule(image_size=8))
    model.use_whitening("pca")
    assert {tensor.dtype for tensor in model.state_dict().values()} == {dtype}


@pytest.mark.parametrize("precision", ["64-true", "32-true"])
def test_a_test_of_weights_in_float64_gives_their_numbers(
    run: Path, precision: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where the precision was not said: a checkpoint alone has no options."""
    asked = ["--run=whole"] if precision == "64-true" else ["--ckpt_path=whole/last.ckpt", "--data.dataset=folder"]
    more = [] if precision == "64-true" else ["--data.root=colours", "--trainer.accelerator=cpu"]
    capsys.readouterr()
    assert main(["test", *asked, *more]) == 0
    loss = read_metrics(Path("whole/metrics.csv"))["test/loss"][1][-1]
    assert f"{loss:.7f}" in capsys.readouterr().out
