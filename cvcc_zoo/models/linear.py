"""The linear classifier: one weight vector and one bias for each class, s = W x + b; of pixels, or of features.

It is trained by gradients like any other model, or with `ridge` solved in closed form: one pass over the training
images gives the least-squares weights.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from lightning import Callback
from torch import Tensor, nn

from cvcc_zoo.classifier import ImageClassifier
from cvcc_zoo.classifier.network import Network
from cvcc_zoo.data import ImageDataModule
from cvcc_zoo.internals.lightning import set_max_epochs, trainer_of
from cvcc_zoo.linear import Features, make_ridge
from cvcc_zoo.models.layers import flatten
from cvcc_zoo.models.solving import NewtonStep, RidgeFit
from cvcc_zoo.registry import as_spec, register

BATCH = 500  # images at a time when features are fitted


class LinearNetwork(Network):
    """Images (N, in_channels, H, W) to logits (N, num_classes)."""

    def __init__(self, inputs: int, num_classes: int, extract: Features | None) -> None:
        super().__init__()
        self.inputs, self.extract = inputs, extract
        self.parts = [] if extract is None else [["extract"]]
        self.make_classifier(inputs if extract is None else extract.out_features, num_classes)

    def make_classifier(self, features: int, num_classes: int) -> None:
        """Make the classifier, with zero weights: the loss is convex, so no symmetry has to be broken."""
        self.fc = nn.Linear(features, num_classes)
        nn.init.zeros_(self.fc.weight)
        nn.init.zeros_(self.fc.bias)

    def features(self, x: Tensor) -> list[Tensor]:
        return [flatten(x, self.inputs) if self.extract is None else self.extract(x)]


class Linear(ImageClassifier):
    """A linear classifier; which one depends on the loss: softmax regression, a linear SVM or least squares."""

    def __init__(
        self,
        features: list[str | dict[str, Any]] | None = None,
        ridge: float | str | dict[str, Any] | None = None,
        loss: str | dict[str, Any] | Callable[..., Any] = "cross_entropy",
        **options: Any,
    ) -> None:
        """Build the model; `options` are those of ImageClassifier. Raises ValueError for impossible values.

        Args:
            features: Inputs instead of the whitened pixels, as a list of names or {name: ..., option: value}: HOG,
                Patches or Pretrained of images, then PCA and Standardize of vectors.
            ridge: None trains by gradients. A number is the lambda of ridge regression, which minimises the sum of
                squared errors plus lambda ||W||^2 in one pass; leave_one_out and validation choose lambda, from a grid
                of your own with {name: leave_one_out, grid: [1, 10, 100]}.
            loss: As for every model; with ridge the default is squared_error.

        """
        if ridge is not None:
            if callable(loss) or as_spec("loss", loss) not in ({"name": "cross_entropy"}, {"name": "squared_error"}):
                raise ValueError(f"ridge is the solution for loss squared_error, not for {loss}; leave one of them out")
            loss = "squared_error"
        super().__init__(loss=loss, **options)
        extract = None if features in (None, [], ()) else Features(features, self.in_channels, self.image_size)
        self.network: LinearNetwork = LinearNetwork(self.in_channels * self.image_size**2, self.num_classes, extract)
        self.hparams.update(features=extract.specs if extract else None, ridge=ridge)
        self.solver = None if ridge is None else RidgeFit(self, make_ridge(ridge))
        self.automatic_optimization = self.solver is None

    @property
    def whole_batches(self) -> bool:
        """True if training takes every image once, in batches that processes do not share."""
        return self.solver is not None

    def configure_callbacks(self) -> list[Callback]:
        """Check the trainer; return no callbacks. Other hooks run only after Lightning's less clear errors."""
        if self.solver is not None and self.trainer.training:
            self.solver.check_options(self.trainer)
        return []

    def setup(self, stage: str) -> None:
        """Prepare as for every model; a closed form is limited to one epoch."""
        super().setup(stage)
        if stage == "fit" and self.solver is not None:
            self.solver.check(self.trainer)
            set_max_epochs(self.trainer, 1)

    def prepare(self, data: ImageDataModule | None) -> None:
        """Fit the features, unless a checkpoint has fitted ones.

        Raises ValueError if there are no training images, or if the images of features of images are whitened.
        """
        super().prepare(data)
        extract = self.network.extract
        if extract is not None and extract.of_images and self.whitening.method != "none":
            raise ValueError(
                f"{extract.specs[0]['name']} takes images in 0..1, and whitening {self.whitening.method} changes them; "
                "choose --data.whitening=none (whitening='none')"
            )
        if extract is None or extract.fitted:
            return
        if data is None:
            raise ValueError("features learn from training images: train with an ImageDataModule")
        device = self.trainer.strategy.root_device if trainer_of(self) else torch.device("cpu")
        dtype = self.network.fc.weight.dtype
        images, _, samples = data.training_images()
        whitening = self.whitening.to(device)

        def batches() -> Iterator[Tensor]:
            for part in torch.split(samples.to(images.device), BATCH):
                yield whitening(images[part].to(device))

        extract.to(device).fit(batches)
        if extract.out_features != self.network.fc.in_features:
            self.network.make_classifier(extract.out_features, self.num_classes)
        self.to("cpu", dtype)
        self.hparams["features"] = extract.specs

    def take_features(self, hparams: Mapping[str, Any]) -> None:
        """Make room for the fitted features of trained weights with these hyperparameters: a PCA kept some number."""
        specs = hparams.get("features")
        if self.network.extract is None or specs in (None, self.hparams["features"]):
            return
        like = self.network.fc.weight
        extract = self.network.extract = Features(specs, self.in_channels, self.image_size)
        self.network.make_classifier(extract.out_features, self.num_classes)
        self.network.to(like)
        self.hparams["features"] = extract.specs

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor | None:  # type: ignore[override]
        """Return the loss of a batch; with `ridge` add the batch to the sums, and solve the weights at the last one."""
        if self.solver is None:
            return super().training_step(batch, batch_idx)
        self.solver.step(*batch, batch_idx)
        return None

    def log_stage(self, stage: str) -> None:
        """Log the metrics of a stage; after a closed form train/loss and train/ridge, which is lambda.

        Raises ValueError if a closed form was stopped before its last batch.
        """
        if self.solver is None or stage != "train":
            super().log_stage(stage)
        elif self.solver.sums is not None:
            raise ValueError("ridge was stopped before it had read every image; let it reach the end of its epoch")
        else:
            for name, value in self.solver.found.items():
                self.log(f"train/{name}", value)

    def configure_optimizers(self) -> Any:
        """Return the optimizer and its schedule; a closed form is one step of Newton's method."""
        if self.solver is None:
            return super().configure_optimizers()
        return NewtonStep(self.network.fc.parameters())


register("linear", Linear, "W x + b", parameters=30_730)
register("ridge", Linear, "W x + b, solved in closed form", parameters=30_730, defaults={"ridge": "leave_one_out"})
