"""Accuracy of a model on corrupted test images, and a table of it."""

from typing import Any

import torch
from rich.table import Table

from cvcc_zoo.classifier import ImageClassifier
from cvcc_zoo.data import ImageDataModule
from cvcc_zoo.data.corruptions import CORRUPTIONS, STRENGTHS, corrupt, title_of
from cvcc_zoo.runs.scores import opened


def measure_corruptions(model: ImageClassifier, data: ImageDataModule) -> dict[str, Any]:
    """Test a model on all test images under each corruption in each strength, on a GPU if there is one.

    Return plain data: `accuracy`, the accuracies in [0, 1] of each corruption from strength 1 to 5, and their `mean`.
    The noise depends only on the position of an image in the data set. Raises ValueError if the data do not fit the
    model.
    """
    folded, batches = opened(model, data, "test", "corrupted images")
    correct = {name: [0] * STRENGTHS for name in CORRUPTIONS}
    count, position = data.count("test"), 0
    with torch.inference_mode():
        for images, labels in batches:
            positions = torch.arange(position, position + len(labels), device=labels.device)
            for name, found in correct.items():
                for strength in range(STRENGTHS):
                    logits = folded(corrupt(images, name, strength + 1, positions))
                    found[strength] += int((logits.argmax(1) == labels).sum())
            position += len(labels)
    accuracy = {name: [right / count for right in found] for name, found in correct.items()}
    mean = sum(map(sum, accuracy.values())) / (STRENGTHS * len(accuracy))
    return {"accuracy": accuracy, "mean": mean}


def corruption_table(found: dict[str, Any], clean: float) -> Table:
    """Return a table of the accuracies under each corruption, in percent; `clean` is that on the unchanged images."""
    table = Table(title=f"accuracy under corruption, % ({100 * clean:.2f} without)")
    table.add_column("corruption")
    for heading in (*(f"{strength}" for strength in range(1, STRENGTHS + 1)), "mean"):
        table.add_column(heading, justify="right")
    for name, values in found["accuracy"].items():
        table.add_row(title_of(name), *(f"{100 * value:.1f}" for value in (*values, sum(values) / len(values))))
    table.add_section()
    by_strength = [sum(column) / len(column) for column in zip(*found["accuracy"].values(), strict=True)]
    table.add_row("mean", *(f"{100 * value:.1f}" for value in (*by_strength, found["mean"])))
    return table
