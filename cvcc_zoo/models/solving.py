"""Ridge regression by the Trainer: batches are summed, and after the last one the classifier is solved."""

import warnings
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import torch
import torch.nn.functional as F
from lightning import Trainer
from lightning.pytorch.callbacks import Timer
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor
from torch.optim import Optimizer

from cvcc_zoo.classifier import ImageClassifier
from cvcc_zoo.classifier.means import UNIT
from cvcc_zoo.data import ImageDataModule
from cvcc_zoo.data.moments import sum_over_processes
from cvcc_zoo.internals.lightning import callbacks_of, has_scaler
from cvcc_zoo.linear import Frame, NormalEquations, Ridge, RidgePath, Sums, solve

LARGEST = 20_000  # values in a vector: X^T X takes 3.2 GB


class NewtonStep(Optimizer):
    """An optimizer that only counts batches: Newton's method finds the minimum of a squared error in one step."""

    def __init__(self, parameters: Any) -> None:
        super().__init__(parameters, {"lr": 1.0})

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Call `closure`, which adds a batch to the sums."""
        return closure() if closure is not None else None


class RidgeFit:
    """Sum the inputs of a linear classifier over all training images, and solve its weights."""

    def __init__(self, model: ImageClassifier, ridge: Ridge) -> None:
        self._model, self.ridge = [model], ridge  # in a list, so that the model is not a submodule of itself
        self.sums: Sums | None = None
        self.found: dict[str, float] = {}

    @property
    def model(self) -> ImageClassifier:
        """The model whose weights are solved."""
        return self._model[0]

    @staticmethod
    def check_options(trainer: Trainer) -> None:
        """Raise ValueError if the trainer has options for gradients, or may stop before it has read every image."""
        if trainer.gradient_clip_val or trainer.accumulate_grad_batches > 1:
            raise ValueError("ridge has no gradients: leave gradient_clip_val and accumulate_grad_batches out")
        if has_scaler(trainer):
            raise ValueError("ridge has no gradients to scale: choose --trainer.precision=bf16-mixed or 32-true")
        steps = trainer.max_steps != -1 and not trainer.fast_dev_run  # type: ignore[attr-defined]  # as many as batches
        if steps or any(isinstance(each, Timer) for each in callbacks_of(trainer)):
            raise ValueError("ridge reads every image once: leave max_steps and max_time out")

    def check(self, trainer: Trainer) -> None:
        """Raise ValueError if the weights cannot be solved with this trainer and its data."""
        size = self.model.parted.fc.in_features
        if size > LARGEST:
            raise ValueError(
                f"ridge of {size:,} values needs a matrix of {8 * size**2 / 1e9:.0f} GB; use fewer features, smaller "
                "images (--data.image_size=32), or ridge=null to train by gradients"
            )
        data = getattr(trainer, "datamodule", None)
        if not isinstance(data, ImageDataModule):
            raise ValueError("ridge reads every training image once: train with an ImageDataModule")
        if self.ridge.by == "validation" and data.validation == 0:
            raise ValueError("ridge=validation needs validation images: set --data.validation=0.1, or leave_one_out")
        if self.ridge.by == "leave_one_out" and data.augmentations:
            raise ValueError(
                "leave_one_out reads every image twice, and augmented images are different each time; "
                "add --data.augmentations=none, or choose --model.ridge=validation or a number"
            )

    def step(self, images: Tensor, labels: Tensor, batch_idx: int) -> None:
        """Add a batch; after the last one of the epoch, solve the weights."""
        if batch_idx == 0:
            self.sums = None
        trainer, optimizer = self.model.trainer, self.model.optimizers()
        optimizer.step(closure=lambda: self._add(images, labels))  # type: ignore[union-attr]
        if batch_idx + 1 == trainer.num_training_batches:
            self._solve()

    @torch.no_grad()
    def _add(self, images: Tensor, labels: Tensor) -> None:
        whole = images.dtype == torch.uint8 and not labels.is_floating_point() and self._keeps_pixels()
        x = images.flatten(1) if whole else self._inputs(images)
        if self.sums is None:
            strategy, data = self.model.trainer.strategy, self.model.trainer.datamodule  # type: ignore[attr-defined]
            frame: Frame = strategy.broadcast(Frame.of(x))  # all processes take that of the first
            device = "cpu" if x.device.type == "mps" else x.device  # Apple's GPUs have no float64
            self.sums = Sums(frame, self.model.num_classes, len(data.training_images()[2]), device)
        if len(x):
            device = self.sums.x.device
            self.sums.add(x.to(device), labels.to(device))

    def _keeps_pixels(self) -> bool:
        """Return True if the model scales each pixel by itself, so that sums of raw pixels can be converted later."""
        return not self.model.parted.parts and not self.model.whitening.decorrelates

    def _inputs(self, images: Tensor) -> Tensor:
        """Return the inputs of the classifier, (N, D)."""
        if not len(images):
            return torch.zeros(0, self.model.parted.fc.in_features)
        with torch.autocast(images.device.type, enabled=False):
            return self.model.features(images)[-1]

    @torch.no_grad()
    def _solve(self) -> None:
        assert self.sums is not None
        model, pixels = self.model, self.sums.frame.pixels
        equations = self.sums.whole(across_processes=True)
        self.sums = None
        if pixels:
            equations = self._whitened(equations)
        ridge = self.ridge.value if self.ridge.value is not None else self._choose(equations)
        found = solve(equations, ridge)
        size = len(equations.gram)
        if found.rank < size:
            warnings.warn(
                f"the {size:,} inputs of the classifier vary in only {found.rank:,} directions, so least squares has "
                "many solutions; took the one with the smallest weights. Use ridge above 0, or ridge=leave_one_out",
                stacklevel=2,
            )
        weights, intercept = model.trainer.strategy.broadcast((found.weights, found.intercept))
        model.parted.fc.weight.copy_(weights)
        model.parted.fc.bias.copy_(intercept)
        self.found = {"loss": equations.error(found.weights), "ridge": ridge}

    def _whitened(self, equations: NormalEquations) -> NormalEquations:
        """Return the equations of the whitened pixels, from those of the raw pixels."""
        whitening = self.model.whitening
        repeated = self.model.image_size**2
        mean, std = (each.cpu().double().repeat_interleave(repeated) for each in (whitening.mean, whitening.std))
        return equations.rescaled(1 / (255 * std), (equations.mean / 255 - mean) / std)

    def _choose(self, equations: NormalEquations) -> float:
        """Return the lambda of the grid with the smallest mean squared error, and print it."""
        path = RidgePath(equations, self.ridge.candidates(equations.gram))
        left_out = self.ridge.by == "leave_one_out"
        total = torch.zeros(2, len(path.ridges), dtype=torch.float64)
        count = 0
        for images, labels in self._passes(left_out):
            errors, right = path.errors(self._inputs(images).cpu(), labels.cpu(), left_out=left_out)
            total[0] += (errors / UNIT).round().sum(0) * UNIT  # exact, so the order and the processes do not matter
            total[1] += right.sum(0)
            count += len(images)
        sums = torch.cat([total.flatten(), torch.tensor([count])])
        sum_over_processes(sums)
        errors, right = (sums[:-1] / sums[-1]).view(2, -1)
        best = int(errors.argmin())
        ridge = float(path.ridges[best])
        rank_zero_info(
            f"ridge {ridge:.4g} chosen from {len(path.ridges)} by {self.ridge.by}: squared error "
            f"{float(errors[best]):.4f}, accuracy {100 * float(right[best]):.2f} %"
        )
        if best in (0, len(errors) - 1) and len(errors) > 1:
            warnings.warn(
                f"the chosen ridge {ridge:.4g} is at the end of the grid; widen it: --model.ridge.grid='[...]'",
                stacklevel=2,
            )
        return ridge

    def _passes(self, left_out: bool) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield images to choose lambda by, and their labels (N, num_classes); this process gets its share of them."""
        trainer = self.model.trainer
        data: ImageDataModule = trainer.datamodule  # type: ignore[attr-defined]
        loader = data.train_dataloader() if left_out else data.val_dataloader()
        summed = int(trainer.num_training_batches) if left_out else None  # fewer with limit_train_batches
        for images, labels in islice(loader, summed):
            if len(images):
                device = self.model.device
                yield images.to(device), F.one_hot(labels, self.model.num_classes).to(torch.float64)
