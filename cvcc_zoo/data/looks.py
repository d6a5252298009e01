"""How images look: a digest of all pixels, and a small grey copy, from which near duplicates are found."""

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from cvcc_zoo.data.bands import UprightImage
from cvcc_zoo.data.decode import Decoding, Pixels
from cvcc_zoo.data.opening import NeedsOptionError, UnreadableImageError, open_image
from cvcc_zoo.data.shaping import eight_bits, is_deep, opaque

DIGEST = 16  # bytes
SIDE = 16  # pixels of the small grey copy
Looks = tuple[Pixels, Pixels]
"""The digests (N, DIGEST) and the small grey copies (N, SIDE, SIDE) of images."""


def look_at_some(paths: Sequence[str], max_pixels: int) -> tuple[Looks, dict[str, ValueError]]:
    """Return the looks of the images that can be read, in order, and the errors of the others by path.

    A job for `workers.read_files`.
    """
    decoding = Decoding(SIDE, 1, same_size=False, grey_only=False, max_pixels=max_pixels)
    digests, small, broken = [np.empty((0, DIGEST), np.uint8)], [decoding.none()], dict[str, ValueError]()
    for path in paths:
        try:
            with open_image(path, max_pixels) as file:
                grey, upright = decoding.pixels(path, file), UprightImage.decoded(file)
                digests.append(digest(upright.then(eight_bits) if is_deep(file) else upright)[None])
                small.append(grey[None])
        except (UnreadableImageError, NeedsOptionError) as error:
            broken[path] = error
    return (np.concatenate(digests), np.concatenate(small)[:, 0]), broken


def digest(image: UprightImage) -> Pixels:
    """Return a hash (DIGEST,) of the size and the pixels of an image, in RGB on a white background."""
    found = hashlib.blake2b("{}x{}:".format(*image.size).encode(), digest_size=DIGEST)
    for _, band in image.bands():
        found.update(np.asarray(opaque(band, "white").convert("RGB")).tobytes())
    return np.frombuffer(found.digest(), np.uint8)


def difference_hash(small: Pixels) -> npt.NDArray[np.uint64]:
    """Return 64 bits (N,) for small grey copies (N, SIDE, SIDE): is a cell of 8x8 brighter than the one on its right?

    The last cell of a row is compared with the first.
    """
    cells = small.reshape(len(small), 8, SIDE // 8, 8, SIDE // 8).sum((2, 4), dtype=np.int32)
    bits = np.packbits((cells > np.roll(cells, -1, axis=2)).reshape(len(small), 64), axis=1)
    return bits.view(np.uint64).ravel()
