"""The goal of a search: the accuracy or the loss on the validation images."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cvcc_zoo.registry import unknown
from cvcc_zoo.runs.metrics_file import read_metrics
from cvcc_zoo.search.record import Trial

MEASURES = ("val/accuracy", "val/loss")
EPOCHS = ("best", "last")


@dataclass(frozen=True)
class Goal:
    """The highest val/accuracy, a fraction in [0, 1], or the lowest val/loss, of the best epoch or the last one."""

    measure: str = "val/accuracy"
    epoch: str = "best"

    def __post_init__(self) -> None:
        if self.measure not in MEASURES:
            raise unknown("measure", self.measure, MEASURES, "a search never reads the test images")
        if self.epoch not in EPOCHS:
            raise unknown("epoch to judge by", self.epoch, EPOCHS)

    @property
    def direction(self) -> Literal["maximize", "minimize"]:
        """The better direction, in Optuna's words."""
        return "maximize" if self.measure == "val/accuracy" else "minimize"

    def of(self, metrics: Path) -> float:
        """Return the measure from the `metrics.csv` of a run. Raises ValueError if it is missing or not finite."""
        curves = read_metrics(metrics)
        if self.measure not in curves:
            raise ValueError(
                f"{metrics} has no {self.measure}, because there was no validation; check --trainer.limit_val_batches "
                "and --trainer.check_val_every_n_epoch"
            )
        values = curves[self.measure][1]
        best = max(values) if self.direction == "maximize" else min(values)
        found = best if self.epoch == "best" else values[-1]
        if not math.isfinite(found):
            raise ValueError(f"{self.measure} is {found}")
        return found

    def ranked(self, trials: Sequence[Trial]) -> list[Trial]:
        """Return the finished trials, the best first; equal ones in the order of their numbers."""
        sign = -1 if self.direction == "maximize" else 1
        finished = [(sign * trial.measure, trial.number, trial) for trial in trials if trial.measure is not None]
        return [trial for _, _, trial in sorted(finished, key=lambda each: each[:2])]

    def shown(self, measure: float) -> str:
        """Return a measure as text: an accuracy in percent."""
        return f"{100 * measure:.2f} %" if self.measure == "val/accuracy" else f"{measure:.4f}"
