"""Memory that each image of a batch needs in a training step: what autograd saves for the backward pass."""

import copy

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef

from cvcc_zoo.classifier.network import counted, zero_images


def saved_bytes(network: nn.Module, shape: tuple[int, int, int], images: int, device: str = "meta") -> int:
    """Return the bytes that autograd saves in a forward pass in training mode; each storage once, without parameters.

    `images` is the number of images of this `shape` (C, H, W). On the device "meta" nothing is computed, unless the
    network cannot run there.
    """
    if device == "meta":
        return counted(network, (images, *shape), _kept)
    copied = copy.deepcopy(network).to(device)
    return _kept(copied, zero_images(copied, (images, *shape)))


def _kept(network: nn.Module, images: Tensor) -> int:
    parameters = {StorageWeakRef(p.untyped_storage()) for p in network.parameters()}  # type: ignore[no-untyped-call]
    kept: dict[StorageWeakRef, int] = {}  # a weak reference prevents the address from being used again

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        reference = StorageWeakRef(storage)  # type: ignore[no-untyped-call]
        if reference not in parameters:
            kept[reference] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        network.train()(images)
    return sum(kept.values())


def activation_bytes(network: nn.Module, shape: tuple[int, int, int]) -> int:
    """Return the bytes that one more image (C, H, W) in a batch adds, including the image itself.

    As a difference of three images and two, it leaves out what a batch has only once, such as the statistics of norms.
    """
    return saved_bytes(network, shape, 3) - saved_bytes(network, shape, 2)
