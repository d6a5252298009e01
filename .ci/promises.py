"""Check what `.ci/run` has made in this folder against what the README prints: `python promises.py README.md`."""

import json
import math
import re
import sys
from pathlib import Path

import cvcc_zoo

readme = Path(sys.argv[1]).read_text()


def number(pattern: str, text: str) -> float:
    """The only number of a pattern in a text."""
    (found,) = re.findall(pattern, text)
    return float(found)


def summary(run: str) -> dict[str, float]:
    """The summary of a run."""
    found: dict[str, float] = json.loads(Path("runs", run, "summary.json").read_text())
    return found


assert "site-packages" in cvcc_zoo.__file__, f"{cvcc_zoo.__file__} is not the wheel's"

printed = number(r"│ test accuracy +│ ([\d.]+) % (?:\([\d. to]+\) )?of 1,000 images", readme)
points = number(r"may differ by up to ([\d.]+) points", readme)
reached = 100 * summary("cnn_small-fashion-mini")["test_accuracy"]
assert abs(reached - printed) <= points, f"{reached:.2f} %, but the README prints {printed} % +- {points}"

card = number(r"\| `resnet20\.fashion_mnist` \| ([\d.]+) %", readme)
correct = number(r"(\d+) of 1,000 images correct", Path("evaluated.txt").read_text()) / 10
error = 100 * math.sqrt(card / 100 * (1 - card / 100) / 1000)  # of a tenth of the images that the card was measured on
assert abs(correct - card) <= 3 * error, f"{correct:.2f} %, but the README says {card} % +- {3 * error:.2f}"

assert summary("linear-fashion-mini")["epochs"] == 10
