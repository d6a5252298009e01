"""Memory of a training step that grows with the images: what is kept of the forward pass for the backward pass."""

import copy

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef


def saved_bytes(network: nn.Module, shape: tuple[int, int, int], images: int, device: str = "meta") -> int:
    """Bytes that autograd keeps of a forward pass in training mode; a storage counts once, and parameters do not.

    `images` are of shape (C, H, W). On the device "meta" nothing is computed.
    """
    network = copy.deepcopy(network).to(device).train()
    parameters = {StorageWeakRef(p.untyped_storage()) for p in network.parameters()}  # type: ignore[no-untyped-call]
    kept: dict[StorageWeakRef, int] = {}  # a weak reference keeps the address from being used again

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        reference = StorageWeakRef(storage)  # type: ignore[no-untyped-call]
        if reference not in parameters:
            kept[reference] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        network(torch.zeros(images, *shape, device=device))
    return sum(kept.values())


def activation_bytes(network: nn.Module, shape: tuple[int, int, int]) -> int:
    """Bytes that one more image (C, H, W) of a batch adds to what is kept, the image itself included.

    As the difference of three images and two it holds nothing that a batch has once, like the statistics of norms.
    """
    return saved_bytes(network, shape, 3) - saved_bytes(network, shape, 2)
