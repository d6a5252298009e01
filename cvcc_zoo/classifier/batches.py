"""Batches of images and labels: taken apart, and checked; the errors say what to do."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor


def fields(batch: Any) -> tuple[Tensor, Tensor]:
    """Return the images and labels of a batch; integer labels as int64. Raises ValueError unless it is such a pair."""
    if isinstance(batch, Mapping | Tensor) or len(batch) != 2:
        kind = f"with {', '.join(map(str, batch))}" if isinstance(batch, Mapping) else f"of {len(batch)} parts"
        kind = "of images alone" if isinstance(batch, Tensor) else kind
        raise ValueError(f"a batch must be a pair (images, labels), not one {kind}; let the data set return pairs")
    images, labels = batch
    if not isinstance(images, Tensor):
        raise ValueError(
            f"the images of a batch must be a tensor, not a {type(images).__name__}; let the data set return tensors, "
            "and give one loader"
        )
    if not isinstance(labels, Tensor):
        raise ValueError(
            f"the labels of a batch must be a tensor, not a {type(labels).__name__}; let the data set return the "
            "number of each image's class, such as classes.index(name)"
        )
    return images, labels if labels.is_floating_point() else labels.long()


def images_alone(batch: Any) -> Tensor | None:
    """Return the images of a batch without labels, which is a tensor, or a list or tuple of one; else None."""
    if isinstance(batch, list | tuple) and len(batch) == 1:
        batch = batch[0]
    return batch if isinstance(batch, Tensor) else None


def classes_of(labels: Tensor) -> Tensor:
    """Return the class of each image, int64 (N,): of soft labels (N, num_classes) that with the largest share."""
    return labels.argmax(1) if labels.is_floating_point() else labels


def precise_logits(logits: Tensor, num_classes: int) -> Tensor:
    """Return logits in float32 or float64: in bfloat16, as with precision=bf16-true, a loss has three digits.

    Raises ValueError unless their shape is (N, num_classes).
    """
    if logits.ndim != 2 or logits.shape[1] != num_classes:
        count = logits.shape[-1] if logits.ndim == 2 else num_classes
        raise ValueError(
            f"the model has {num_classes} classes, but its network returns {tuple(logits.shape)}, not (N, {num_classes}"
            f"); let the model replace its classifier: model.reset_classifier({count})"
        )
    return logits.float() if logits.dtype.itemsize < 4 else logits
