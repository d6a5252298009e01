"""What is reported beside accuracy agrees with its definitions, in any precision, order and number of processes."""

import copy
import json
import math
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.patches import Rectangle
from torch import Tensor
from torchmetrics.functional.classification import (
    multiclass_calibration_error,
    multiclass_f1_score,
    multiclass_precision,
    multiclass_recall,
)

from cvcc_zoo.__main__ import main
from cvcc_zoo.classifier.metrics import StageMetrics, among_top
from cvcc_zoo.classifier.quality import MEANS, Quality, bins_of, plain_quality, quality_of
from cvcc_zoo.plots import plot_calibration
from cvcc_zoo.runs.calibration import fit_temperature
from cvcc_zoo.runs.intervals import wilson, with_interval
from cvcc_zoo.runs.summary import without_images
from tests.conftest import Fit


def predictions(classes: int = 5, images: int = 400) -> tuple[Tensor, Tensor]:
    """Logits and labels of a model that is often right and too sure of itself; class 1 has no image."""
    generator = torch.Generator().manual_seed(classes)
    labels = torch.randint(0, classes, (images,), generator=generator)
    labels[labels == 1] = 0
    logits = torch.randn(images, classes, generator=generator)
    logits[torch.arange(images), labels] += 1
    return 3 * logits, labels


@pytest.mark.parametrize("classes", [2, 5, 30])
def test_they_agree_with_torchmetrics_and_with_their_definitions(classes: int) -> None:
    logits, labels = predictions(classes)
    found, shares = quality_of(logits, labels), logits.double().softmax(1)
    assert float(found["f1"]) == pytest.approx(float(multiclass_f1_score(logits, labels, classes)), abs=1e-6)
    error = multiclass_calibration_error(shares, labels, classes, n_bins=15)
    assert float(found["calibration_error"]) == pytest.approx(float(error), abs=1e-6)
    own = shares[torch.arange(len(labels)), labels]
    assert float(found["log_loss"]) == pytest.approx(float(-own.log().mean()), abs=1e-7)
    brier = (shares - torch.eye(classes)[labels]).square().sum(1).mean()
    assert float(found["brier_score"]) == pytest.approx(float(brier), abs=1e-7)
    hits = [float((logits[labels == c].argmax(1) == c).double().mean()) for c in range(classes) if (labels == c).any()]
    assert float(found["balanced_accuracy"]) == pytest.approx(np.mean(hits), abs=1e-12)
    for name, other in (("precision", multiclass_precision), ("recall", multiclass_recall)):
        torch.testing.assert_close(found[name].nan_to_num().float(), other(logits, labels, classes, average="none"))
    assert found["support"].tolist() == torch.bincount(labels, minlength=classes).tolist()


def test_predictions_of_another_program_are_judged_as_arrays() -> None:
    logits, labels = predictions()
    found = quality_of(logits.numpy(), labels.numpy().astype(np.int32))
    assert all(torch.equal(found[name], value) for name, value in quality_of(logits, labels).items() if name in MEANS)
    assert fit_temperature(logits.numpy(), labels.numpy().astype(np.int32)) == fit_temperature(logits, labels)


def test_a_classifier_of_one_class_has_the_numbers_that_can_be_counted_by_hand() -> None:
    labels = torch.tensor([0] * 6 + [1] * 2)
    logits = torch.tensor([[1.0, 0.0]]).log_softmax(1).expand(8, 2)
    found = plain_quality(quality_of(logits, labels), ["often", "seldom"])
    assert found["per_class"]["often"] == {"precision": 0.75, "recall": 1.0, "f1": 0.857143, "support": 6}
    assert found["per_class"]["seldom"] == {"precision": None, "recall": 0.0, "f1": 0.0, "support": 2}
    assert (found["f1"], found["balanced_accuracy"]) == (0.428571, 0.5)
    assert found["calibration_error"] == pytest.approx(0.75 - 1 / (1 + np.exp(-1)), abs=1e-6)


def test_classes_without_images_are_named_and_have_no_recall() -> None:
    found = plain_quality(quality_of(*predictions()), ["猫", "狗", "鸟", "鱼", "马"])
    assert found["per_class"]["狗"]["recall"] is None and found["per_class"]["狗"]["f1"] == 0.0
    assert without_images(found["per_class"]) == "狗" and None not in [found[name] for name in MEANS]
    many = {str(number): {"support": 0} for number in range(8)}
    assert without_images(many) == "0, 1, 2, 3, 4 and 3 more"


@pytest.mark.parametrize("cast", [torch.bfloat16, torch.float16, torch.float64])
def test_they_have_the_same_bits_in_batches_and_whatever_the_model_is_cast_to(cast: torch.dtype) -> None:
    logits, labels = predictions()
    whole, parts = quality_of(logits, labels), Quality(5)
    torch.nn.ModuleList([parts]).to(cast)
    for rows in (slice(300, 400), slice(7), slice(7, 100), slice(100, 300)):
        parts.update(logits[rows], labels[rows])
    parts.update(logits[:0], labels[:0])  # a process may have no image
    found = parts.compute()
    assert all(torch.equal(value.nan_to_num(), found[name].nan_to_num()) for name, value in whole.items())
    assert found["log_loss"].dtype == torch.float64


