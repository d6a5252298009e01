"""Exact and near duplicates among images, found by their looks (`looks.py`).

Near duplicates have almost the same difference hash and almost the same small grey copy: the same picture in another
size, format or compression, or slightly changed. A crop, a mirror image or another photo of the same object is not one.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from cvcc_zoo.data.decode import Pixels
from cvcc_zoo.data.looks import Looks, difference_hash

# Of the 60,000 images of CIFAR-100 these find 63 pairs, and all that were looked at show one photo. If GREY is 8 to 12,
# half of the pairs do not; and 6 already finds many pairs of Fashion-MNIST, such as any two trousers.
BITS = 8  # of 64 in which the difference hashes of near duplicates may differ
GREY = 4.0  # mean absolute difference of their small grey copies, of 255
BLOCK = 2**20  # pairs of hashes that are compared at once
CHUNK = 2**14  # pairs of small copies that are compared at once
Numbers = npt.NDArray[np.int64]


def duplicates(looks: Looks) -> tuple[Numbers, Numbers]:
    """Return the numbers of two sets for each image (N,): of those with the same pixels, and of near duplicates too.

    Sets of near duplicates are connected: each image in one is a near duplicate of another, not of every other.
    """
    digests, small = looks
    whole = np.ascontiguousarray(digests).view(f"V{digests.shape[1]}").ravel()
    _, first, exact = np.unique(whole, return_index=True, return_inverse=True)
    pairs = [np.empty((0, 2), np.int64), *near_pairs(small[first])]
    near = connected(len(first), np.concatenate(pairs))
    return exact.astype(np.int64), near[exact]


def near_pairs(small: Pixels) -> Iterator[Numbers]:
    """Yield the pairs (P, 2) of near duplicates among small grey copies (N, side, side), block by block."""
    hashes, flat = difference_hash(small), small.reshape(len(small), -1).astype(np.int16)
    rows = max(1, BLOCK // max(1, len(hashes)))
    for start in range(0, len(hashes), rows):
        distance = np.bitwise_count(hashes[start : start + rows, None] ^ hashes[None, start:])
        pairs = np.argwhere(distance <= BITS) + start
        pairs = pairs[pairs[:, 0] < pairs[:, 1]]
        for part in range(0, len(pairs), CHUNK):
            some = pairs[part : part + CHUNK]
            yield some[np.abs(flat[some[:, 0]] - flat[some[:, 1]]).mean(1) <= GREY]


def connected(count: int, pairs: Numbers) -> Numbers:
    """Return the number (count,) of the connected set of each of `count` items, which the pairs (P, 2) connect."""
    graph = coo_array((np.ones(len(pairs), np.bool_), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    found: Numbers = connected_components(graph, directed=False)[1].astype(np.int64)
    return found


def joined(groups: Numbers, near: Numbers) -> Numbers:
    """Return the numbers of the smallest sets (N,) that divide neither a group nor a set of near duplicates."""
    first = groups.max() + 1
    sets = connected(int(first + near.max() + 1), np.stack([groups, near + first], axis=1))
    return np.unique(sets[groups], return_inverse=True)[1].astype(np.int64)


def members(sets: Numbers) -> list[Numbers]:
    """Return the images of each set, given the number of the set of each image (N,), which are 0, 1, ..."""
    return np.split(np.argsort(sets, kind="stable"), np.cumsum(np.bincount(sets))[:-1])


def several(sets: Numbers) -> npt.NDArray[np.bool_]:
    """Return whether each image (N,) shares its set with another one."""
    found: npt.NDArray[np.bool_] = (np.bincount(sets) > 1)[sets]
    return found
