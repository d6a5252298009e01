"""The content of a report on a run: its summary, curves and options, and its results on the test images."""

import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cvcc_zoo.classifier.quality import bins_of, plain_quality, quality_of
from cvcc_zoo.data import ImageDataModule
from cvcc_zoo.data.classes import differences as different_classes
from cvcc_zoo.data.classes import matching
from cvcc_zoo.data.folder import file_of
from cvcc_zoo.data.identity import digests, identity_of
from cvcc_zoo.data.pictures import pixels
from cvcc_zoo.files.own import shown
from cvcc_zoo.printing import first_line
from cvcc_zoo.runs.changes import HARMLESS, RECORDS, flat
from cvcc_zoo.runs.measure import confusion_of, unlike_summary
from cvcc_zoo.runs.metrics_file import NAME as METRICS
from cvcc_zoo.runs.metrics_file import Curve, read_metrics
from cvcc_zoo.runs.run_folder import CONFIG, is_run
from cvcc_zoo.runs.scores import scores
from cvcc_zoo.runs.written import SUMMARY, read_config, read_summary
from cvcc_zoo.zoo.creation import load

WORST = 24
PUBLIC, ALL = "public", "all"
"""Which test images a report shows: those of data sets that anybody can download, or all; otherwise none."""
RESTORE = "restore the images, or train its recipe on these: cvcc-zoo fit --config=RUN/config.yaml"
UNINTERESTING = (*HARMLESS, *RECORDS)
CHANGED = "resumed with changes"
"""The name of the changes with which a run was resumed, among its options."""


@dataclass(frozen=True)
class Mistake:
    """A misclassified test image."""

    image: npt.NDArray[Any] | None
    """(H, W, C) or (H, W), in [0, 1]; None if it must not be shown."""
    where: str
    """Its path relative to the image folder, or its index among the test images."""
    label: str
    predicted: str
    probability: float
    """Probability of the predicted class."""


@dataclass(frozen=True)
class Results:
    """Predictions of a model for all test images."""

    classes: list[str]
    confusion: npt.NDArray[Any]
    """Counts (true class, predicted class)."""
    bins: tuple[npt.NDArray[Any], ...]
    """(15,) each: the number of images, the accuracy and the mean confidence of each bin of confidence."""
    right: npt.NDArray[Any]
    """(N,) True where the predicted class is the true one."""
    quality: dict[str, Any]
    """The plain data of `cvcc_zoo.classifier.quality`."""
    digests: npt.NDArray[Any]
    """(N,) a sha256 of each image and the name of its class; it is the same in all runs."""
    worst: list[Mistake]
    """The mistakes with the highest probabilities, in descending order."""


@dataclass(frozen=True)
class RunReport:
    """A finished run."""

    name: str
    summary: dict[str, Any]
    curves: dict[str, Curve]
    options: dict[str, str]
    """All options by dotted name, as text; also CHANGED, if the run was resumed with others."""
    results: Results | None
    reason: str
    """The reason why `results` is None, otherwise empty."""
    remark: str = ""
    """How the results differ from those of the summary, otherwise empty."""


def unfinished(folder: Path) -> bool:
    """Return whether a run folder has no summary yet. Raises ValueError if it is not a run folder."""
    if not folder.is_dir() or not is_run(folder):
        raise ValueError(f"{folder} is not a run folder: it has no {CONFIG} of `cvcc-zoo fit`; give run folders")
    return not (folder / SUMMARY).is_file()


def read_run(folder: Path, images: str = PUBLIC) -> RunReport:
    """Read a finished run; `images` says which images of its worst mistakes the report may show: `public` or `all`.

    A run that was never tested is not tested here either. Raises FileNotFoundError or ValueError for missing or broken
    files.
    """
    summary, config, metrics = read_summary(folder), read_config(folder), folder / METRICS
    try:
        curves = read_metrics(metrics)
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise ValueError(f"{metrics} cannot be read ({error}); restore it, or leave {folder} out") from error
    options = {name: json.dumps(value).strip('"') for name, value in flat(config).items() if name not in UNINTERESTING}
    options |= {CHANGED: summary["changed"]} if summary["changed"] else {}
    results, reason = None, "its summary has none (--test=false, or an own test), and it is not tested here either"
    remark = ""
    if summary["test_accuracy"] is not None:
        try:
            tested = summary["data"].get("test", {}).get("sha256")
            results, reason = evaluate(folder, config["data"], images, tested), ""
            remark = unlike_summary(summary, int(results.right.sum()), len(results.right), tested)
        except (OSError, ValueError) as error:
            advice = "Start the report in the folder in which the run was started, or restore the images"
            reason = first_line(error).replace("Set it with --data.root=", advice)
    return RunReport(shown(folder.resolve().name), summary, curves, options, results, reason, remark)


def evaluate(folder: Path, data_options: Mapping[str, Any], images: str = PUBLIC, tested: str | None = None) -> Results:
    """Test the chosen model of a run on the images of its config.

    Raises ValueError or OSError if they are gone, and ValueError for scores that are not finite, or if the test images
    are not those with the identity `tested`, if it is known: those of a changed folder may have been trained on.
    """
    data = ImageDataModule(**{**data_options, "augmentations": "none"})
    model = load(folder)
    if model.classes is not None and matching(model.classes, data.classes) is None:
        raise ValueError(
            f"its classes are not those of {data.dataset.title}: {different_classes(model.classes, data.classes)}; "
            + RESTORE
        )
    raw, labels = scores(model, data)
    if tested is not None and identity_of(data, "test").sha256 != tested:
        raise ValueError(
            f"the test images of {data.dataset.title} are no longer those that it was tested on; {RESTORE}"
        )
    if not raw.isfinite().all():
        raise ValueError("its scores are not finite numbers; train it again with a lower learning rate")
    logits = raw / model.temperature  # as the model is used
    probabilities = logits.double().softmax(1)
    confidences, predicted = probabilities.max(1)
    quality = quality_of(logits, labels)
    classes = list(data.classes)
    confusion = confusion_of(predicted, labels, len(classes))
    wrong = (predicted != labels).nonzero()[:, 0]
    chosen = wrong[confidences[wrong].argsort(descending=True, stable=True)[:WORST]]
    may_be_shown = images == ALL or (images == PUBLIC and data.dataset.public)
    pictures = pixels(data.test_dataloader().images[chosen]) if may_be_shown else [None] * len(chosen)
    worst = [
        Mistake(
            picture,
            shown(file_of(data.dataset, "test", index)) or f"test image {index:,}",
            classes[labels[index]],
            classes[predicted[index]],
            float(confidences[index]),
        )
        for picture, index in zip(pictures, chosen.tolist(), strict=True)
    ]
    return Results(
        classes,
        confusion.numpy(),
        bins_of(quality),
        (predicted == labels).numpy(),
        plain_quality(quality, classes),
        np.array(digests(data.test_dataloader().images, [classes[label] for label in labels.tolist()])),
        worst,
    )


def differences(runs: list[RunReport]) -> dict[str, list[str]]:
    """Return the options in which runs differ, by name; a missing option is an empty text."""
    names = dict.fromkeys(name for run in runs for name in run.options)
    values = {name: [run.options.get(name, "") for run in runs] for name in names}
    return {name: found for name, found in values.items() if len(set(found)) > 1}