def test_scores_that_are_not_numbers_give_no_number_and_no_error() -> None:
    logits, labels = predictions()
    logits[3] = torch.nan
    found = plain_quality(quality_of(logits, labels), list("abcde"))
    assert found["log_loss"] is found["brier_score"] is found["calibration_error"] is None and found["f1"] > 0


def test_of_equal_logits_the_first_is_among_the_top_as_it_is_the_prediction() -> None:
    equal = torch.zeros(30, 30)
    assert among_top(equal, torch.arange(30), 5).tolist() == [True] * 5 + [False] * 25
    rounded = torch.randn(64, 257, generator=torch.Generator().manual_seed(0)).round()  # many ties
    labels = rounded.argmax(1)
    assert among_top(rounded, labels, 1).all() and among_top(rounded, labels, 5).all()


def test_one_pass_over_the_images_counts_for_every_metric_and_a_reset_is_one_for_all() -> None:
    metrics = StageMetrics(5)
    for copied in (copy.deepcopy(metrics), pickle.loads(pickle.dumps(metrics))):
        copied.count("val", torch.ones(400), *predictions())
        assert copied.of("val")["val/f1"].compute() == quality_of(*predictions())["f1"]
        assert int(copied.quality("val").bins[0].sum()) == 400 and not copied.quality("test").bins.any()
        copied.of("val")["val/log_loss"].reset()
        assert not copied.quality("val").bins.any()
    assert "val/f1" in repr(metrics) and not metrics.quality("val").bins.any()


def test_metrics_are_those_of_images_also_while_a_recorded_step_is_replayed() -> None:
    metrics = StageMetrics(10)
    assert not metrics.of_images("val")  # a step of one's own may never count
    metrics.count("val", torch.ones(2), torch.randn(2, 10), torch.tensor([1, 2]))
    for metric in metrics.of("val").values():
        metric.reset()  # a replay counts in the states, and calls nothing
    assert metrics.of_images("val") == metrics.of("val") and not metrics.of_images("train")


@pytest.mark.parametrize("loss", ["cross_entropy", "hinge"])
def test_a_run_and_evaluate_measure_the_same_with_every_loss(
    fit: Fit, loss: str, colours: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fit("--model=linear", f"--model.loss={loss}", "--run=run") == 0
    summary = json.loads(Path("run/summary.json").read_text())
    printed = capsys.readouterr().out
    assert f"macro F1            │ {summary['test_f1']:.4f}" in printed
    assert ("log loss " in printed) is (loss == "hinge")
    assert (abs(summary["test_log_loss"] - summary["test_loss"]) < 1e-6) is (loss == "cross_entropy")
    assert list(summary["test_per_class"]) == ["blue", "red"]
    assert main(["evaluate", "run", "--per_class=true"]) == 0
    printed = capsys.readouterr().out
    assert f"macro F1 {summary['test_f1']:.4f}" in printed and f"log loss {summary['test_log_loss']:.4f}" in printed
    for name, found in summary["test_per_class"].items():
        row = next(line.split() for line in printed.splitlines() if line.split()[:1] == [name])
        shares = [found[key] for key in ("precision", "recall", "f1")]
        assert row[1:] == [*("-" if share is None else f"{share:.4f}" for share in shares), "6"]
    header = Path("run/metrics.csv").read_text().splitlines()[0].split(",")
    assert {f"{stage}/{name}" for stage in ("val", "test") for name in MEANS} <= set(header)


@pytest.mark.parametrize(("correct", "images"), [(9341, 10_000), (0, 12), (12, 12), (1, 2), (887, 1000)])
def test_an_interval_is_that_of_wilson(correct: int, images: int) -> None:
    low, high = wilson(correct, images)
    assert 0 <= low <= correct / images <= high <= 1
    assert (low == 0 or correct > 0) and (high == 1 or correct < images)
    bounds = [*([low] if correct else []), *([high] if correct < images else [])]
    for bound in bounds:  # from which the measured share is this many standard deviations away
        spread = math.sqrt(bound * (1 - bound) / images)
        assert abs(correct / images - bound) / spread == pytest.approx(1.959964)


def test_an_interval_is_written_behind_its_accuracy() -> None:
    assert with_interval(9341, 10_000) == "93.41 % (92.91 to 93.88)"
    with pytest.raises(ValueError, match="got 3 of 2"):
        wilson(3, 2)


@pytest.mark.draws
def test_a_reliability_diagram_has_a_bar_for_each_bin_and_the_counts() -> None:
    found = quality_of(*predictions())
    images, accuracy, confidence = bins_of(found)
    figure = plot_calibration(images, accuracy, confidence, "run: 猫 $x$")
    above, below = figure.axes
    heights = [bar.get_height() for bar in above.patches if isinstance(bar, Rectangle)]
    assert heights == pytest.approx(np.nan_to_num(accuracy).tolist())
    assert [text.get_text() for text in below.texts] == [f"{count:,}" for count in images if count]
    assert f"{float(found['calibration_error']):.4f}" in above.get_title()
