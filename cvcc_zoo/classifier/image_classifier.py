"""ImageClassifier: whitening -> network -> loss, with metrics, optimizer and schedule; the base of every family."""

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
from cvcc_zoo.classifier.freezing import PartlyFrozen
from cvcc_zoo.classifier.hyperparameters import declare_metrics, table_of
from cvcc_zoo.classifier.metrics import StageMetrics
from cvcc_zoo.classifier.preparation import SetFromImages
from cvcc_zoo.classifier.trainer import Optimized, all_finite, check_monitors, diverged
from cvcc_zoo.classifier.weighting import batch_mean
from cvcc_zoo.data.datamodule import ImageDataModule
from cvcc_zoo.data.draws import mix_seed, seed_torch
from cvcc_zoo.data.whitening import make_whitening
from cvcc_zoo.files.plain import check_plain
from cvcc_zoo.internals.lightning import batches_done, log_every_n_steps, trainer_of
from cvcc_zoo.losses import check_labels, fields, loss_spec, make_loss
from cvcc_zoo.optim import OPTIMIZERS, SCHEDULES, check_lr_scheduler, check_optimizer, plain_spec
from cvcc_zoo.registry import as_plain, check_whole, register_family

MIN_IMAGE_SIZE = 8


class ImageClassifier(Optimized, PartlyFrozen, SetFromImages):
    """Raw images (N, in_channels, H, W), uint8 0..255 or float 0..1, to logits (N, num_classes).

    A family builds its `network` in `__init__` after calling this one's. All hyperparameters are plain data, so that
    checkpoints load with `weights_only=True`.
    """

    classes: tuple[str, ...] | None = None  # names in the order of the logits; None before it is trained on images
    allow_other_images = False  # resuming from a checkpoint needs the same training images
    test_confusion: Tensor  # after a test, int64 (num_classes, num_classes): row = true class, column = predicted

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
        """Check and store the options that every family takes in addition to its own.

        Args:
            num_classes: Number of classes, at least 2.
            in_channels: Channels of the images.
            image_size: Height and width of the images in pixels, at least 8.
            loss: cross_entropy, focal, hinge, crammer_singer or squared_error, or {name: ..., l2: 0.001, option: value}
                such as class_weights: balanced, a list in the order of the classes, or {name of a class: weight}.
            optimizer: An optimizer of this package, of torch or of timm ("timm.lamb") by name, {name: ..., option:
                value}, a class, or a functools.partial of one.
            lr_scheduler: The same for a schedule of this package or of torch; None keeps the learning rate constant.
            whitening: A method, or {name: ..., option: value}; None takes that of the ImageDataModule, or standardize.
            patch_whitening: The eps of a first convolution that whitens the patches of the images (airbench uses
                0.0005); it is set when training starts, and frozen. None trains this convolution like the others.
            freeze: Number of the network's parts, counted from the images, that are not trained.

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
        check_plain(dict(self.hparams), f"the options of {type(self).__name__}")  # or checkpoints could not be loaded
        self.loss = make_loss(self.hparams["loss"], num_classes)
        if patch_whitening is not None:
            if not patch_whitening >= 0:
                raise ValueError(f"patch_whitening is added to variances and must be at least 0, got {patch_whitening}")
            self.register_buffer("patches_whitened", torch.tensor(False))
        with torch.device("cpu"):  # metrics are in no state_dict: a model that is built on "meta" must have them, too
            self.metrics = StageMetrics(num_classes, weighted=self.loss.class_weights is not None)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        register_family(cls)

    @property
    def hparams_initial(self) -> Any:
        """The options of the whole training run as one flat table; Lightning passes it to the loggers."""
        return table_of(type(self).__name__, self.hparams, trainer_of(self))

    @property
    def confusion(self) -> MulticlassConfusionMatrix:
        """Counts (num_classes, num_classes) of the test images so far; made when the first ones are counted."""
        if "_confusion" not in dict(self.named_children()):
            self.add_module("_confusion", MulticlassConfusionMatrix(self.num_classes).to(self.weights_device))
        return self.get_submodule("_confusion")  # type: ignore[return-value]

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Return the loss of a batch (images, labels). Raises FloatingPointError if it is not finite."""
        trainer = trainer_of(self)
        loss = batch_mean(self._step(batch, batch_idx, "train")[0], fields(batch)[1], self.loss, trainer)
        if self.loss.l2:
            loss = loss + self.loss.penalty(self.network)
        every = 0 if trainer is None else log_every_n_steps(trainer)
        now = every > 0 and (self.global_step + 1) % every == 0  # when Lightning writes a row
        if now:
            self.log("train/batch_loss", loss, prog_bar=True, sync_dist=True)
        # Reading the value waits for a GPU, so it is read seldom there; a NaN in the weights stays until then.
        if (now or loss.device.type == "cpu") and not math.isfinite(value := loss.item()):
            raise diverged(self, f"the loss is {value}")
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Count loss and accuracy."""
        self._step(batch, batch_idx, "val")

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Count loss, accuracy and the confusion matrix."""
        self.confusion.update(self._step(batch, batch_idx, "test")[1], batch[1])

    def predict_step(self, batch: Any, batch_idx: int) -> Any:
        """Return class probabilities (N, num_classes), and the labels (N,) if the batch has labels."""
        if isinstance(batch, Tensor) or len(batch) == 1:
            return self._logits(batch if isinstance(batch, Tensor) else batch[0]).softmax(1)
        images, labels = fields(batch)
        return self._logits(images).softmax(1), labels

    def _logits(self, images: Tensor) -> Tensor:  # one of several processes may have no image left
        return self(images) if len(images) else images.new_zeros(0, self.num_classes, dtype=torch.float32)

    def _step(self, batch: tuple[Tensor, Tensor], batch_idx: int, stage: str) -> tuple[Tensor, Tensor]:
        """Count a batch in the metrics of the stage, and return its losses (N,) and logits (N, num_classes)."""
        images, labels = fields(batch)
        if labels.device.type == "cpu" or batch_idx == 0:  # looking at values waits for a GPU
            check_labels(labels, self.num_classes)
        logits = self._logits(images)
        if logits.dtype.itemsize < 4:  # with precision=bf16-true a loss has three digits
            logits = logits.float()
        losses = self.loss(logits, labels, reduction="none")
        self.metrics.count(stage, losses, logits, labels, self.loss.weights_of(labels))
        return losses, logits.detach()

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Seed dropout from (seed, epoch, batch, process), so that a resumed run draws the same numbers."""
        if (images := self._images()) is not None:
            seed_torch(mix_seed(images.seed, self.current_epoch, batch_idx, self.global_rank), self.device)

    def optimizer_step(self, *args: Any, **options: Any) -> None:
        """Take a step, and free the gradients: Lightning would keep their memory through the next forward pass."""
        super().optimizer_step(*args, **options)
        self.trainer.optimizers[0].zero_grad()

    def on_train_epoch_end(self) -> None:
        """Log the means train/loss and train/accuracy. Raises FloatingPointError if a weight is not finite."""
        if not all_finite(self.network):  # the loss does not show what the last step did
            raise diverged(self, "a weight is not finite")
        self._log_metrics("train")

    def on_validation_epoch_end(self) -> None:
        """Log val/loss and val/accuracy."""
        self._log_metrics("val")

    def on_test_epoch_end(self) -> None:
        """Log test/loss and test/accuracy, and set `test_confusion` to the confusion matrix over all processes."""
        self._log_metrics("test")
        self.test_confusion = self.confusion.compute()
        self.confusion.reset()

    def _log_metrics(self, stage: str) -> None:
        for name, metric in self.metrics.of(stage).items():
            self.log(name, metric, prog_bar=stage == "val")  # Lightning sums over processes and resets

    def setup(self, stage: str) -> None:
        """Check that data and model fit together; before training, also learn what is learned from the images."""
        if (images := self._images()) is not None:
            check_classes(self, images)
            check_data(self.hparams, images)
            if stage == "fit":
                self.classes = tuple(images.classes)
                check_training(self.network, self.hparams["loss"], images)
                self.fit_whitening(images)
                self.check_sizes(images.resolutions.shares)
        if stage == "fit":
            check_monitors(self.trainer, self, ("train/batch_loss", *self.metrics))
            self.prepare(images)
            declare_metrics(self.trainer, self.hparams_initial, (name for name in self.metrics if name[:5] != "train"))

    def _images(self) -> ImageDataModule | None:
        data = getattr(trainer_of(self), "datamodule", None)
        return data if isinstance(data, ImageDataModule) else None

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save the family, so that `cvcc_zoo.load` can rebuild it, and what was counted so far in this epoch.

        Raises FloatingPointError if weights in training are not finite: the checkpoint before this one stays.
        """
        about = checkpoint["cvcc_zoo"] = {"family": type(self).__name__, **training_data(self, self._images())}
        if (trainer := trainer_of(self)) is None:
            return
        if trainer.state.fn == "fit" and not all_finite(self.network):
            raise diverged(self, "a weight is not finite")
        if 0 < batches_done(trainer) < trainer.num_training_batches:
            sums = apply_to_collection(self.metrics.counted("train"), Tensor, trainer.strategy.reduce, reduce_op="sum")
            about["counted"] = sums

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Raise ValueError for the checkpoint of another model; take over its classes and what it had counted."""
        about = checkpoint.get("cvcc_zoo", {})
        check_model(self, about.get("family"), checkpoint.get("hyper_parameters", {}))
        self.classes = tuple(about["classes"]) if about.get("classes") else None
        if (images := self._images()) is not None:
            check_training_data(self, about, images, goes_on=self.trainer.state.fn == "fit")
            if self.trainer.state.fn == "fit":
                self.weigh_classes(images)  # whose order may have changed
        self.take_class_weights(checkpoint.get("hyper_parameters", {}))
        trainer = trainer_of(self)
        if "counted" in about and trainer is not None and trainer.state.fn == "fit" and trainer.is_global_zero:
            self.metrics.resume("train", about["counted"])
