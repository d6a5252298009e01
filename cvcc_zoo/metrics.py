"""Loss and accuracy of each stage, counted on the device and summed over processes by torchmetrics."""

from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.classification import MulticlassAccuracy

STAGES = ("train", "val", "test")
NAMES = ("loss", "accuracy")


class MeanLoss(Metric):
    """The mean over all images, also where batches differ in size; not checked for NaN, which would wait for a GPU.

    torchmetrics' MeanMetric takes weights too, but forgets them without the check (nan_strategy="disable").
    """

    total: Tensor
    images: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.zeros(()), dist_reduce_fx="sum")
        self.add_state("images", torch.zeros(()), dist_reduce_fx="sum")

    def update(self, loss: Tensor, images: int) -> None:
        """Add a batch: its mean loss and how many images it has."""
        self.total += loss * images
        self.images += images

    def compute(self) -> Tensor:
        """The mean."""
        return self.total / self.images


class StageMetrics(nn.ModuleDict):
    """`train/loss`, `train/accuracy`, and the same for val and test."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        for stage in STAGES:
            self[f"{stage}/loss"] = MeanLoss()
            self[f"{stage}/accuracy"] = MulticlassAccuracy(num_classes, average="micro")

    def count(self, stage: str, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Add a batch: its mean loss, logits (N, num_classes) and labels (N,) or soft labels (N, num_classes).

        A mixed image counts as right if its largest share is predicted.
        """
        self._metric(f"{stage}/loss").update(loss.detach(), len(labels))
        single = labels.argmax(1) if labels.is_floating_point() else labels
        self._metric(f"{stage}/accuracy").update(logits.detach(), single)

    def of(self, stage: str) -> dict[str, Metric]:
        """The metrics of a stage under the names that they are logged by."""
        return {f"{stage}/{name}": self._metric(f"{stage}/{name}") for name in NAMES}

    def counted(self, stage: str) -> dict[str, dict[str, Tensor]]:
        """What a stage has counted so far on this process, by metric and by its state's name."""
        return {
            name: {key: cast(Tensor, value).clone() for key, value in metric.metric_state.items()}
            for name, metric in self.of(stage).items()
        }

    def go_on(self, stage: str, counted: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Count on from there."""
        for name, metric in self.of(stage).items():
            for key, value in counted[name].items():
                setattr(metric, key, value.to(metric.device))
            metric._update_count = 1  # or it would warn that nothing was counted

    def _metric(self, name: str) -> Metric:
        return cast(Metric, self[name])
