"""Divide images into splits: stratified by class, and groups of images that stay together."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from cvcc_zoo.data.balance import permutation
from cvcc_zoo.data.duplicates import Numbers, members


def partition(labels: Numbers, groups: Numbers, shares: dict[str, float], seed: int, classes: Sequence[str]) -> Numbers:
    """Return the position in `shares` of the split of each image (N,).

    The images of a group (N,) stay together. Each class is divided as the shares say, to whole images by the largest
    remainder and with at least one in each split; exactly if all groups have one image, otherwise as well as a greedy
    choice can: groups come from the largest to the smallest, those of the same size in the order of the seed, and each
    goes where it brings the counts closest to what they should be, which is the idea of scikit-learn's
    StratifiedGroupKFold, but the last groups of a class go where it has no image yet. Raises ValueError for a class
    that cannot be in every split.
    """
    totals = np.bincount(labels, minlength=len(classes))
    for label, total in enumerate(totals.tolist()):
        if total < len(shares):
            raise ValueError(
                f"the class {classes[label]!r} has {total} image{'s' * (total != 1)}, too few for "
                f"{' and '.join(shares)}; add images, or {_otherwise(shares, total)}"
            )
    wanted = np.stack([largest_remainder(total, list(shares.values())) for total in totals.tolist()], axis=1)
    together = members(groups)
    shuffled = permutation(len(together), seed).tolist()
    filled, found = np.zeros_like(wanted), np.zeros_like(labels)
    left = np.bincount(np.concatenate([np.unique(labels[images]) for images in together]), minlength=len(classes))
    groups_of = left.tolist()
    for images in sorted((together[number] for number in shuffled), key=len, reverse=True):
        own, counts = np.unique(labels[images], return_counts=True)
        missing = wanted[:, own] - filled[:, own]
        # How much the squared distance from what is wanted grows, as a share of it.
        growth = (counts * (counts - 2 * missing) / wanted[:, own]).sum(1)
        # A class with no more groups left than splits without it needs each of them in another split.
        empty = filled[:, own] == 0
        needed = (empty & (left[own] <= empty.sum(0))).sum(1)
        found[images] = split = int(np.where(needed == needed.max(), growth, np.inf).argmin())
        filled[split, own] += counts
        left[own] -= 1
    if not filled.all():
        split, label = np.argwhere(filled == 0)[0]
        raise ValueError(
            f"no group of images is left for the class {classes[label]!r} in {list(shares)[split]}, because images of "
            f"a group stay together; add groups, choose another --seed, or {_otherwise(shares, groups_of[label])}"
        )
    return found


def _otherwise(shares: dict[str, float], count: int) -> str:
    """Return what else helps if a class has too few images or groups: no validation, if `count` are enough then."""
    return "leave out a split: --val=0" if "val" in shares and count >= len(shares) - 1 else "leave the class out"


def largest_remainder(count: int, shares: Sequence[float]) -> Numbers:
    """Divide `count` as the shares say, into whole numbers of at least 1: https://en.wikipedia.org/wiki/Quota_method.

    `count` must be at least the number of shares, which sum up to 1.
    """
    # Rounding errors must not decide between equal remainders.
    exact: npt.NDArray[np.float64] = (count * np.array(shares)).round(9)
    found: Numbers = np.floor(exact).astype(np.int64)
    by_remainder = np.argsort(found - exact, kind="stable")
    found[by_remainder[: count - found.sum()]] += 1
    while (found < 1).any():
        found[found.argmax()] -= 1
        found[found.argmin()] += 1
    return found
