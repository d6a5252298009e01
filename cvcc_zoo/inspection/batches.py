"""Training images and labels as a network sees them."""

from torch import Tensor

from cvcc_zoo.classifier.compatibility import check_data
from cvcc_zoo.data import ImageDataModule
from cvcc_zoo.inspection.subjects import Subject


def whitened_batch(subject: Subject, dataset: str | None, root: str | None, count: int) -> tuple[Tensor, Tensor]:
    """Images (N, C, H, W) after the model's whitening, and labels (N,): training images of evenly spread positions.

    They get the size and the channels of the model. A fresh model takes the statistics of these training images
    before, and what else is learned from images, like LSUV. Raises ValueError for a network of timm, for a data set
    with other classes than the model has, and for less than two images.
    """
    model = subject.model
    if model is None:
        raise ValueError(
            f"statistics need the loss and the whitening of a model of this package, and {subject.name} has none"
        )
    if count < 2:
        raise ValueError(f"norms need more than one image; choose --images=2 or more, not {count}")
    spec = "none" if subject.trained else model.whitening.spec
    data = ImageDataModule(
        dataset, root, image_size=model.image_size, in_channels=model.in_channels, whitening=spec, augmentations="none"
    )
    check_data(model.hparams, data)
    if not subject.trained:
        if not model.whitening.fitted:
            model.whitening = data.fit_whitening()
        model.prepare(data)
    images, labels, _ = data.some_images(count)
    x: Tensor = model.whitening(images)
    return x, labels
