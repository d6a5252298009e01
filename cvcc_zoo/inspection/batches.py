"""Batches of training images and labels, whitened as a network receives them."""

from torch import Tensor

from cvcc_zoo.classifier.compatibility import check_classes, check_data
from cvcc_zoo.data import ImageDataModule
from cvcc_zoo.inspection.subjects import Subject


def images_for(subject: Subject, dataset: str | None, root: str | None) -> ImageDataModule:
    """Return a data set, if none is given that of the model's run, or else fashion-mini, in the shape of the model.

    Images are prepared as in the training, and links in a given folder are followed. Raises ValueError or OSError as
    ImageDataModule does.
    """
    model, trained = subject.model, subject.trained
    options = trained.image_options(dataset) if trained else {}
    given = {name: value for name, value in {"dataset": dataset, "root": root}.items() if value is not None}
    if given:
        options |= {**given, "follow_links": True}
    spec = "none" if trained else model.whitening.spec
    shape = {"image_size": model.image_size, "in_channels": model.in_channels}
    return ImageDataModule(**{**options, **shape, "whitening": spec, "augmentations": "none"})


def whitened_batch(subject: Subject, dataset: str | None, root: str | None, count: int) -> tuple[Tensor, Tensor]:
    """Return whitened images (N, C, H, W) and labels (N,): training images of `images_for`, at evenly spread positions.

    The labels are in the order of the model's classes. A freshly initialised model first computes its whitening, and
    whatever else it takes from images, such as LSUV, from the training images. Raises ValueError for a data set with
    other classes than the model's, and for fewer than two images.
    """
    model = subject.model
    if count < 2:
        raise ValueError(f"norms need more than one image; choose --images=2 or more, got {count}")
    data = images_for(subject, dataset, root)
    check_classes(model, data)
    check_data(model.hparams, data)
    if not subject.trained:
        if not model.whitening.fitted:
            model.whitening = data.fit_whitening()
        model.prepare(data)
    images, labels, _ = data.some_images(count)
    x: Tensor = model.whitening(images)
    return x, labels
