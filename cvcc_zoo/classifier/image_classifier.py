"""ImageClassifier: whitening -> network -> loss, with metrics, optimizer and schedule; every family is one of these."""

import math
from collections.abc import Callable
from typing import Any

import torch
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torchmetrics.classification import MulticlassConfusionMatrix

from cvcc_zoo.classifier.compatibility import (
    check_classes,
    check_data,
    check_model,
    check_training,
    check_training_data,
    training_data,
)
from cvcc_zoo.classifier.hyperparameters import declare_metrics, table_of
from cvcc_zoo.classifier.metrics import StageMetrics
from cvcc_zoo.classifier.stages import Staged
from cvcc_zoo.classifier.trainer import Optimized, all_finite, check_monitors, diverged
from cvcc_zoo.data.datamodule import ImageDataModule
from cvcc_zoo.data.draws import mix_seed, seed_torch
from cvcc_zoo.data.loader import TensorLoader
from cvcc_zoo.data.whitening import make_whitening
from cvcc_zoo.files.plain import check_plain
from cvcc_zoo.losses import check_labels, fields, loss_spec, make_loss
from cvcc_zoo.optim import OPTIMIZERS, SCHEDULES, check_lr_scheduler, check_optimizer, plain_spec
from cvcc_zoo.registry import as_plain, check_whole, register_family

MIN_IMAGE_SIZE = 8


