"""Results of a model on the test images of a data set: the numbers of a card, which anyone can measure again."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from cvcc_zoo.classifier import ImageClassifier
from cvcc_zoo.classifier.compatibility import check_classes
from cvcc_zoo.classifier.metrics import TOP5, TOP5_FROM, among_top
from cvcc_zoo.classifier.quality import plain_quality, quality_of
from cvcc_zoo.data import ImageDataModule
from cvcc_zoo.data.identity import identity_of, with_hashes
from cvcc_zoo.runs.intervals import wilson
from cvcc_zoo.runs.scores import scores
from cvcc_zoo.runs.summary import THEN, hardware
from cvcc_zoo.zoo.averaging import Average

SMALLEST = 1e-300  # a probability
PRECISE = {"32-true", "64-true"}


def measure(model: ImageClassifier, data: ImageDataModule, *, mirrored: bool = False) -> dict[str, Any]:
    """Test a model on every test image, on a GPU if there is one.

    Returns plain data: `test_images` and how many of them are `correct`; `test_accuracy` in [0, 1], its 95 % interval
    `test_accuracy_interval`, and for 20 classes or more `top5_accuracy`; `test_loss` (cross entropy, nats) and the
    numbers of `cvcc_zoo.classifier.quality`, among them `f1` and `calibration_error` (15 bins, in [0, 1]), without the
    model's temperature; if it has one, loss and calibration error also `_with_temperature`; `per_class` (precision,
    recall, F1 and support of each class); `confusion` (true class, predicted class); with `mirrored` the accuracy of
    the mean scores of an image and its mirror image; `images_per_second` on this `hardware`, after they were read; and
    `test_set`, the identity of the images. Numbers that are not defined are None. Raises ValueError if the data do not
    fit the model.
    """
    data.prepare_data()
    data.setup("test")
    start = time.perf_counter()
    logits, labels = scores(model, data)
    speed = len(labels) / (time.perf_counter() - start)
    found = numbers(logits, labels, data.classes)
    if model.temperature != 1:
        found |= with_temperature(logits, labels, model.temperature)
    if mirrored:
        both = (logits + scores(model, data, mirrored=True)[0]) / 2
        found["mirrored_accuracy"] = correct(both, labels) / len(labels)
    found |= {"images_per_second": round(speed, 1), "hardware": hardware()}
    return found | {"test_set": with_hashes(identity_of(data, "test"))}


def measure_average(average: Average, data: ImageDataModule, *, mirrored: bool = False) -> dict[str, Any]:
    """Test the mean probabilities of several models on every test image, on a GPU if there is one.

    Returns the numbers of `measure` except speed and hardware, and `test_accuracy_alone` by model. The probabilities
    are calibrated by the models' temperatures. Raises ValueError if the data do not fit a model.
    """
    shares, flipped, alone = [], [], {}
    for member in average.members:
        logits, labels = scores(member.model, data)
        alone[member.name] = correct(logits, labels) / len(labels)
        shares.append((logits.double() / member.model.temperature).softmax(1))
        if mirrored:
            both = (logits.double() + scores(member.model, data, mirrored=True)[0]) / 2
            flipped.append((both / member.model.temperature).softmax(1))
    check_classes(average.members[0].model, data)  # the labels in the order of the first model again
    labels = data.test_dataloader().labels
    found = numbers(average.mean(shares).clamp_min(SMALLEST).log(), labels, data.classes)
    if mirrored:
        found["mirrored_accuracy"] = correct(average.mean(flipped), labels) / len(labels)
    return found | {"test_accuracy_alone": alone, "test_set": with_hashes(identity_of(data, "test"))}


def with_temperature(logits: Tensor, labels: Tensor, temperature: float) -> dict[str, float]:
    """Return loss and calibration error of logits (N, num_classes) that are divided by a temperature."""
    calibrated = quality_of(logits / temperature, labels)
    return {
        "test_loss_with_temperature": round(float(calibrated["log_loss"]), 6),
        "calibration_error_with_temperature": round(float(calibrated["calibration_error"]), 6),
    }


def confusion_of(predicted: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Return counts (classes, classes) of predicted classes (N,) and labels (N,): row = true, column = predicted."""
    return torch.bincount(labels * classes + predicted, minlength=classes**2).view(classes, classes)


def correct(logits: Tensor, labels: Tensor) -> int:
    """Return how many images have their highest score at their own class."""
    return int((logits.argmax(1) == labels).sum())


def unlike_summary(summary: Mapping[str, Any], found: int, images: int, sha256: str | None) -> str:
    """Return a remark if the summary of a run has another number of correct images than are `found` now, or "".

    There is none unless it is of a test on the same `images`, with the identity `sha256`, or on some of them. Another
    processor may change one image in 1,000, and a test in half precision one in 100.
    """
    share, tested = summary["test_accuracy"], summary["data"].get("test", {}).get("sha256")
    if share is None or tested is None or tested != sha256:
        return ""
    if (count := summary["images"]["test"]) != images:
        return f"its summary is of {count:,} of {images:,} test images"
    allowed = 1 + images * (0.001 if PRECISE.issuperset(summary["precision"].split(THEN)) else 0.01)
    if abs((before := round(share * images)) - found) <= allowed:
        return ""
    return (
        f"its summary says that {before:,} of {images:,} test images were correct, and now {found:,} are; has the code "
        "of its network changed?"
    )


def numbers(logits: Tensor, labels: Tensor, names: Sequence[str]) -> dict[str, Any]:
    """Return the numbers that depend on logits (N, num_classes) and labels (N,) alone; `names` are of the classes."""
    classes = logits.shape[1]
    confusion = confusion_of(logits.argmax(1), labels, classes)
    top5 = {TOP5: int(among_top(logits, labels, 5).sum()) / len(labels)} if classes >= TOP5_FROM else {}
    quality = plain_quality(quality_of(logits, labels), names)
    return {
        "test_images": len(labels),
        "correct": correct(logits, labels),
        "test_accuracy": correct(logits, labels) / len(labels),
        "test_accuracy_interval": [round(bound, 6) for bound in wilson(correct(logits, labels), len(labels))],
        **top5,
        "test_loss": quality["log_loss"],
        **quality,
        "confusion": confusion.tolist(),
    }
