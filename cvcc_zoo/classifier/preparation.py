"""Before its first step a model learns from the training images: its whitening, and weights that are set from them."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from cvcc_zoo.classifier.network import evaluating
from cvcc_zoo.classifier.patch_whitening import IMAGES, first_convolution, whiten_patches
from cvcc_zoo.classifier.weighting import resolve_class_weights
from cvcc_zoo.classifier.whitened import WhitenedNetwork
from cvcc_zoo.data.balance import imbalance
from cvcc_zoo.data.datamodule import ImageDataModule
from cvcc_zoo.internals.lightning import trainer_of
from cvcc_zoo.losses import Loss, UnknownLoss, loss_spec, make_loss
from cvcc_zoo.printing import first_line

LSUV_IMAGES = 256  # the paper takes a batch: https://arxiv.org/abs/1511.06422


class SetFromImages(WhitenedNetwork):
    """A model whose whitening is measured, and some of whose weights may be set, on training images."""

    chose_whitening: bool
    num_classes: int
    loss: Loss
    patches_whitened: Tensor  # bool, with patch_whitening: whether the first convolution is set
    chosen_class_weights: Any  # of the classes, before training made them numbers

    def register_patch_whitening(self, eps: float | None) -> None:
        """Register the state of `patch_whitening`, if it is on. Raises ValueError for a negative or infinite eps."""
        if eps is not None:
            if not 0 <= eps < math.inf:
                raise ValueError(f"patch_whitening is added to variances and must be at least 0, got {eps}")
            self.register_buffer("patches_whitened", torch.tensor(False))

    def load_state_dict(self, *args: Any, **options: Any) -> Any:
        """Load weights; a first convolution that whitens patches stays frozen, in loops of any kind."""
        found = super().load_state_dict(*args, **options)
        if self.hparams["patch_whitening"] is not None and not self.patches_whitened.is_meta and self.patches_whitened:
            first_convolution(self.network, self.in_channels).weight.requires_grad_(False)
        return found

    def _images(self) -> ImageDataModule | None:
        """Return the DataModule of the Trainer, if it is one of ours."""
        data = getattr(trainer_of(self), "datamodule", None)
        return data if isinstance(data, ImageDataModule) else None

    def fit_whitening(self, data: ImageDataModule) -> None:
        """Measure the whitening that model or data chose on the training images, unless it has statistics.

        Raises ValueError if they chose different ones.
        """
        mine = self.whitening.spec if self.chose_whitening or self.whitening.fitted else None
        if mine is not None and data.whitening not in (None, mine):
            raise ValueError(
                f"the model has whitening={mine!r} and the data have whitening={data.whitening!r}; choose one of them "
                "for both, or leave out that of the data"
            )
        if not self.whitening.fitted:
            fitted = data.fit_whitening(mine, across_processes=True)
            self.whitening = fitted.to(self.weights_device, self.whitening.mean.dtype)
            self.hparams["whitening"] = self.whitening.spec

    def check_sizes(self, sizes: Iterable[int]) -> None:
        """Raise ValueError if whitening or network does not take images of these heights and widths, in pixels."""
        try:
            with evaluating(self):
                for size in sizes:
                    self(torch.zeros(1, self.in_channels, size, size, device=self.weights_device))
        except (ValueError, RuntimeError, AssertionError) as error:  # timm asserts shapes
            raise ValueError(
                "progressive_resizing and progressive_cropping need a network that takes images of any size, and a "
                f"whitening that does not depend on the position of a pixel; with {size} pixels: {first_line(error)}"
            ) from error

    def prepare(self, data: ImageDataModule | None) -> None:
        """Set what is learned from images and not set yet: filters that whiten patches (then frozen), LSUV's scales.

        Also resolve class weights, or else print a line if the classes are imbalanced. A Trainer calls this; in
        a loop of your own, call it once `whitening` is fitted. Raises ValueError if there are no images to learn from.
        """
        if data is not None:
            self.weigh_classes(data)
            self._mention_imbalance(data)
        eps, scale = self.hparams["patch_whitening"], getattr(self.network, "from_images", None)
        patches = eps is not None and not self.patches_whitened
        if data is None and (patches or scale):
            option = "patch_whitening" if patches else "init=lsuv"
            itself = "" if patches else ", or call cvcc_zoo.models.lsuv(model.network, model.whitening(images)) before"
            raise ValueError(f"{option} learns from training images: train with an ImageDataModule{itself}")
        if data is not None and patches:
            whiten_patches(self.network, self._some(data, IMAGES), eps)
            self.patches_whitened.fill_(True)
        if eps is not None:
            first_convolution(self.network, self.in_channels).weight.requires_grad_(False)
        if data is not None and scale:
            scale(self.network, self._some(data, LSUV_IMAGES))

    def check_prepared(self) -> None:
        """In a training without a Trainer, forget the temperature. Raises ValueError if `prepare` was not called."""
        if not self.training or trainer_of(self) is not None:
            return
        self.forget_temperature()
        patches = self.hparams["patch_whitening"] is not None and not self.patches_whitened
        if patches or getattr(self.network, "from_images", None):
            raise ValueError(
                f"{'patch_whitening' if patches else 'init=lsuv'} learns from training images; in a loop of your "
                "own, call model.prepare(data) with an ImageDataModule before you make the optimizer"
            )

    def weigh_classes(self, data: ImageDataModule) -> None:
        """Turn the class weights of the loss that were chosen by name into numbers, in the order of the classes."""
        if not isinstance(self.loss, Loss) or self.loss.class_weights is None:
            return
        spec = loss_spec(self.hparams["loss"])
        if self.chosen_class_weights is None:
            self.chosen_class_weights = spec["class_weights"]
        _, labels, samples = data.training_images()
        weights = resolve_class_weights(self.chosen_class_weights, data.classes, labels[samples])
        self.hparams["loss"] = {**spec, "class_weights": weights}
        self.loss = make_loss(self.hparams["loss"], len(weights))

    def checked_loss(self) -> Loss:
        """Return the loss. Raises ValueError for an import path that leads to none, and for one of another kind.

        A subclass may have replaced it by one that our steps cannot take.
        """
        if isinstance(self.loss, UnknownLoss):
            raise self.loss.error
        if not isinstance(self.loss, Loss):
            raise ValueError(
                f"the attribute `loss` of {type(self).__name__} is a {type(self.loss).__name__}; choose one by name, "
                "loss='cross_entropy', or compute one of your own, under another name, in the method `training_loss`"
            )
        self.loss.find()
        return self.loss

    def check_loss(self, stage: str) -> None:
        """Raise ValueError if a subclass has replaced the loss, but not the steps of the stage that read it."""
        fits = stage == "fit"
        readers = {
            ("training_step", "training_loss"): fits,
            ("validation_step",): stage == "validate" or (fits and self.trainer.enable_validation),
            ("test_step",): stage == "test",
        }
        for steps, used in readers.items():
            if used and all(getattr(type(self), step).__module__.startswith("cvcc_zoo.") for step in steps):
                self.checked_loss()

    def take_class_weights(self, hparams: Mapping[str, Any]) -> None:
        """Take the class weights of a checkpoint, if those that were chosen by name are not numbers yet."""
        theirs = loss_spec(hparams.get("loss", "cross_entropy")).get("class_weights")
        mine = self.loss.class_weights if isinstance(self.loss, Loss) else None
        if isinstance(mine, str | Mapping) and isinstance(theirs, list | tuple):
            self.hparams["loss"] = {**loss_spec(self.hparams["loss"]), "class_weights": list(theirs)}
            self.loss = make_loss(self.hparams["loss"], self.hparams["num_classes"])

    def take_features(self, hparams: Mapping[str, Any]) -> None:
        """Make room for features that were fitted for weights with these hyperparameters; most models have none."""

    def _mention_imbalance(self, data: ImageDataModule) -> None:
        """Print a line if the classes are imbalanced and no remedy was chosen; refuse one that has no effect."""
        whole = getattr(self, "whole_batches", False)
        if whole and data.sampler != "shuffle":
            raise ValueError(f"{type(self).__name__} reads every image once; leave out --data.sampler={data.sampler}")
        spec = loss_spec(self.hparams["loss"])
        chosen = whole or data.sampler != "shuffle" or "class_weights" in spec or spec["name"] == "focal"
        _, labels, samples = data.training_images()
        if not chosen and (line := imbalance(labels[samples], data.classes)):
            rank_zero_info(line)

    def _some(self, data: ImageDataModule, count: int) -> Tensor:
        """Return whitened training images (N, C, H, W) at evenly spread positions, at most `count`."""
        images, _, _ = data.some_images(min(count, len(data.training_images()[2])))
        return self._whiten(images.to(self.weights_device))
