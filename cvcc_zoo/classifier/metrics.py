"""The metrics of each stage, counted on the device; torchmetrics sums them over processes."""

from collections.abc import Mapping
from typing import Any, Literal, cast

import torch
from lightning.pytorch.strategies import Strategy
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.classification import MulticlassConfusionMatrix

from cvcc_zoo.classifier.batches import classes_of
from cvcc_zoo.classifier.means import ImageMean, WeightedMean
from cvcc_zoo.classifier.quality import MEANS, Part, Quality

STAGES = ("train", "val", "test")
NAMES = ("loss", "accuracy")
TOP5, TOP5_FROM = "top5_accuracy", 20  # classes from which on it is measured, where nothing is trained
MONITORED = tuple(f"val/{name}" for name in ("accuracy", "loss", TOP5, *MEANS))
"""The metrics of the validation images: any of them can select the best weights, by default the first."""

ON_BAR = MONITORED[:3]
"""Those that are shown on a progress bar."""


def mode_of(metric: str) -> Literal["min", "max"]:
    """Return whether the lowest or the highest value of a metric, such as val/f1, is the best."""
    return "min" if metric.endswith(("loss", "brier_score", "calibration_error")) else "max"


def among_top(logits: Tensor, labels: Tensor, count: int) -> Tensor:
    """Return, as bool (N,), whether each label (N,) is among the `count` highest logits (N, num_classes).

    Of equal logits the first counts as the higher one, as in `argmax`: `topk` would take any of them.
    """
    return (logits.sort(dim=1, descending=True, stable=True).indices[:, :count] == labels[:, None]).any(1)


class StageMetrics(nn.ModuleDict):
    """`train/loss`, `train/accuracy`, and the same for val and test.

    For val and test also the MEANS of `Quality`, and from 20 classes on `val/top5_accuracy` and `test/top5_accuracy`:
    the share of images whose class is among the five with the highest logits. With `weighted` the loss is a weighted
    mean.
    """

    def __init__(self, num_classes: int, *, weighted: bool = False) -> None:
        super().__init__()
        self.counting: set[str] = set()
        for stage in STAGES:
            top5 = (TOP5,) if num_classes >= TOP5_FROM and stage != "train" else ()
            for name in (*NAMES, *top5):
                self[f"{stage}/{name}"] = WeightedMean() if weighted and name == "loss" else ImageMean()
            if stage != "train":
                whole = Quality(num_classes)
                self.update({f"{stage}/{name}": Part(whole, name) for name in MEANS})
        # The first confusion matrix of a process looks for packages as it counts, which torch.compile cannot trace; the
        # test step of a compiled model would fail.
        MulticlassConfusionMatrix(2).update(torch.zeros(1, dtype=torch.int64), torch.zeros(1, dtype=torch.int64))

    def count(self, stage: str, losses: Tensor, logits: Tensor, labels: Tensor, weights: Tensor | None = None) -> None:
        """Add a batch: losses (N,), logits (N, num_classes) and labels (N,) or soft labels (N, num_classes).

        A mixed image counts as right if its largest share is predicted. `weights` (N,) are those of a weighted loss.
        """
        self.counting.add(stage)
        self._metric(f"{stage}/loss").update(losses.detach(), *([] if weights is None else [weights]))
        single = classes_of(labels)
        self._metric(f"{stage}/accuracy").update(logits.detach().argmax(1) == single)
        if f"{stage}/{TOP5}" in self:
            self._metric(f"{stage}/{TOP5}").update(among_top(logits.detach(), single, 5))
        if stage != "train":
            self.quality(stage).update(logits.detach(), single)

    def quality(self, stage: str) -> Quality:
        """Return the metric of val or test that its MEANS are computed from."""
        return cast(Quality, cast(Part, self[f"{stage}/{MEANS[0]}"]).metric_a)

    def of(self, stage: str) -> dict[str, Metric]:
        """Return the metrics of a stage by the names that they are logged under."""
        return {name: self._metric(name) for name in self if name.startswith(f"{stage}/")}

    def of_images(self, stage: str) -> dict[str, Metric]:
        """Return those of a stage that has ever counted images; that of a subclass whose step does not count has none.

        Whether this epoch counted is not asked: a recorded step that is replayed counts without calling `count`.
        """
        return self.of(stage) if stage in self.counting else {}

    def reset(self) -> None:
        """Forget what all stages have counted."""
        for name in self:
            self._metric(name).reset()

    def counted(self, stage: str, strategy: Strategy) -> dict[str, dict[str, Tensor]]:
        """Return what a stage has counted so far on all processes, by metric and name of its state."""

        def whole(value: Any) -> Tensor:
            total: Tensor = strategy.reduce(value.clone(), reduce_op="sum")
            return total

        return {
            name: {key: whole(value) for key, value in metric.metric_state.items()}
            for name, metric in self.of(stage).items()
        }

    def resume(self, stage: str, counted: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Continue from what `counted` returned, in the first process; in the others it is empty."""
        self.counting.add(stage)
        for name, metric in self.of(stage).items():
            metric.update(torch.zeros(0, device=metric.device))  # torchmetrics warns of a metric without updates
            for key, value in counted.get(name, {}).items():
                setattr(metric, key, value.to(metric.device))

    def _metric(self, name: str) -> Metric:
        return cast(Metric, self[name])
