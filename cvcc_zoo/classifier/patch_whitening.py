"""Patch whitening: a first convolution whose filters whiten the patches of the images, set once and frozen.

https://arxiv.org/abs/2404.00498, section 3.2 (airbench), after tysam-code's hlb-CIFAR10: if S is the second moment of
the patches and S = U diag(l) U^T, the filters are u_i / sqrt(l_i + eps) and their negatives, so that both signs survive
the activation. If eps is 0, directions without variance get filters of zeros.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

IMAGES = 5000  # airbench
SEED = 0  # of the random combinations


def first_convolution(network: nn.Module, in_channels: int, purpose: str = "patch_whitening sets") -> nn.Conv2d:
    """Return the convolution that takes the images. Raises ValueError if the network starts with something else."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and module.in_channels == in_channels and module.groups == 1:
            return module
    raise ValueError(
        f"{purpose} the first convolution, but this network has no convolution that takes the images; "
        "leave it out, or choose a convolutional model"
    )


def patch_filters(x: Tensor, kernel_size: tuple[int, int], count: int, eps: float) -> Tensor:
    """Compute filters (count, C, *kernel_size), float64, from whitened images (N, C, H, W).

    The principal directions come first, strongest first, each followed by its negative. If `count` is larger, the
    others are random combinations of them with unit norm, so that all filters have responses of the same variance.
    """
    patches = F.unfold(x.to(torch.float64), kernel_size).transpose(0, 1).flatten(1)  # (C k k, N patches)
    values, vectors = torch.linalg.eigh(patches @ patches.T / patches.shape[1])
    values, vectors = values.flip(0).clamp(min=0), vectors.flip(1)
    vectors = vectors * vectors.gather(0, vectors.abs().argmax(0, keepdim=True))[0].sign()
    noise = values[0] * len(values) * torch.finfo(torch.float64).eps  # as in numpy.linalg.matrix_rank
    scale = torch.where(values + eps > noise, values + eps, torch.inf).sqrt()
    whitening = (vectors / scale).T  # (C k k, C k k)
    filters = torch.stack([whitening, -whitening], 1).flatten(0, 1)[:count]
    if count > len(filters):
        generator = torch.Generator().manual_seed(SEED)
        mixture = torch.randn(count - len(filters), len(values), generator=generator, dtype=torch.float64)
        filters = torch.cat([filters, F.normalize(mixture).to(whitening) @ whitening])
    return filters.view(count, x.shape[1], *kernel_size)


@torch.no_grad()
def whiten_patches(network: nn.Module, x: Tensor, eps: float) -> None:
    """Set the filters of the first convolution from whitened images (N, C, H, W); its bias is trained."""
    convolution = first_convolution(network, x.shape[1])
    kernel_size = (convolution.kernel_size[0], convolution.kernel_size[1])
    convolution.weight.copy_(patch_filters(x, kernel_size, convolution.out_channels, eps))
