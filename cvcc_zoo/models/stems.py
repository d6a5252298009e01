"""Stems for small images: the first layers of a network of timm without the strides that shrink them.

timm's own data say which layers those are: `default_cfg["first_conv"]` names the convolution that takes the images, and
the pattern `stem` of `group_matcher` all layers before the first stage.
"""

import re
from typing import Any

import torch
from torch import nn

STEMS = ("standard", "small")
PATCHES = 8  # per side of an image, in place of the 14 of a vision transformer for 224 pixels


def make_small(network: nn.Module, name: str) -> bool:
    """Set the strides of a network's stem to 1 and leave out its pooling; a larger first window becomes 3x3.

    Return whether the first convolution is new. The maps after the stem are as large as the images. Raises ValueError
    for a network whose stem is not known, or shrinks nothing.
    """
    first = vars(network)["default_cfg"].get("first_conv")
    patterns = _patterns(network)
    if not isinstance(first, str) or not patterns or not isinstance(network.get_submodule(first), nn.Conv2d):
        raise ValueError(
            f"stem=small is not defined for timm.{name}, whose stem is not one convolution that timm names; leave it "
            "out, or choose another network, such as timm.resnet18"
        )
    changed = new = False
    for path, module in list(network.named_modules()):
        if path != first and not any(re.match(pattern, path) for pattern in patterns):
            continue
        if _stride(module) == 1:
            continue
        changed = True
        if not isinstance(module, nn.Conv2d):
            _replace(network, path, nn.Identity())
        elif path == first and max(module.kernel_size) > 3:
            _replace(network, path, _window(module))
            new = True
        else:
            module.stride = (1, 1)
    if not changed:
        raise ValueError(f"the stem of timm.{name} has no stride: it takes small images as it is; leave stem=small out")
    return new


def patches_of(name: str, image_size: int) -> int:
    """Return the side of the patches, in pixels, of a network that cuts images into patches and needs their size.

    It is an eighth of the image, or 1 if the first patches of the network are small and merged later, as in Swin.
    Raises ValueError for a network that does not take a size of patches.
    """
    import timm  # takes a second

    with torch.device("meta"):
        network = timm.create_model(name)
    first = vars(network)["default_cfg"].get("first_conv")
    convolution: Any = network.get_submodule(first) if isinstance(first, str) else None
    if not isinstance(convolution, nn.Conv2d) or convolution.kernel_size != convolution.stride:
        raise ValueError(
            f"stem=small is not defined for timm.{name}, whose images have a fixed size and no patches; leave it out, "
            "or choose another network, such as timm.resnet18"
        )
    if convolution.stride[0] < PATCHES:
        return 1
    if image_size % PATCHES:
        raise ValueError(
            f"timm.{name} with stem=small has {PATCHES}x{PATCHES} patches, which do not fill {image_size} pixels; "
            f"choose an image size that is a multiple of {PATCHES}, or --model.patch_size=..."
        )
    return image_size // PATCHES


def _patterns(network: Any) -> list[str]:
    """Return the regular expressions of the names of a network's stem; none if timm does not say."""
    matcher = getattr(network, "group_matcher", None)
    groups = matcher(coarse=True) if callable(matcher) else None
    stem = groups.get("stem") if isinstance(groups, dict) else None
    if isinstance(stem, str):
        return [stem]
    return [pattern for pattern, _ in stem or ()]


def _stride(module: nn.Module) -> int:
    """Return the stride of a convolution or of pooling, 1 for other modules."""
    if not isinstance(module, nn.Conv2d) and "pool" not in type(module).__name__.lower():
        return 1
    stride: Any = getattr(module, "stride", 1)
    return int(stride[0] if isinstance(stride, tuple) else stride)


def _window(convolution: nn.Conv2d) -> nn.Conv2d:
    """Return a fresh 3x3 convolution with the channels of another one; He et al.'s initialisation by fan-out."""
    like = convolution.weight
    new = nn.Conv2d(
        convolution.in_channels,
        convolution.out_channels,
        3,
        padding=1,
        bias=convolution.bias is not None,
        device=like.device,
        dtype=like.dtype,
    )
    nn.init.kaiming_normal_(new.weight, mode="fan_out", nonlinearity="relu")
    if new.bias is not None:
        nn.init.zeros_(new.bias)
    return new


def _replace(network: nn.Module, path: str, module: nn.Module) -> None:
    parent, _, last = path.rpartition(".")
    setattr(network.get_submodule(parent), last, module)
