"""Batches of training images and labels, whitened as a network receives them."""

from torch import Tensor

from cvcc_zoo.classifier.compatibility import check_data
from cvcc_zoo.data import ImageDataModule
from cvcc_zoo.inspection.subjects import Subject


def whitened_batch(subject: Subject, dataset: str | None, root: str | None, count: int) -> tuple[Tensor, Tensor]:
    """Return whitened images (N, C, H, W) and labels (N,): training images at evenly spread positions.

    They are brought to the size and channels of the model. A freshly initialised model first computes its whitening,
    and whatever else it takes from images, such as LSUV, from the training images. Raises ValueError for a
    data set with other classes than the model's, and for fewer than two images.
    """
    model = subject.model
    if count < 2:
        raise ValueError(f"norms need more than one image; choose --images=2 or more, got {count}")
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
