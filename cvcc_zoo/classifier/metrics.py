"""Loss and accuracies of each stage, counted on the device; torchmetrics sums them over processes."""

from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from cvcc_zoo.internals.torch import KeepsDtype

STAGES = ("train", "val", "test")
NAMES = ("loss", "accuracy")
TOP5, TOP5_FROM = "top5_accuracy", 20  # classes from which on it is measured, where nothing is trained


UNIT = 2.0**-24  # numbers are summed up in whole units
EXACT = torch.float32 if torch.backends.mps.is_available() else torch.float64  # Apple's GPUs have no float64


class ImageMean(KeepsDtype, Metric):
    """The mean of a number over all images: the same bits in any order and on any number of processes.

    Each number is rounded to a multiple of 2^-24, of which float64 holds the sum exactly up to 2^29; the sum stays
    float64 when the model is cast to another dtype. NaN stays NaN without a check, which would wait for a GPU. A
    process may have no image, which torchmetrics' accuracy does not allow.
    """

    total: Tensor  # in units
    images: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.zeros((), dtype=EXACT), dist_reduce_fx="sum")
        self.add_state("images", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, values: Tensor) -> None:
        """Add the numbers (N,) of a batch."""
        self.total += (values.to(EXACT) / UNIT).round().sum()
        self.images += len(values)

    def compute(self) -> Tensor:
        """Return the mean."""
        return self.total * UNIT / self.images


class WeightedMean(ImageMean):
    """The mean of a number over all images, with weights: sum of the numbers / sum of the weights."""

    weight: Tensor  # in units

    def __init__(self) -> None:
        super().__init__()
        self.add_state("weight", torch.zeros((), dtype=EXACT), dist_reduce_fx="sum")

    def update(self, values: Tensor, weights: Tensor | None = None) -> None:
        """Add the numbers (N,) of a batch, which are multiplied by their weights already; None are weights of 1."""
        super().update(values)
        weights = torch.ones_like(values) if weights is None else weights
        self.weight += (weights.to(EXACT) / UNIT).round().sum()

    def compute(self) -> Tensor:
        """Return the mean."""
        return self.total / self.weight


def among_top(logits: Tensor, labels: Tensor, count: int) -> Tensor:
    """Return, as bool (N,), whether each label (N,) is among the `count` highest logits (N, num_classes)."""
    return (logits.topk(count, dim=1).indices == labels[:, None]).any(1)


class StageMetrics(nn.ModuleDict):
    """`train/loss`, `train/accuracy`, and the same for val and test.

    From 20 classes on also `val/top5_accuracy` and `test/top5_accuracy`: the share of images whose class is among the
    five with the highest logits. With `weighted` the loss is a weighted mean.
    """

    def __init__(self, num_classes: int, *, weighted: bool = False) -> None:
        super().__init__()
        for stage in STAGES:
            top5 = (TOP5,) if num_classes >= TOP5_FROM and stage != "train" else ()
            for name in (*NAMES, *top5):
                self[f"{stage}/{name}"] = WeightedMean() if weighted and name == "loss" else ImageMean()

    def count(self, stage: str, losses: Tensor, logits: Tensor, labels: Tensor, weights: Tensor | None = None) -> None:
        """Add a batch: losses (N,), logits (N, num_classes) and labels (N,) or soft labels (N, num_classes).

        A mixed image counts as right if its largest share is predicted. `weights` (N,) are those of a weighted loss.
        """
        self._metric(f"{stage}/loss").update(losses.detach(), *([] if weights is None else [weights]))
        single = labels.argmax(1) if labels.is_floating_point() else labels
        self._metric(f"{stage}/accuracy").update(logits.detach().argmax(1) == single)
        if f"{stage}/{TOP5}" in self:
            self._metric(f"{stage}/{TOP5}").update(among_top(logits.detach(), single, 5))

    def of(self, stage: str) -> dict[str, Metric]:
        """Return the metrics of a stage by the names that they are logged under."""
        return {name: self._metric(name) for name in self if name.startswith(f"{stage}/")}

    def counted(self, stage: str) -> dict[str, dict[str, Tensor]]:
        """Return what a stage has counted so far on this process, by metric and name of its state."""
        return {
            name: {key: cast(Tensor, value).clone() for key, value in metric.metric_state.items()}
            for name, metric in self.of(stage).items()
        }

    def resume(self, stage: str, counted: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Continue from what `counted` returned."""
        for name, metric in self.of(stage).items():
            metric.update(torch.zeros(0, device=metric.device))  # torchmetrics warns of a metric without updates
            for key, value in counted[name].items():
                setattr(metric, key, value.to(metric.device))

    def _metric(self, name: str) -> Metric:
        return cast(Metric, self[name])