class ImageClassifier(Optimized, Staged):
    """Raw images (N, in_channels, H, W), uint8 0..255 or float 0..1, to logits (N, num_classes).

    A family builds its `network` in `__init__` after calling this one's. All hyper-parameters are plain data, so that
    checkpoints load with `weights_only=True`.
    """

    classes: tuple[str, ...] | None = None  # their names in the order of the logits, once it was trained on images
    allow_other_images = False  # a training that goes on from a checkpoint needs the same training images
    test_confusion: Tensor  # int64 (num_classes, num_classes) after a test: row = true class, column = predicted

    def __init__(
        self,
        num_classes: int = 10,
        in_channels: int = 3,
        image_size: int = 32,
        loss: str | dict[str, Any] = "cross_entropy",
        optimizer: str | dict[str, Any] | Callable[..., Optimizer] = "AdamW",
        lr_scheduler: str | dict[str, Any] | Callable[..., LRScheduler] | None = None,
        whitening: str | dict[str, Any] | None = None,
        patch_whitening: float | None = None,
        freeze: int = 0,
    ) -> None:
        """What every family takes beside its own shape.

        Args:
            num_classes: Number of classes, at least 2.
            in_channels: Channels of the images.
            image_size: Height and width of the images in pixels, at least 8.
            loss: cross_entropy, hinge, crammer_singer or squared_error, or {name: ..., l2: 0.001, option: value}.
            optimizer: One of ours, torch's or timm's ("timm.lamb") by name, {name: ..., option: value}, a class, or a
                functools.partial of one.
            lr_scheduler: The same for a schedule of ours or torch's; None keeps the learning rate constant.
            whitening: A method, or {name: ..., option: value}; None takes that of the ImageDataModule, or standardize.
            patch_whitening: The eps of a first convolution that whitens the patches of the images (airbench has
                0.0005): it is set when the training starts, and frozen. None trains it like the others.
            freeze: How many of the network's parts, from the images on, are not trained.

        """
        super().__init__()
        self.save_hyperparameters()
        num_classes, in_channels, image_size = (as_plain(each) for each in (num_classes, in_channels, image_size))
        for name in ("num_classes", "in_channels", "image_size", "freeze"):
            check_whole(name, self.hparams[name])
        if num_classes < 2:
            raise ValueError(f"num_classes must be at least 2, got {num_classes}")
        if in_channels < 1:
            raise ValueError(f"in_channels must be at least 1, got {in_channels}")
        if image_size < MIN_IMAGE_SIZE:
            raise ValueError(
                f"image_size must be at least {MIN_IMAGE_SIZE} pixels, got {image_size}; "
                f"resize the images: --data.image_size={MIN_IMAGE_SIZE}"
            )
        optimizer_spec = plain_spec("optimizer", optimizer, OPTIMIZERS)
        check_optimizer(optimizer_spec)
        scheduler_spec = None if lr_scheduler is None else plain_spec("lr_scheduler", lr_scheduler, SCHEDULES)
        if scheduler_spec is not None:
            check_lr_scheduler(scheduler_spec)
        self.num_classes, self.in_channels, self.image_size = num_classes, in_channels, image_size
        self.whitening = make_whitening(whitening or "standardize", in_channels, image_size)
        self.chose_whitening = whitening is not None
        self.hparams.update(optimizer=optimizer_spec, lr_scheduler=scheduler_spec, whitening=self.whitening.spec)
        self.hparams["loss"] = loss_spec(loss)["name"] if isinstance(loss, str) else loss_spec(loss)
        self.hparams.update(as_plain(self.hparams))
        check_plain(dict(self.hparams), f"the options of {type(self).__name__}")  # else no checkpoint could be read
        self.loss = make_loss(self.hparams["loss"])
        if patch_whitening is not None:
            if not patch_whitening >= 0:
                raise ValueError(f"patch_whitening is added to variances and must be at least 0, got {patch_whitening}")
            self.register_buffer("patches_whitened", torch.tensor(False))
        self.metrics = StageMetrics(num_classes)
        self.confusion = MulticlassConfusionMatrix(num_classes)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        register_family(cls)

    @property
    def hparams_initial(self) -> Any:
        """What Lightning hands to loggers: the options of the whole training as one flat table."""
        return table_of(type(self).__name__, self.hparams, self._trainer)

    # Training and evaluation

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """The loss of a batch (images, labels). Raises FloatingPointError if it is not finite."""
        loss = self._step(batch, batch_idx, "train")[0].mean()
        loader = getattr(self.trainer, "train_dataloader", None)  # Fabric has none
        if self.trainer.world_size > 1 and isinstance(loader, TensorLoader):
            loss = loss * (len(batch[1]) * self.trainer.world_size / loader.batch_size)  # so that DDP's mean is right
        if self.loss.l2:
            loss = loss + self.loss.penalty(self.network)
        every = vars(self.trainer).get("log_every_n_steps", 0)  # Fabric has no such thing
        now = every > 0 and (self.global_step + 1) % every == 0  # when Lightning writes a row
        if now:
            self.log("train/batch_loss", loss, prog_bar=True, sync_dist=True)
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

    def predict_step(self, batch: Any, batch_idx: int) -> Any:
        """Class probabilities (N, num_classes) and the labels (N,); of images alone the probabilities alone."""
        if isinstance(batch, Tensor) or len(batch) == 1:
            return self._logits(batch if isinstance(batch, Tensor) else batch[0]).softmax(1)
        images, labels = fields(batch)
        return self._logits(images).softmax(1), labels

    def _logits(self, images: Tensor) -> Tensor:  # in an evaluation a process may have no image left
        return self(images) if len(images) else images.new_zeros(0, self.num_classes, dtype=torch.float32)

    def _step(self, batch: tuple[Tensor, Tensor], batch_idx: int, stage: str) -> tuple[Tensor, Tensor]:
        """The losses (N,) and the logits of a batch, counted in the metrics of the stage."""
        images, labels = fields(batch)
        if labels.device.type == "cpu" or batch_idx == 0:  # looking at values waits for a GPU
            check_labels(labels, self.num_classes)
        logits = self._logits(images)
        if logits.dtype.itemsize < 4:  # with precision=bf16-true a loss has three digits
            logits = logits.float()
        losses = self.loss(logits, labels, reduction="none")
        self.metrics.count(stage, losses, logits, labels)
        return losses, logits.detach()

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Dropout is a function of (seed, epoch, batch, process): a resumed training draws what it would have drawn."""
        if (images := self._images()) is not None:
            seed_torch(mix_seed(images.seed, self.current_epoch, batch_idx, self.global_rank), self.device)

    def optimizer_step(self, *args: Any, **options: Any) -> None:
        """A step. Its gradients are then let go: Lightning would keep their memory through the next forward pass."""
        super().optimizer_step(*args, **options)
        self.trainer.optimizers[0].zero_grad()

    def on_train_epoch_end(self) -> None:
        """Log train/loss and train/accuracy, means over the epoch. Raises FloatingPointError as a step does."""
        if not all_finite(self.network):  # no loss tells what the last step has made
            raise diverged(self, "a weight is not finite")
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
        for name, metric in self.metrics.of(stage).items():
            self.log(name, metric, prog_bar=stage == "val")  # Lightning sums over processes and resets

    def _check_finite(self, loss: float) -> None:
        if not math.isfinite(loss):
            raise diverged(self, f"the loss is {loss}")

    # What Lightning calls

    def setup(self, stage: str) -> None:
        """Check that data and model fit; before training, take the whitening of the data unless there is one."""
        if (images := self._images()) is not None:
            check_classes(self, images)
            check_data(self.hparams, images)
            if stage == "fit":
                self.classes = tuple(images.classes)
                self._take_whitening(images)
        if stage == "fit":
            check_monitors(self.trainer, self, ("train/batch_loss", *self.metrics))
            self.prepare(images)
            declare_metrics(self.trainer, self.hparams_initial, (name for name in self.metrics if name[:5] != "train"))

    def _images(self) -> ImageDataModule | None:
        data = getattr(self._trainer, "datamodule", None)
        return data if isinstance(data, ImageDataModule) else None

    def _take_whitening(self, data: ImageDataModule) -> None:
        """Take that of the training images, unless a checkpoint brought one."""
        check_training(self.network, self.hparams["loss"], data)
        self.fit_whitening(data)
        self.check_sizes(data.resolutions.shares)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Name the family, so that `cvcc_zoo.load` can rebuild it, and keep what an epoch has counted so far.

        Raises FloatingPointError in a training whose weights are not finite: what was saved before is kept.
        """
        about = checkpoint["cvcc_zoo"] = {"family": type(self).__name__, **training_data(self, self._images())}
        if (trainer := self._trainer) is None:
            return
        if trainer.state.fn == "fit" and not all_finite(self.network):
            raise diverged(self, "a weight is not finite")
        if 0 < vars(trainer.fit_loop.epoch_loop.batch_progress.current)["processed"] < trainer.num_training_batches:
            sums = apply_to_collection(self.metrics.counted("train"), Tensor, trainer.strategy.reduce, reduce_op="sum")
            about["counted"] = sums

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse the checkpoint of another model."""
        about = checkpoint.get("cvcc_zoo", {})
        check_model(self, about.get("family"), checkpoint.get("hyper_parameters", {}))
        self.classes = tuple(about["classes"]) if about.get("classes") else None
        if (images := self._images()) is not None:
            check_training_data(self, about, images, goes_on=self.trainer.state.fn == "fit")
        if "counted" in about and self._trainer is not None and self.trainer.state.fn == "fit" and not self.global_rank:
            self.metrics.go_on("train", about["counted"])
