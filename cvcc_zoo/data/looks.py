"""How images look: a digest of all pixels, and a small grey copy, from which near duplicates are found."""

import hashlib

import numpy as np
import numpy.typing as npt

from cvcc_zoo.data.bands import UprightImage
from cvcc_zoo.data.decode import Decoding, Pixels
from cvcc_zoo.data.opening import open_image
from cvcc_zoo.data.shaping import eight_bits, is_deep, opaque

DIGEST = 16  # bytes
SIDE = 16  # pixels of the small grey copy
Looks = tuple[Pixels, Pixels]
"""The digests (N, DIGEST) and the small grey copies (N, SIDE, SIDE) of images."""


def look_at(path: str, max_pixels: int) -> tuple[Pixels, Pixels]:
    """Return the digest (DIGEST,) and the small grey copy (SIDE, SIDE) of a file. Raises the errors of `open_image`."""
    decoding = Decoding(SIDE, 1, same_size=False, grey_only=False, max_pixels=max_pixels)
    with open_image(path, max_pixels) as file:
        grey, upright = decoding.pixels(path, file), UprightImage.decoded(file)
        return digest(upright.then(eight_bits) if is_deep(file) else upright), grey[0]


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
