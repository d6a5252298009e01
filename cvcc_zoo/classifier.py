"""ImageClassifier: whitening -> network -> loss, with metrics, optimizer and schedule; every family is one of these."""

import math
from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
from lightning import LightningModule
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torchmetrics import MeanMetric, Metric
from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix

from cvcc_zoo.data.datamodule import ImageDataModule
from cvcc_zoo.data.whitening import Whitening
from cvcc_zoo.losses import check_labels, make_loss
from cvcc_zoo.optim import check_lr_scheduler, check_optimizer, make_lr_scheduler, make_optimizer, plain_spec
from cvcc_zoo.registry import FAMILIES

MIN_IMAGE_SIZE = 8
STAGES = ("train", "val", "test")
TRAINING_OPTIONS = ("loss", "optimizer", "lr_scheduler", "whitening")
"""Hyper-parameters that do not shape the network."""


class ImageClassifier(LightningModule):
    """Raw images (N, in_channels, H, W), uint8 0..255 or float 0..1, to logits (N, num_classes).

    A family builds its `network` in `__init__` after calling this one's. All hyper-parameters are plain data, so that
    checkpoints load with `weights_only=True`.
    """

    network: nn.Module
    test_confusion: Tensor  # int64 (num_classes, num_classes) after a test: row = true class, column = predicted
    channels_last = False  # convolutional families set it: 1.2 to 1.5 times faster training on a CPU

    def __init__(
        self,
        num_classes: int = 10,
        in_channels: int = 3,
        image_size: int = 32,
        loss: str | dict[str, Any] = "cross_entropy",
        optimizer: str | dict[str, Any] | Callable[..., Optimizer] = "AdamW",
        lr_scheduler: str | dict[str, Any] | Callable[..., LRScheduler] | None = None,
        whitening: str = "standardize",
    ) -> None:
        """What every family takes beside its own shape.

        Args:
            num_classes: Number of classes, at least 2.
            in_channels: Channels of the images.
            image_size: Height and width of the images in pixels, at least 8.
            loss: cross_entropy, hinge or squared_error, or {name: ..., option: value}.
            optimizer: A torch optimizer by name, {name: ..., option: value}, a class, or a functools.partial of one.
            lr_scheduler: The same for a torch schedule; None keeps the learning rate constant.
            whitening: standardize or none; training takes it from the ImageDataModule.

        """
        super().__init__()
        if num_classes < 2:
            raise ValueError(f"num_classes must be at least 2, got {num_classes}")
        if in_channels < 1:
            raise ValueError(f"in_channels must be at least 1, got {in_channels}")
        if image_size < MIN_IMAGE_SIZE:
            raise ValueError(
                f"image_size must be at least {MIN_IMAGE_SIZE} pixels, got {image_size}; "
                f"resize the images: --data.image_size={MIN_IMAGE_SIZE}"
            )
        self.save_hyperparameters(logger=False)
        optimizer_spec = plain_spec("optimizer", optimizer)
        check_optimizer(optimizer_spec)
        scheduler_spec = None if lr_scheduler is None else plain_spec("lr_scheduler", lr_scheduler)
        if scheduler_spec is not None:
            check_lr_scheduler(scheduler_spec)
        self.hparams.update(optimizer=optimizer_spec, lr_scheduler=scheduler_spec)
        self.num_classes, self.in_channels, self.image_size = num_classes, in_channels, image_size
        self.example_input_array = torch.zeros(1, in_channels, image_size, image_size, dtype=torch.uint8)
        self.whitening = Whitening(whitening, in_channels)
        self.loss = make_loss(loss)
        self.metrics = nn.ModuleDict()
        for stage in STAGES:
            self.metrics[f"{stage}/loss"] = MeanMetric(nan_strategy="disable")
            self.metrics[f"{stage}/accuracy"] = MulticlassAccuracy(num_classes, average="micro")
        self.confusion = MulticlassConfusionMatrix(num_classes)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        known = FAMILIES.get(cls.__name__)
        if known is not None and known.__module__ != cls.__module__:
            raise ValueError(
                f"the family name {cls.__name__} is taken by {known.__module__}.{cls.__name__}, and a checkpoint must "
                f"name its family; rename the class in {cls.__module__}"
            )
        FAMILIES[cls.__name__] = cls

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, num_classes). Raises ValueError for images of another shape than (N, in_channels, H, W)."""
        if images.ndim != 4 or images.shape[1] != self.in_channels:
            raise ValueError(
                f"this model takes images of shape (N, {self.in_channels}, H, W), got {tuple(images.shape)}; "
                f"turn the images into {self.in_channels} channels (--data.in_channels={self.in_channels}) "
                "or build the model with in_channels of the images"
            )
        x = self.whitening(images)
        logits: Tensor = self.network(x.contiguous(memory_format=torch.channels_last) if self.channels_last else x)
        return logits

    # Training and evaluation

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """The loss of a batch (images, labels). Raises FloatingPointError if it is not finite."""
        loss, _ = self._step(batch, batch_idx, "train")
        now = (self.global_step + 1) % vars(self.trainer)["log_every_n_steps"] == 0  # when Lightning writes a row
        if now:
            self.log("train/batch_loss", loss, prog_bar=True)
        # Reading the value waits for a GPU, so there only now and then; NaN stays once it is in the weights.
        if now or loss.device.type == "cpu":
            self._check_finite(loss.item())
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Count loss and accuracy."""
        self._step(batch, batch_idx, "val")

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Count loss, accuracy and the confusion matrix."""
        self.confusion.update(self._step(batch, batch_idx, "test")[1], batch[1])

    def predict_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> tuple[Tensor, Tensor]:
        """Class probabilities (N, num_classes) and the labels (N,)."""
        images, labels = batch
        return self(images).softmax(1), labels

    def _step(self, batch: tuple[Tensor, Tensor], batch_idx: int, stage: str) -> tuple[Tensor, Tensor]:
        """The loss and the logits of a batch, counted in the metrics of the stage."""
        images, labels = batch
        if labels.device.type == "cpu" or batch_idx == 0:  # looking at values waits for a GPU
            check_labels(labels, self.num_classes)
        logits = self(images)
        loss = self.loss(logits, labels)
        self._metric(f"{stage}/loss").update(loss.detach(), len(labels))
        self._metric(f"{stage}/accuracy").update(logits.detach(), labels)
        return loss, logits.detach()

    def _metric(self, name: str) -> Metric:
        return cast(Metric, self.metrics[name])

    def on_fit_start(self) -> None:
        """Train mode also for a model that was loaded for evaluation."""
        self.train()

    def on_train_epoch_end(self) -> None:
        """Log train/loss and train/accuracy, means over the epoch."""
        self._log_metrics("train")

    def on_validation_epoch_end(self) -> None:
        """Log val/loss and val/accuracy."""
        self._log_metrics("val")

    def on_test_epoch_end(self) -> None:
        """Log test/loss and test/accuracy, and keep the confusion matrix over all processes in `test_confusion`."""
        self._log_metrics("test")
        self.test_confusion = self.confusion.compute()
        self.confusion.reset()

    def _log_metrics(self, stage: str) -> None:
        for name in (f"{stage}/loss", f"{stage}/accuracy"):
            self.log(name, self._metric(name), prog_bar=stage == "val")  # Lightning sums over processes and resets

    def _check_finite(self, loss: float) -> None:
        if not math.isfinite(loss):
            rates = ", ".join(f"{group['lr']:g}" for group in self.trainer.optimizers[0].param_groups[:1])
            raise FloatingPointError(
                f"the loss is {loss} at step {self.global_step} (epoch {self.current_epoch}, lr {rates}); training "
                "stops here. Lower the learning rate (--optimizer.lr=...), warm it up, or clip the gradients "
                "(--trainer.gradient_clip_val=1)"
            )

    # What Lightning calls

    def setup(self, stage: str) -> None:
        """Check that data and model fit; before training, take the whitening of the data unless there is one."""
        data = getattr(self.trainer, "datamodule", None)
        if not isinstance(data, ImageDataModule):
            return
        for name in ("num_classes", "in_channels", "image_size"):
            mine, theirs = getattr(self, name), getattr(data, name)
            if mine != theirs:
                raise ValueError(
                    f"the model has {name}={mine}, but the images of {data.dataset.title} have {name}={theirs}; "
                    + _advice(name, mine, theirs)
                )
        if stage == "fit" and not self.whitening.fitted:
            self.whitening = data.fit_whitening()
            self.hparams["whitening"] = data.whitening

    def configure_optimizers(self) -> Any:
        """One optimizer over all parameters, and the schedule with the length of the whole training filled in."""
        optimizer = make_optimizer(self.hparams["optimizer"], self)
        if self.hparams["lr_scheduler"] is None:
            return optimizer
        steps, epochs = self.trainer.estimated_stepping_batches, self.trainer.max_epochs
        if math.isinf(steps) or epochs is None or epochs < 1:
            raise ValueError("a schedule needs to know how long the training is: set --trainer.max_epochs=...")
        schedule = make_lr_scheduler(self.hparams["lr_scheduler"], optimizer, int(steps), epochs)
        if schedule.get("monitor", "").startswith("val/") and not self.trainer.enable_validation:
            raise ValueError(
                f"the schedule watches {schedule['monitor']}, but there are no validation images; "
                "set --data.validation=0.1 or --lr_scheduler.monitor=train/loss"
            )
        return {"optimizer": optimizer, "lr_scheduler": schedule}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Name the family, so that `cvcc_zoo.load` can rebuild the model."""
        checkpoint["cvcc_zoo"] = {"family": type(self).__name__}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse the checkpoint of another model."""
        self.check_same(checkpoint.get("cvcc_zoo", {}).get("family"), checkpoint.get("hyper_parameters", {}))

    def check_same(self, family: str | None, hparams: Mapping[str, Any]) -> None:
        """Raise ValueError, and say how they differ, if weights of that family and shape do not fit this model."""
        theirs, mine = _shape(family, hparams), _shape(type(self).__name__, self.hparams)
        different = [key for key in mine | theirs if mine.get(key) != theirs.get(key)]
        if different:
            there, here = (", ".join(f"{k}={s.get(k)!r}" for k in different) for s in (theirs, mine))
            raise ValueError(
                f"the checkpoint holds another model: it has {there}, where this one has {here}; "
                "give the options of the checkpoint (--model=..., --data...=...), or another checkpoint"
            )


def _shape(family: str | None, hparams: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that a checkpoint's weights depend on."""
    plain = {k: list(v) if isinstance(v, tuple) else v for k, v in hparams.items() if k not in TRAINING_OPTIONS}
    return {"family": family, **plain}


def _advice(name: str, mine: int, theirs: int) -> str:
    if name == "num_classes":
        return f"build the model with num_classes={theirs}, or choose the data set that it was trained on"
    return f"convert the images with --data.{name}={mine}, or build the model with {name}={theirs}"
