"""Ridge regression in closed form: what a direct solution gives, in any order, chosen as one would by hand."""

import json
import warnings
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from lightning import Callback, Trainer
from lightning.pytorch.plugins import MixedPrecision

from cvcc_zoo import ImageDataModule, Linear, load
from cvcc_zoo.data.symmetric import add_gram, minus_128, mirror
from cvcc_zoo.linear import Frame, RidgePath, Sums, make_ridge, solve
from tests.conftest import Fit, message

COUNT, SIZE, CLASSES = 300, 20, 4


def problem(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Vectors with a mean far from 0 and variances from 1e-4 to 1e4, and labels."""
    torch.manual_seed(seed)
    x = torch.randn(COUNT, SIZE, dtype=torch.float64) @ torch.randn(SIZE, SIZE, dtype=torch.float64)
    return (x * 10 ** torch.linspace(-2, 2, SIZE) + 50).float(), torch.randint(CLASSES, (COUNT,))


def sums(x: torch.Tensor, labels: torch.Tensor, batch: int = 60) -> Sums:
    made = Sums(Frame.of(x[:batch]), CLASSES, len(x))
    for part, of_part in zip(torch.split(x, batch), torch.split(labels, batch), strict=True):
        made.add(part, of_part)
    return made


@pytest.mark.parametrize("ridge", [0.0, 0.3, 1000.0])
def test_the_weights_are_those_of_the_augmented_least_squares_problem(ridge: float) -> None:
    """[X; sqrt(lambda) I] W = [Y; 0] by a QR factorisation, with a column of ones that is not punished."""
    x, labels = problem()
    found = solve(sums(x, labels).whole(), ridge)
    rows = torch.cat([x.double(), torch.ones(COUNT, 1)], 1)
    extra = torch.cat([ridge**0.5 * torch.eye(SIZE), torch.zeros(SIZE, 1)], 1).double()
    target = torch.cat([F.one_hot(labels, CLASSES), torch.zeros(SIZE, CLASSES)]).double()
    expected = torch.linalg.lstsq(torch.cat([rows, extra]), target, driver="gelsd").solution
    torch.testing.assert_close(found.weights.T, expected[:-1], rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(found.intercept, expected[-1], rtol=1e-6, atol=1e-6)
    scores = x.double() @ found.weights.T + found.intercept
    torch.testing.assert_close(scores.sum(1), torch.ones(COUNT).double(), atol=1e-8, rtol=0)


def test_sums_are_the_same_bits_in_any_order_of_the_batches() -> None:
    x, labels = problem()
    frame = Frame.of(x[:60])
    batches = list(zip(torch.split(x, 60), torch.split(labels, 60), strict=True))
    found = []
    for order in ([0, 1, 2, 3, 4], [3, 1, 4, 0, 2]):
        made = Sums(frame, CLASSES, COUNT)
        for number in order:
            made.add(*batches[number])
        found.append(made.whole())
    assert torch.equal(found[0].gram, found[1].gram) and torch.equal(found[0].moment, found[1].moment)


def test_pixels_are_summed_up_exactly_however_they_are_cut() -> None:
    torch.manual_seed(0)
    x, labels = torch.randint(256, (COUNT, SIZE), dtype=torch.uint8), torch.randint(CLASSES, (COUNT,))
    one, other = sums(x, labels, 60).whole(), sums(x, labels, 7).whole()
    assert torch.equal(one.gram, other.gram) and torch.equal(one.moment, other.moment)
    centred = x.double() - x.double().mean(0)
    torch.testing.assert_close(one.gram, centred.T @ centred, rtol=1e-12, atol=1e-6)


def test_leave_one_out_is_what_training_without_each_image_gives() -> None:
    x, labels = problem()
    x, labels = x[:40], labels[:40]
    ridges = torch.tensor([0.1, 100.0], dtype=torch.float64)
    y = F.one_hot(labels, CLASSES).double()
    errors, right = RidgePath(sums(x, labels, 40).whole(), ridges).errors(x, y, left_out=True)
    for column, ridge in enumerate(ridges.tolist()):
        for image in (0, 7, 39):
            rest = torch.arange(40) != image
            without = solve(sums(x[rest], labels[rest], 39).whole(), ridge)
            scores = without.weights @ x[image].double() + without.intercept
            torch.testing.assert_close(errors[image, column], (scores - y[image]).square().sum(), rtol=1e-6, atol=1e-9)
            assert bool(right[image, column]) == (int(scores.argmax()) == int(labels[image]))


def test_a_singular_problem_has_the_smallest_solution() -> None:
    x, labels = problem()
    x = torch.cat([x[:, :5], x[:, :5]], 1)
    found = solve(sums(x, labels).whole(), 0.0)
    assert found.rank == 5
    torch.testing.assert_close(found.weights[:, :5], found.weights[:, 5:], rtol=1e-4, atol=1e-8)


def test_numbers_of_numpy_choose_it_too() -> None:
    assert make_ridge(np.float32(0.5)).value == 0.5  # type: ignore[arg-type]
    assert make_ridge({"name": "validation", "grid": [np.float32(2), 1]}).grid == (1.0, 2.0)


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        (-1, "must be at least 0"),
        (float("nan"), "must be at least 0"),
        ("loo", "no way to choose ridge named 'loo'"),
        (1j, "a way to choose ridge has a name, not 1j; known are"),
        ({"name": "validation", "grid": [0]}, "grid must be a list of numbers above 0"),
        ({"name": "validation", "gird": [1]}, "did you mean grid"),
    ],
)
def test_other_ways_to_choose_it_are_told(spec: object, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        make_ridge(spec)  # type: ignore[arg-type]


@pytest.mark.parametrize("choice", ["10", "leave_one_out", "validation"])
def test_it_runs_through_fit_and_is_an_ordinary_linear_model(fit: Fit, choice: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # 32 images: the best lambda may be at the end of the grid
        assert (
            fit("--model=ridge", f"--model.ridge={choice}", "--data.augmentations=none", "--data.validation=0.2",
                "--trainer.max_epochs=3", "--run=run") == 0
        )  # fmt: skip
    model = load("run")
    assert type(model).__name__ == "Linear" and bool(model.state_dict()["network.fc.weight"].abs().sum() > 0)
    assert "train/ridge" in Path("run/metrics.csv").read_text().splitlines()[0]
    assert json.loads(Path("run/summary.json").read_text())["test_accuracy"] >= 0.9


def solved(data: ImageDataModule, ridge: object, *callbacks: Callback, **options: Any) -> Linear:
    """A model of two classes, trained with options of the Trainer."""
    model = Linear(num_classes=2, in_channels=data.in_channels, image_size=8, ridge=ridge)  # type: ignore[arg-type]
    quiet: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    quiet |= {"enable_model_summary": False, "accelerator": "cpu", "max_epochs": 1}
    Trainer(callbacks=[*callbacks], **{**quiet, **options}).fit(model, data)
    return model


@pytest.mark.parametrize("limit", [2, 0.25])
def test_a_limited_training_solves_and_leaves_out_the_same_images_of_all_classes(
    limit: float, caplog: pytest.LogCaptureFixture
) -> None:
    torch.manual_seed(0)
    labels = torch.arange(2).repeat_interleave(200)  # class by class, as in a folder
    images = (torch.randint(120, (400, 1, 8, 8)) + 12 * labels[:, None, None, None]).to(torch.uint8)
    data = ImageDataModule(train=(images, labels), batch_size=50, validation=0, augmentations="none")
    grid = [10.0**power for power in range(-2, 6)]
    model = solved(data, {"name": "leave_one_out", "grid": grid}, limit_train_batches=limit)
    loader: Any = model.trainer.train_dataloader
    images, labels = (torch.cat(parts) for parts in zip(*islice(loader, 2), strict=True))
    assert len(labels) == 100 and set(labels.tolist()) == {0, 1}
    x = model.whitening(images).flatten(1)
    made = Sums(Frame.of(x), 2, 100)
    made.add(x, labels)
    equations = made.whole()
    path = RidgePath(equations, torch.tensor(grid, dtype=torch.float64))
    errors = path.errors(x, F.one_hot(labels, 2), left_out=True)[0].mean(0)
    best = int(errors.argmin())
    assert model.solver is not None and model.solver.found["ridge"] == grid[best]
    assert f"squared error {float(errors[best]):.4f}" in caplog.text
    torch.testing.assert_close(model.network.fc.weight, solve(equations, grid[best]).weights.float())


class StopsAtOnce(Callback):
    """Ends the training after its first batch."""

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        trainer.should_stop = True


def test_ridge_ends_with_its_last_batch_or_with_an_error(colours: Path) -> None:
    data = ImageDataModule("folder", str(colours), batch_size=4, augmentations="none")
    with pytest.raises(ValueError, match="ridge was stopped before it had read every image"):
        solved(data, 1.0, StopsAtOnce())
    assert bool(solved(data, 1.0, fast_dev_run=2).network.fc.weight.any())


def test_ridge_has_no_gradients_to_scale(colours: Path) -> None:
    data = ImageDataModule("folder", str(colours), augmentations="none")
    with pytest.raises(ValueError, match="ridge has no gradients to scale: choose --trainer"):
        solved(data, 1.0, plugins=[MixedPrecision("16-mixed", "cpu")])


@pytest.mark.parametrize("fast_bytes", [True, False])
def test_mixed_precision_rounds_no_sum(fast_bytes: bool, colours: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "_is_vnni_supported", lambda: fast_bytes)
    data = ImageDataModule("folder", str(colours), batch_size=8, augmentations="none")
    exact, mixed = (solved(data, 1.0, precision=each).network.state_dict() for each in ("32-true", "bf16-mixed"))
    assert all(torch.equal(exact[name], mixed[name]) for name in exact)


def test_what_cannot_be_solved_is_told(colours: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = ["fit", "--model=ridge", "--data.dataset=folder", f"--data.root={colours}", "--trainer.accelerator=cpu"]
    assert "augmented images are different each time" in message(capsys, data)
    assert "needs validation images" in message(capsys, [*data, "--model.ridge=validation", "--data.validation=0"])
    assert "not for {'name': 'hinge'}" in message(capsys, [*data, "--model.loss=hinge"])
    assert "must be at least 0" in message(capsys, [*data, "--model.ridge=-1"])
    gradients = ["--model.ridge=1", "--trainer.accumulate_grad_batches=2"]
    assert "ridge has no gradients" in message(capsys, [*data, *gradients])
    for limit in ("steps=2", "time=00:00:01:00"):
        told = message(capsys, [*data, "--model.ridge=1", f"--trainer.max_{limit}"])
        assert "ridge reads every image once: leave max_steps and max_time out" in told


@pytest.mark.parametrize("size", [127, 128, 300])
@pytest.mark.parametrize("images", [1, 2, 1000])
def test_pixels_have_the_same_sums_with_and_without_instructions_for_bytes(
    size: int, images: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = torch.randint(0, 256, (images, size), dtype=torch.uint8)
    pixels[:, :2] = torch.tensor([0, 255])  # the extremes, minus 128 too
    exact = pixels.double() - 128
    for supported in (torch.cpu._is_vnni_supported(), False):
        monkeypatch.setattr(torch.cpu, "_is_vnni_supported", lambda supported=supported: supported)
        whole = minus_128(pixels, size)
        assert (whole.dtype == torch.int8) == (supported and size >= 128)
        sums = torch.zeros(size, size, dtype=torch.float64)
        add_gram(whole.T, sums)
        mirror(sums)
        assert torch.equal(sums, exact.T @ exact) and torch.equal(whole.double(), exact)
