"""ImageClassifier: whitening -> network -> loss, with metrics, optimizer and schedule; the base of every family."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torchmetrics.classification import MulticlassConfusionMatrix

from cvcc_zoo.classifier.arguments import SavesArguments
from cvcc_zoo.classifier.batches import classes_of, fields, images_alone, precise_logits
from cvcc_zoo.classifier.compatibility import (
    FEWEST_CLASSES,
    check_classes,
    check_data,
    check_model,
    check_shape,
    check_training,
)
from cvcc_zoo.classifier.divergence import check_finite, report_loss
from cvcc_zoo.classifier.epochs import LogsEpochs, log_first
from cvcc_zoo.classifier.freezing import PartlyFrozen
from cvcc_zoo.classifier.hooks import KeepsHooks
from cvcc_zoo.classifier.hyperparameters import LogsOptions
from cvcc_zoo.classifier.metrics import StageMetrics
from cvcc_zoo.classifier.prediction import Predicting
from cvcc_zoo.classifier.preparation import SetFromImages
from cvcc_zoo.classifier.trainer import Optimized
from cvcc_zoo.classifier.training_images import check_training_data, see_images, take_training_data, training_data
from cvcc_zoo.classifier.watching import check_monitors
from cvcc_zoo.classifier.weighting import batch_mean
from cvcc_zoo.data.draws import mix_seed, seed_torch
from cvcc_zoo.data.loader import check_given
from cvcc_zoo.data.shaping import shaping_of
from cvcc_zoo.data.whitening import make_whitening
from cvcc_zoo.files.plain import check_plain
from cvcc_zoo.internals.averages import copy_again, go_on_without_average
from cvcc_zoo.internals.lightning import batches_done, forget_broken_epoch, trainer_of
from cvcc_zoo.kinds import as_plain, check_kinds
from cvcc_zoo.losses import LOSSES, check_labels, loss_spec, make_loss
from cvcc_zoo.optim import OPTIMIZERS, SCHEDULES, check_lr_scheduler, check_optimizer, plain_spec
from cvcc_zoo.registry import FAMILIES, family_options, register_family


class ImageClassifier(
    KeepsHooks, SavesArguments, LogsEpochs, LogsOptions, Optimized, PartlyFrozen, SetFromImages, Predicting
):
    """Raw images (N, in_channels, H, W), uint8 0..255 or float 0..1, to logits (N, num_classes).

    A family builds its `network` in `__init__` after calling this one's. All hyperparameters are plain data.
    """

    allow_other_images = False  # resuming from a checkpoint needs the same training images
    test_confusion: Tensor  # after a test, int64 (num_classes, num_classes): row = true class, column = predicted

    def __init__(
        self,
        num_classes: int = 10,
        in_channels: int = 3,
        image_size: int = 32,
        loss: str | dict[str, Any] | Callable[..., Any] = "cross_entropy",
        optimizer: str | dict[str, Any] | Callable[..., Optimizer] = "AdamW",
        lr_scheduler: str | dict[str, Any] | Callable[..., LRScheduler] | None = None,
        whitening: str | dict[str, Any] | None = None,
        patch_whitening: float | None = None,
        freeze: int = 0,
    ) -> None:
        """Check and store the options that every family takes besides its own. Raises ValueError for impossible values.

        Args:
            num_classes: Number of classes, at least 2; with 0 the model has no classifier and returns features.
            in_channels: Channels of the images.
            image_size: Height and width of the images in pixels, at least 8.
            loss: cross_entropy, focal, hinge, crammer_singer, squared_error or one of yours (cvcc_zoo.losses.own), or
                {name: ..., l2: 0.001, option: value}, as class_weights: balanced, a list, or {name of a class: weight}.
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
        check_kinds(family_options(type(self)), self.hparams)  # type: ignore[arg-type]
        check_shape(num_classes, in_channels, image_size)
        optimizer_spec = plain_spec("optimizer", optimizer, OPTIMIZERS)
        check_optimizer(optimizer_spec)
        scheduler_spec = None if lr_scheduler is None else plain_spec("lr_scheduler", lr_scheduler, SCHEDULES)
        if scheduler_spec is not None:
            check_lr_scheduler(scheduler_spec)
        self.num_classes = num_classes or FEWEST_CLASSES  # of the classifier that num_classes=0 removes again
        self.in_channels, self.image_size = in_channels, image_size
        self.whitening = make_whitening("standardize" if whitening is None else whitening, in_channels, image_size)
        self.chose_whitening = whitening is not None
        self.hparams.update(optimizer=optimizer_spec, lr_scheduler=scheduler_spec, whitening=self.whitening.spec)
        spec = loss_spec(plain_spec("loss", loss, LOSSES))
        self.hparams["loss"] = spec["name"] if isinstance(loss, str) else spec
        self.hparams.update(as_plain(self.hparams))
        check_plain(dict(self.hparams), f"the options of {type(self).__name__}")  # or checkpoints could not be loaded
        self.loss = make_loss(self.hparams["loss"], self.num_classes, find=callable(loss))
        self.register_patch_whitening(patch_whitening)
        with torch.device("cpu"):  # metrics are in no state_dict: a model that is built on "meta" must have them, too
            self.metrics = StageMetrics(self.num_classes, weighted=self.loss.class_weights is not None)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if not cls.__module__.startswith("torch."):  # torch.export derives classes from those of modules
            register_family(cls)

    @classmethod
    def wrap(cls, network: Any, **options: Any) -> "ImageClassifier":
        """Return a model around a class of networks, a function that builds one, their import path, or a network.

        `cvcc_zoo.classifier.wrapped` says what it must take and return; others raise ValueError.
        """
        return FAMILIES["Wrapped"].of_user(network, **options)  # type: ignore[attr-defined, no-any-return]

    @property
    def confusion(self) -> MulticlassConfusionMatrix:
        """Counts (num_classes, num_classes) of the test images so far; made when the first ones are counted."""
        if "_confusion" not in dict(self.named_children()):
            self.add_module("_confusion", MulticlassConfusionMatrix(self.num_classes).to(self.weights_device))
        return self.get_submodule("_confusion")  # type: ignore[return-value]

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Return the loss of a batch (images, labels). Raises FloatingPointError if it is not finite."""
        self.check_batch(batch, batch_idx)
        return report_loss(self, self.training_loss(batch))

    def training_loss(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Return the mean of loss(network(whitening(images)), labels), and count the metrics; no value is read back."""
        loss = batch_mean(self._step(batch, "train")[0], fields(batch)[1], self.loss, trainer_of(self))
        return loss + self.loss.penalty(self.network) if self.loss.l2 else loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Count the metrics."""
        self.check_batch(batch, batch_idx)
        self._step(batch, "val")

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Count the metrics and the confusion matrix."""
        self.check_batch(batch, batch_idx)
        self.confusion.update(self._step(batch, "test")[1], classes_of(fields(batch)[1]))

    def predict_step(self, batch: Any, batch_idx: int) -> Any:
        """Return class probabilities (N, num_classes), and the labels (N,) if the batch has labels."""
        if (alone := images_alone(batch)) is not None:
            return self._logits(alone).softmax(1)
        images, labels = fields(batch)
        return self._logits(images).softmax(1), labels

    def _logits(self, images: Tensor) -> Tensor:  # one of several processes may have no image left
        logits = self(images) if len(images) else images.new_zeros(0, self.num_classes, dtype=torch.float32)
        return precise_logits(logits, self.num_classes)

    def check_batch(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Raise ValueError for invalid labels (on a GPU only of the first batch), and for a loader without its data.

        Also raise it if a training in a loop of the user's begins with weights that images were to set.
        """
        self.check_head()
        check_given(trainer_of(self), batch)
        if batch_idx == 0:
            self.check_prepared()
        if (labels := fields(batch)[1]).device.type == "cpu" or batch_idx == 0:
            check_labels(labels, self.num_classes)

    def _step(self, batch: tuple[Tensor, Tensor], stage: str) -> tuple[Tensor, Tensor]:
        """Count a batch in the metrics of the stage, and return its losses (N,) and logits (N, num_classes)."""
        images, labels = fields(batch)
        logits = self.uncalibrated(self._logits(images))
        loss = self.checked_loss()
        losses = loss(logits, labels, reduction="none")
        if not self.evaluated:
            scaled, weights = loss.scaled(losses.detach(), labels)
            self.metrics.count(stage, scaled, logits, labels, weights)
        return losses, logits.detach()

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Seed dropout from (seed, epoch, batch, process), so that a resumed run draws the same numbers."""
        if (images := self._images()) is not None:
            seed_torch(mix_seed(images.seed, self.current_epoch, batch_idx, self.global_rank), self.device)

    def on_test_epoch_end(self) -> None:
        """Log the metrics, and set `test_confusion` and `test_quality` to those of the images of all processes."""
        super().on_test_epoch_end()
        if self.confusion.update_called:
            self.test_confusion, self.test_quality = self.confusion.compute(), self.metrics.quality("test").compute()
            self._modules.pop("_confusion")

    def setup(self, stage: str) -> None:
        """Check that data and model fit together, and forget earlier counts; before training, learn from the images."""
        self.check_head()
        self.check_loss(stage)
        self.metrics.reset()  # an evaluation or epoch that ended with an error left its counts
        forget_broken_epoch(self.trainer)
        self._modules.pop("_confusion", None)
        log_first(self.trainer)
        if (images := self._images()) is not None:
            check_classes(self, images)
            check_data(self.hparams, images)
            if stage == "fit":
                self.classes, self.shaping = tuple(images.classes), shaping_of(images.options)
                check_training(self.network, self.hparams, images)
                self.fit_whitening(images)
                self.check_sizes(images.resolutions.shares)
        if stage == "fit":
            check_monitors(self.trainer, self, ("train/batch_loss", *self.metrics))
            self.prepare(images)
            self.check_rebuilt()
            copy_again(self.trainer, self)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save the family, so that `cvcc_zoo.load` can rebuild it, and what was counted so far in this epoch.

        Raises FloatingPointError if weights in training are not finite: the checkpoint before this one stays.
        """
        if trainer_of(self) is not None and self.trainer.state.fn == "fit":
            check_finite(self)
            see_images(self, self._images())
        about = checkpoint["cvcc_zoo"] = {"family": type(self).__name__, **training_data(self, self._images())}
        if isinstance(self.chosen_class_weights, str | Mapping):  # from which other images make other numbers
            about["class_weights"] = self.chosen_class_weights
        trainer = trainer_of(self)
        if trainer and "train" in self.metrics.counting and 0 < batches_done(trainer) < trainer.num_training_batches:
            about["counted"] = self.metrics.counted("train", trainer.strategy)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore what is known of the images, and counts. Raises ValueError for the checkpoint of another model."""
        about = checkpoint.get("cvcc_zoo", {})
        check_model(self, about.get("family"), checkpoint.get("hyper_parameters", {}))
        self.take_features(checkpoint.get("hyper_parameters", {}))
        take_training_data(self, about)
        self.chosen_class_weights = self.chosen_class_weights if trainer_of(self) else about.get("class_weights")
        goes_on = bool(trainer_of(self)) and self.trainer.state.fn == "fit"
        go_on_without_average(trainer_of(self), checkpoint)
        if (images := self._images()) is not None:
            check_training_data(self, about, images, goes_on=goes_on, allowed=self.allow_other_images)
            if goes_on:
                self.weigh_classes(images)  # whose order may have changed
                self.shaping = shaping_of(images.options)  # which may have changed, too
        self.take_class_weights(checkpoint.get("hyper_parameters", {}))
        if goes_on and "counted" in about:
            self.metrics.resume("train", about["counted"] if self.trainer.is_global_zero else {})
