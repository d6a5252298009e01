"""Stratified split: hold out the same share of every class, chosen by a seed."""

from collections.abc import Sequence

import torch
from torch import Tensor


def stratified_split(
    labels: Tensor, share: float, seed: int, classes: Sequence[str] = (), purpose: str = "validation"
) -> tuple[Tensor, Tensor]:
    """Return the sorted positions to keep and to hold out: round(share * n) of the n images of each class.

    `labels` int64 (N,), `share` in [0, 1). A share above 0 holds out at least one image of each class. Raises
    ValueError if that leaves a class without training images; the message has its name from `classes`, and `purpose`.
    """
    if share == 0:
        return torch.arange(len(labels)), torch.arange(0)
    generator = torch.Generator().manual_seed(seed)
    held_out = []
    for label in torch.unique(labels).tolist():
        members = (labels == label).nonzero().flatten()
        count = max(1, round(share * len(members)))
        if count >= len(members):
            name = repr(classes[label]) if classes else label
            raise ValueError(
                f"the class {name} has {len(members)} training image{'s' * (len(members) != 1)}, too few to hold out "
                f"{share:.0%} for the {purpose}; add images, or hold out none: --data.{purpose}=0"
            )
        held_out.append(members[torch.randperm(len(members), generator=generator)[:count]])
    chosen = torch.cat(held_out).sort().values
    mask = torch.ones(len(labels), dtype=torch.bool)
    mask[chosen] = False
    return mask.nonzero().flatten(), chosen
