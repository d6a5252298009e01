"""Augmentation of a whole batch with an independent draw for every sample: images in, images out.

torchvision's random transforms draw one set of parameters for a batch; these draw one for each image.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cvcc_zoo.data.draws import Draws
from cvcc_zoo.registry import as_spec, check_options, unknown


class RandomCrop(nn.Module):
    """Pad each side with `padding` zero pixels and cut a window of the old size at a random place.

    All (2 padding + 1)^2 places are equally likely: 81 for the usual padding of 4 (He et al. 2015, section 4.2).
    """

    def __init__(self, padding: int = 4) -> None:
        super().__init__()
        if padding < 1:
            raise ValueError(f"RandomCrop needs a padding of at least 1 pixel, got {padding}")
        self.padding = padding

    def forward(self, images: Tensor, draws: Draws) -> Tensor:
        """Images (N, C, H, W) of any type to images of the same shape and type."""
        n, _, height, width = images.shape
        padded = F.pad(images, [self.padding] * 4)
        top, left = draws.integers(2 * self.padding + 1), draws.integers(2 * self.padding + 1)
        windows = padded.unfold(2, height, 1).unfold(3, width, 1)  # (N, C, places, places, H, W), a view
        return windows[torch.arange(n, device=images.device), :, top, left]


class HorizontalFlip(nn.Module):
    """Mirror each image left to right with a `probability` in [0, 1]."""

    def __init__(self, probability: float = 0.5) -> None:
        super().__init__()
        if not 0 <= probability <= 1:
            raise ValueError(f"HorizontalFlip: probability must be in [0, 1], got {probability}")
        self.probability = probability

    def forward(self, images: Tensor, draws: Draws) -> Tensor:
        """Images (N, C, H, W) of any type to images of the same shape and type."""
        mirrored = draws.uniform() < self.probability
        return torch.where(mirrored[:, None, None, None], images.flip(-1), images)


AUGMENTATIONS: dict[str, Callable[..., nn.Module]] = {c.__name__: c for c in (RandomCrop, HorizontalFlip)}
PRESETS: dict[str, tuple[str, ...]] = {"none": (), "standard": ("RandomCrop", "HorizontalFlip")}


def make_augmentations(chosen: str | Sequence[str | Mapping[str, Any]], *, mirror: bool = True) -> list[nn.Module]:
    """A preset's name, or a list of augmentations by name or `{"name": ..., option: value}`, as modules.

    With `mirror=False` (digits) the presets leave HorizontalFlip out. Raises ValueError with the nearest names.
    """
    if isinstance(chosen, str):
        if chosen not in PRESETS:
            raise unknown("augmentation preset", chosen, PRESETS, "or give a list of augmentations")
        chosen = [name for name in PRESETS[chosen] if mirror or name != "HorizontalFlip"]
    modules = []
    for item in chosen:
        options = as_spec("augmentation", item)
        name = options.pop("name")
        if name not in AUGMENTATIONS:
            raise unknown("augmentation", name, AUGMENTATIONS)
        check_options(f"augmentation {name}", AUGMENTATIONS[name], options)
        modules.append(AUGMENTATIONS[name](**options))
    return modules
