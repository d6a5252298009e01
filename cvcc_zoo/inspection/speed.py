"""Speed of networks: images per second in evaluation and in training."""

import copy
from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from cvcc_zoo.classifier.network import zero_images
from cvcc_zoo.inspection.subjects import Subject
from cvcc_zoo.timing import alternate, default_device, seconds_each

MIN_SECONDS = 0.1
"""The shortest time that is measured in each turn, over as many batches as it takes."""


def rates(subjects: Sequence[Subject], batch_size: int, repeats: int, *, train: bool) -> dict[str, float]:
    """Return the images per second of each network: medians over `repeats` turns, on a GPU if there is one.

    Random images go through a copy of the network, in the memory format of its family. With `train`, the forward pass,
    the backward pass and a step of SGD with momentum are timed; without it the forward pass in evaluation mode. Raises
    ValueError for fewer than one image or turn.
    """
    if batch_size < 1 or repeats < 1:
        raise ValueError(f"batch_size and repeats must be at least 1, got {batch_size} and {repeats}")
    if train and batch_size < 2:
        raise ValueError("norms need more than one image in a training step; give --batch_size=2 or more")
    works = {each.name: (training if train else inference)(each, batch_size) for each in subjects}
    for work in works.values():
        work()  # the first call is slower
    took = alternate({name: partial(seconds_each, work, MIN_SECONDS) for name, work in works.items()}, repeats)
    return {name: batch_size / each for name, each in took.items()}


def inference(subject: Subject, batch_size: int) -> Callable[[], None]:
    """Return a function that runs the forward pass of a batch."""
    network, images = copy.deepcopy(subject.network).to(default_device()).eval(), _images(subject, batch_size)

    def work() -> None:
        with torch.inference_mode():
            network(images)
        _wait()

    return work


def training(subject: Subject, batch_size: int) -> Callable[[], None]:
    """Return a function that runs a training step; the learning rate is 0, so that all steps are alike."""
    network, images = copy.deepcopy(subject.network).to(default_device()).train(), _images(subject, batch_size)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.0, momentum=0.9)
    labels = torch.zeros(batch_size, dtype=torch.int64, device=default_device())

    def work() -> None:
        optimizer.zero_grad()
        torch.autograd.backward(F.cross_entropy(network(images), labels))
        optimizer.step()
        _wait()

    return work


def _images(subject: Subject, batch_size: int) -> Tensor:
    images = torch.randn(batch_size, *subject.shape, generator=torch.Generator().manual_seed(0))
    images = images.to(default_device(), zero_images(subject.network, (0,)).dtype)
    return images.contiguous(memory_format=torch.channels_last) if subject.model.channels_last else images


def _wait() -> None:
    """Wait until the GPU, which works asynchronously, is done."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
