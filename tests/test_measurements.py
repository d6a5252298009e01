"""Measurements refuse at once what they cannot do, and treat both sides alike."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from benchmarks import data, gpu_steps, inference, network_share, rates, run, training
from benchmarks.measure import machine, name_of, training_pass
from benchmarks.sides import BARE, Ended, Settings
from cvcc_zoo import ImageDataModule, create
from cvcc_zoo.cli.lightning import build
from cvcc_zoo.runs.scores import scores
from tests.conftest import MakeFolder


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("options", [[], ["--small"], ["--ways", "ordinary"]])
def test_steps_on_a_gpu_without_one_are_refused(
    options: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_steps, "network_alone", lambda *args: pytest.fail("measures"))
    with pytest.raises(SystemExit):
        gpu_steps.main(options)
    assert "gpu_steps needs a GPU that torch can use; add --small --ways ordinary" in capsys.readouterr().err


def test_a_new_folder_of_results_is_created_before_anything_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bool] = []
    docs, numbers = tmp_path / "new" / "docs", tmp_path / "other" / "numbers.json"
    monkeypatch.setattr(run, "measure_all", lambda *args: seen.append(docs.is_dir() and numbers.parent.is_dir()))
    assert run.main(["--only=startup", f"--docs={docs}", f"--json={numbers}"]) == 0
    assert seen == [True] and not list(docs.iterdir())


def test_a_folder_that_cannot_be_written_is_refused_before_anything_is_measured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if not Path("/proc/self").is_dir():
        pytest.skip("needs a folder in which even root cannot write")
    monkeypatch.setattr(run, "measure_all", lambda *args: pytest.fail("measures"))
    with pytest.raises(SystemExit):
        run.main(["--only=startup", "--docs=/proc/self"])
    assert "cannot write to /proc/self (" in capsys.readouterr().err


def test_the_usual_script_trains_on_as_many_images_as_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, ...]] = []

    def usual(settings: Settings, *options: str, **script: Any) -> Ended:
        seen.append(options)
        for option in options:
            if option.startswith("--steady="):
                Path(option.partition("=")[2]).write_text("2.0")
        return Ended(4.0, 1.0, "")

    monkeypatch.setattr(rates, "usual", usual)
    monkeypatch.setattr(training, "usual", usual)
    monkeypatch.setattr(training, "fit", lambda *args: Ended(4.0, 1.0, ""))
    settings = Settings("fashion-mini", None, 1, 1)
    found = rates.theirs(settings, "linear", rates.length(6_000, 12_000, 128))
    assert found.whole == 2 * 46 * 128 / 4.0 and "--batches=46" in seen.pop()
    training.measure(settings)
    limits = [option for options in seen for option in options if option.startswith("--batches=")]
    assert limits == ["--batches=46"] * 5 + ["--batches=20"]


@pytest.mark.slow
def test_a_process_that_dies_ends_the_measurement() -> None:
    with pytest.raises(RuntimeError, match="a process that evaluates nothing has died; its error stands above"):
        inference.evaluation("nothing", Settings("fashion-mini", None, 1, 1))
    with pytest.raises(ValueError, match="not enough values to unpack"):
        data.zca("nothing", torch.zeros(2, 1, 2, 2, dtype=torch.uint8), {})


def test_processors_of_one_name_are_told_apart_by_their_instructions(monkeypatch: pytest.MonkeyPatch) -> None:
    for instructions in ("AVX2", "AVX512"):
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda found=instructions: found)
        assert f" ({instructions}), {torch.get_num_threads()} thread" in name_of("cpu")
        assert machine().startswith(name_of("cpu")) and f"torch {torch.__version__}" in machine()
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "DEFAULT")  # an ARM processor
    assert "DEFAULT" not in name_of("cpu")


def test_weights_are_published_for_the_classes_of_the_images_or_random(make_folder: MakeFolder) -> None:
    classes = create("resnet20.cifar10").classes
    assert classes is not None
    for names, published in [(classes, True), ([f"class{number}" for number in range(10)], False)]:
        images = ImageDataModule("folder", str(make_folder(names[0], size=32, classes=names)))
        model = inference.model_of("resnet20", images)
        assert (model.classes is not None) == published and not model.training
        assert len(scores(model, images)[1]) == 60


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_both_sides_of_the_networks_share_have_images_of_one_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes: list[tuple[int, ...]] = []

    def fit(settings: Settings, *options: str) -> Ended:
        trained = build([*options, *settings.options(), *BARE, "--trainer.accelerator=cpu"]).datamodule
        shapes.append((trained.in_channels, trained.image_size, trained.image_size))
        return Ended(1.0, 1.0, "", {"train_seconds": 1.0})

    def alone(network: nn.Module, images: torch.Tensor, **options: Any) -> Any:
        shapes.append(tuple(images.shape[1:]))
        return training_pass(network, images[:2], **options)

    monkeypatch.setattr(network_share, "fit", fit)
    monkeypatch.setattr(network_share, "training_pass", alone)
    network_share.measure(Settings("fashion-mini", None, 1, 1, small=True))
    assert shapes == [(3, 32, 32)] * 3
