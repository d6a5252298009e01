"""Base classes of augmentations, which change each image by its own random draws, and combinations of them."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from cvcc_zoo.data.draws import Draws


class Augmentation(nn.Module):
    """Change images (N, C, H, W), uint8 or float in [0, 1], to images of the same shape and type.

    Subclasses implement `change`; with `in_float` it gets floats in [0, 1], and its result is clamped to [0, 1].
    """

    in_float = False

    def __init__(self) -> None:  # that of nn.Module would accept any option
        super().__init__()

    def change(self, images: Tensor, draws: Draws) -> Tensor:
        """Return the changed images as a new tensor."""
        raise NotImplementedError

    def forward(self, images: Tensor, draws: Draws) -> Tensor:
        """Augment images. Raises ValueError for another type, or images too small for the augmentation."""
        if images.ndim != 4 or not (images.dtype == torch.uint8 or images.is_floating_point()):
            raise ValueError(
                f"augmentations take images (N, C, H, W), uint8 or float in [0, 1], got {images.dtype} of shape "
                f"{tuple(images.shape)}"
            )
        if not self.in_float:
            return self.change(images, draws)
        return in_floats(images, lambda x: self.change(x, draws))


class Mixing(nn.Module):
    """Mix images (N, C, H, W) and soft labels (N, num_classes); the shapes stay the same.

    The partner of an image is the one before it in the batch; the order of a training batch is random.
    """

    def forward(self, images: Tensor, labels: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
        """Mix images and labels."""
        raise NotImplementedError


def as_float(images: Tensor) -> Tensor:
    """Convert uint8 0..255 to float in [0, 1], of 32 bits or more; return floats unchanged."""
    if images.is_floating_point():
        return images
    return images.to(torch.promote_types(torch.get_default_dtype(), torch.float32)).div_(255)


def as_uint8(images: Tensor) -> Tensor:
    """Round floats in [0, 1] to uint8 0..255."""
    return (255 * _precise(images)).add_(0.5).to(torch.uint8)


def _precise(images: Tensor) -> Tensor:
    """Convert floats to 32 bits or more: bfloat16 would round 255.5 to 256."""
    return images.to(torch.promote_types(images.dtype, torch.float32))


def in_floats(images: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    """Apply a function of floats in [0, 1] to images of either type; clamp the result and convert it to their type."""
    changed = change(_precise(as_float(images))).clamp_(0, 1)
    return changed.to(images.dtype) if images.is_floating_point() else as_uint8(changed)


def each(values: Tensor) -> Tensor:
    """Reshape one value for each sample, (N,), to (N, 1, 1, 1), to broadcast over images."""
    return values[:, None, None, None]


def choose(chosen: Tensor, yes: Tensor, no: Tensor) -> Tensor:
    """Take images from `yes` where `chosen` (N,) is true, else from `no`; for uint8 4 times faster than torch.where."""
    if yes.is_floating_point():
        return torch.where(each(chosen), yes, no)
    n = len(chosen)
    return torch.cat([no, yes]).index_select(0, torch.arange(n, device=no.device) + n * chosen)


def check_probability(kind: str, probability: float) -> None:
    """Raise ValueError for a number outside [0, 1]."""
    if not 0 <= probability <= 1:
        raise ValueError(f"{kind}: probability must be in [0, 1], got {probability}")


def check_range(kind: str, name: str, values: Sequence[float], low: float, high: float = float("inf")) -> None:
    """Raise ValueError unless low <= values[0] <= values[1] <= high."""
    pair = isinstance(values, list | tuple) and len(values) == 2
    if not pair or not low <= values[0] <= values[1] <= high:
        limits = f"in [{low:g}, {high:g}]" if high < float("inf") else f"of at least {low:g}"
        raise ValueError(f"{kind}: {name} must be a smallest and a largest value {limits}, got {values}")


def _of_images_only(kind: str, augmentation: nn.Module) -> Augmentation:
    if isinstance(augmentation, Mixing):
        raise ValueError(
            f"{type(augmentation).__name__} also changes labels and cannot be inside {kind}; put it into the list of "
            "augmentations itself (it has a probability of its own)"
        )
    if not isinstance(augmentation, Augmentation):
        raise ValueError(f"{kind} takes augmentations, got {augmentation!r}")
    return augmentation


class Compose(Augmentation):
    """Apply augmentations one after the other."""

    def __init__(self, augmentations: Sequence[nn.Module]) -> None:
        super().__init__()
        self.augmentations = [_of_images_only("Compose", a) for a in augmentations]
        self.in_float = any(a.in_float for a in self.augmentations)  # to round once, not after each

    def change(self, images: Tensor, draws: Draws) -> Tensor:
        for augmentation in self.augmentations:
            images = augmentation(images, draws)
        return images


class Probability(Augmentation):
    """Apply an augmentation to each image with a `probability` in [0, 1]."""

    def __init__(self, augmentation: nn.Module, probability: float = 0.5) -> None:
        super().__init__()
        check_probability("Probability", probability)
        self.augmentation = _of_images_only("Probability", augmentation)
        self.probability = probability
        self.in_float = self.augmentation.in_float

    def change(self, images: Tensor, draws: Draws) -> Tensor:
        chosen = draws.uniform() < self.probability
        return choose(chosen, self.augmentation(images, draws), images)


def augment(
    augmentations: Sequence[nn.Module], images: Tensor, labels: Tensor, draws: Draws, num_classes: int
) -> tuple[Tensor, Tensor]:
    """Apply a list of augmentations and mixings to images (N, C, H, W) and labels (N,).

    From the first augmentation that computes in floats, the images are floats in [0, 1]. Labels become soft labels
    (N, num_classes) if the list has a mixing. Raises ValueError unless `draws` are for N samples.
    """
    if (shape := draws.samples.shape) != images.shape[:1]:
        raise ValueError(f"{len(images)} images need draws for as many samples, got the shape {tuple(shape)}")
    if any(isinstance(a, Mixing) for a in augmentations):
        labels = nn.functional.one_hot(labels, num_classes).to(torch.float32)
    for augmentation in augmentations:
        if isinstance(augmentation, Mixing):
            images, labels = augmentation(images, labels, draws)
            continue
        if augmentation.in_float and not images.is_floating_point():
            images = as_float(images)
        images = augmentation(images, draws)
    return images, labels
