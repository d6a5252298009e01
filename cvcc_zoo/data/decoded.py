"""The images of a split as one file of raw uint8 pixels, decoded in parallel."""

from collections.abc import Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

from lightning.pytorch.utilities import rank_zero_info

from cvcc_zoo.data.decode import Decoding, Pixels, Tally, decode_some
from cvcc_zoo.data.opening import UnreadableImageError
from cvcc_zoo.data.workers import Broken, read_files
from cvcc_zoo.files.own import whole_file
from cvcc_zoo.printing.progress import tracked

CHUNK = 256  # images that a process decodes at once
CHUNK_BYTES = 32_000_000  # of their pixels, at most


def decode_all(paths: Sequence[str], target: Path, decoding: Decoding, title: str) -> None:
    """Write all images, (N, C, H, W) in order, to `target`: to a temporary file first, renamed when it is whole.

    Raises UnreadableImageError, which names all that cannot be read, NeedsOptionError for the first one, and
    OSError, which says what to do, if the file cannot be written.
    """
    size = decoding.in_channels * decoding.image_size**2
    chunk = max(1, min(CHUNK, CHUNK_BYTES // size))
    chunks = [paths[start : start + chunk] for start in range(0, len(paths), chunk)]
    tally, broken = Tally(), list[ValueError]()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(target) as file, closing(read_files(chunks, partial(decode_some, decoding=decoding))) as parts:
            for decoded, wrong in tracked(parts, f"decoding {title}", len(paths), _images_of):
                broken += wrong.values()
                if decoded:
                    pixels, counted = decoded
                    tally.merge(counted)
                    if not broken:
                        file.write(pixels.data)
            raise_all(broken)
    except OSError as error:
        raise OSError(
            f"the decoded images of {title} take {len(paths) * size / 1e6:,.1f} MB in {target.parent}, which cannot "
            f"be written ({error.strerror or error}); make room there, or choose another folder: $CVCC_ZOO_DATA"
        ) from error
    for line in tally.lines():
        rank_zero_info(f"{title}: {line}")


def _images_of(part: tuple[tuple[Pixels, Tally] | None, Broken]) -> int:
    """How many images were decoded, or could not be."""
    return (len(part[0][0]) if part[0] else 0) + len(part[1])


def raise_all(broken: Sequence[ValueError]) -> None:
    """Raise one error that says what is wrong with each image, if there is any."""
    if len(broken) == 1:
        raise broken[0]
    if broken:
        lines = "\n".join(f"  {error}" for error in broken)
        raise UnreadableImageError(f"{len(broken):,} images cannot be read:\n{lines}", broken)
