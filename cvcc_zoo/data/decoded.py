"""Decode the images of a split in parallel into one file of raw uint8 pixels."""

from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path

from lightning.pytorch.utilities import rank_zero_info

from cvcc_zoo.data.decode import Decoding, Tally
from cvcc_zoo.data.opening import NeedsOptionError, UnreadableImageError
from cvcc_zoo.data.workers import AT_ONCE, read_each
from cvcc_zoo.files.own import shown, whole_file, write_whole
from cvcc_zoo.printing.progress import tracked

REMARKS = ".remarks"  # the suffix of a file beside decoded images
CHUNK_BYTES = 32_000_000  # upper limit of the pixels that a process decodes at once


def decode_all(paths: Sequence[str], target: Path, decoding: Decoding, title: str) -> None:
    """Write all images, (N, C, H, W) in order, to `target`, by way of a temporary file that is renamed when complete.

    What a user should know about them is printed, and kept by `keep_remarks`.

    Raises UnreadableImageError, which names every image that cannot be read, NeedsOptionError for the first image
    that needs an option, and OSError if the file cannot be written.
    """
    size = decoding.in_channels * decoding.image_size**2
    at_once = max(1, min(AT_ONCE, CHUNK_BYTES // size))
    tally, broken = Tally(), list[ValueError]()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(target) as file, closing(read_each(paths, decoding.counted, at_once)) as images:
            for _, found in tracked(images, f"decoding {title}", len(paths), lambda _: 1):
                if isinstance(found, NeedsOptionError):
                    raise found
                if isinstance(found, ValueError):
                    broken.append(found)
                    continue
                pixels, counted = found
                tally.merge(counted)
                if not broken:
                    file.write(pixels.data)
            raise_all(broken)
            keep_remarks(target, tally)
    except OSError as error:
        raise OSError(
            f"the decoded images of {title} take {len(paths) * size / 1e6:,.1f} MB and cannot be written to "
            f"{target.parent} ({error.strerror or error}); make room there, or choose another folder: $CVCC_ZOO_DATA"
        ) from error
    for line in tally.lines():
        rank_zero_info(f"{title}: {line}")


def keep_remarks(target: Path, tally: Tally) -> None:
    """Write what a user should know about the decoded images to a file beside `target`, if there is anything."""
    if lines := tally.lines():
        write_whole(target.with_suffix(REMARKS), "\n".join(lines).encode(errors="surrogateescape"))


def tell_remarks(target: Path, title: str) -> None:
    """Print what `keep_remarks` wrote beside `target`, on the first process."""
    with suppress(OSError):  # there is none, or it is the file of another user
        for line in target.with_suffix(REMARKS).read_text(encoding="utf-8", errors="replace").splitlines():
            rank_zero_info(f"{title}: {shown(line)}")


def remove_decoded(target: Path) -> None:
    """Remove a file of decoded images, and the remarks about them."""
    target.unlink(missing_ok=True)
    target.with_suffix(REMARKS).unlink(missing_ok=True)


def raise_all(broken: Sequence[ValueError]) -> None:
    """Raise one error that lists all of these, if there are any."""
    if len(broken) == 1:
        raise broken[0]
    if broken:
        lines = "\n".join(f"  {error}" for error in broken)
        raise UnreadableImageError(f"{len(broken):,} images cannot be read:\n{lines}", broken)
