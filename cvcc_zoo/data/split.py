"""Stratified splits: hold out the same share of every class, or a fold of a cross-validation, chosen by a seed."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real

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
            none = "hold out none: --data.validation=0"
            if purpose == "test":
                alone = " --data.validation=0" if len(members) == 1 else ""
                none = f"hold out none, and train without a test: --data.test=0 --test=false{alone}"
            raise ValueError(
                f"the class {name} has {len(members)} training image{'s' * (len(members) != 1)}, too few to hold out "
                f"{share:.0%} for the {purpose}; add images, or {none}"
            )
        held_out.append(members[torch.randperm(len(members), generator=generator)[:count]])
    chosen = torch.cat(held_out).sort().values
    mask = torch.ones(len(labels), dtype=torch.bool)
    mask[chosen] = False
    return mask.nonzero().flatten(), chosen


def stratified_fold(
    labels: Tensor, fold: int, folds: int, seed: int, classes: Sequence[str] = ()
) -> tuple[Tensor, Tensor]:
    """Return the sorted positions to keep and to hold out for fold 1, 2, ... of a cross-validation.

    `labels` int64 (N,). Each position is held out by exactly one fold. The folds' numbers of images of a class, and of
    all images, differ by at most one. Raises ValueError, with the name from `classes`, for a class with fewer images
    than folds.
    """
    generator = torch.Generator().manual_seed(seed)
    place, dealt = torch.empty_like(labels), 0
    for label in torch.unique(labels).tolist():
        members = (labels == label).nonzero().flatten()
        if len(members) < folds:
            name, most = repr(classes[label]) if classes else label, len(members)
            fewer = f", or choose at most {most} folds: --folds={most}, or --data.validation=1/{most}"
            raise ValueError(
                f"the class {name} has {most} training image{'s' * (most != 1)}, too few for {folds} folds; add "
                f"images{fewer * (most > 1)}"
            )
        shuffled = members[torch.randperm(len(members), generator=generator)]
        place[shuffled] = (dealt + torch.arange(len(members))) % folds  # the next class goes on where this one ends
        dealt += len(members)
    held_out = place == fold - 1
    return (~held_out).nonzero().flatten(), held_out.nonzero().flatten()


@dataclass(frozen=True)
class HeldOut:
    """Which training images are held out for validation: a share of each class, or a fold of a cross-validation."""

    share: float
    """Of the images, in [0, 1)."""
    fold: int = 0
    """The number of the fold, from 1; 0 if it is only a share."""
    folds: int = 0

    def split(self, labels: Tensor, seed: int, classes: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Return the sorted positions to keep and to hold out, as `stratified_split` and `stratified_fold` do."""
        if self.fold:
            return stratified_fold(labels, self.fold, self.folds, seed, classes)
        return stratified_split(labels, self.share, seed, classes)


def held_out(validation: float | str) -> HeldOut:
    """Return what a share such as 0.1, or a fold such as "2/5", holds out. Raises ValueError for anything else."""
    if not isinstance(validation, str):
        if not isinstance(validation, Real) or isinstance(validation, bool) or not 0 <= validation < 1:
            raise ValueError(f"validation must be a share of the images in [0, 1), got {validation!r}")
        return HeldOut(validation)
    numbers = re.fullmatch(r"(\d{1,6})/(\d{1,6})", validation)
    fold, folds = map(int, numbers.groups()) if numbers else (0, 0)
    if not 1 <= fold <= folds or folds < 2:
        raise ValueError(
            f"validation must be a share of the images in [0, 1), or a fold such as 2/5, the second of five; got "
            f"{validation!r}"
        )
    return HeldOut(1 / folds, fold, folds)
