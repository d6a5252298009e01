"""Memory of a training step that grows with the images: what is kept of the forward pass for the backward pass."""

import copy

import torch
from torch import Tensor, nn


def saved_bytes(network: nn.Module, shape: tuple[int, int, int], images: int, device: str = "meta") -> int:
    """Bytes that autograd keeps of a forward pass in training mode; a storage counts once, and parameters do not.

    `images` are of shape (C, H, W). On the device "meta" nothing is computed.
    """
    network = copy.deepcopy(network).to(device).train()
    parameters = {p.untyped_storage()._cdata for p in network.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}  # they are held, so that no other storage gets their address

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in parameters:
            kept[storage._cdata] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        network(torch.zeros(images, *shape, device=device))
    return sum(storage.nbytes() for storage in kept.values())


def activation_bytes(network: nn.Module, shape: tuple[int, int, int]) -> int:
    """Bytes that one more image (C, H, W) of a batch adds to what is kept, the image itself included.

    As the difference of three images and two it holds nothing that a batch has once, like the statistics of norms.
    """
    return saved_bytes(network, shape, 3) - saved_bytes(network, shape, 2)
