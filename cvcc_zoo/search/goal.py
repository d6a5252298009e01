"""The goal of a search: the accuracy or another metric on the validation images."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from cvcc_zoo.classifier.metrics import MONITORED, mode_of
from cvcc_zoo.registry import check_known
from cvcc_zoo.runs.metrics_file import read_metrics
from cvcc_zoo.search.record import Trial

EPOCHS = ("best", "last")
UNVALIDATED = (
    "the last epoch is not validated; choose max_epochs as a multiple of check_val_every_n_epoch, or --epoch=best"
)


@dataclass(frozen=True)
class Goal:
    """The best value of a metric, such as the highest val/accuracy, of the best epoch or the last one."""

    measure: str = MONITORED[0]
    epoch: str = "best"

    def __post_init__(self) -> None:
        check_known("measure", MONITORED, self.measure, hint="a search never reads the test images")
        check_known("epoch to judge by", EPOCHS, self.epoch)

    @property
    def direction(self) -> Literal["maximize", "minimize"]:
        """The better direction, in Optuna's words."""
        return "maximize" if mode_of(self.measure) == "max" else "minimize"

    @property
    def percent(self) -> bool:
        """True for accuracies, which are shown in percent."""
        return self.measure.endswith("accuracy")

    def check(self, trainer: Mapping[str, Any]) -> None:
        """Raise ValueError for options of a trainer with which the epoch that counts is not validated."""
        every, epochs = trainer["check_val_every_n_epoch"], trainer["max_epochs"]
        if self.epoch == "last" and every and epochs and epochs > 0 and trainer["max_steps"] == -1 and epochs % every:
            raise ValueError(UNVALIDATED)

    def of(self, metrics: Path) -> float:
        """Return the measure from the `metrics.csv` of a run.

        Raises ValueError if it is missing or not finite, or if the last epoch counts and was not validated.
        """
        curves = read_metrics(metrics)
        if self.measure not in curves:
            raise ValueError(
                f"{metrics} has no {self.measure}; check --trainer.limit_val_batches and "
                "--trainer.check_val_every_n_epoch, and for val/top5_accuracy that there are 20 classes"
            )
        steps, values = curves[self.measure]
        ends, _ = curves.get("train/loss", ([], []))
        if self.epoch == "last" and len(ends) > 1 and steps[-1] <= ends[-2]:
            raise ValueError(UNVALIDATED)
        measured = [value for value in values if not math.isnan(value)] or values  # NaN is in no order
        best = max(measured) if self.direction == "maximize" else min(measured)
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
        return f"{100 * measure:.2f} %" if self.percent else f"{measure:.4f}"
