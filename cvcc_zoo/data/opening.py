"""Image files that are opened but not decoded: which are read, and how large they may be."""

import io
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
)

from cvcc_zoo.data.jpeg import whole_jpeg
from cvcc_zoo.data.webp import HEADER, webp_size
from cvcc_zoo.data.worker import allow, out_of_memory
from cvcc_zoo.files.own import shown

MAX_PIXELS = 64_000_000
MEMORY_PER_PIXEL = {"JPEG": 8, "TIFF": 12, "AVIF": 12, "WEBP": 20}
"""Bytes that a decoder may take beside its first 200 MB, by format: measured 6, 8, 9 and 16 (progressive, turned)."""
MEMORY_OF_OTHERS = 6  # measured 4
MAX_SIDE = 65_535  # pixels; a JPEG has no more, and to resize a longer line takes gigabytes
_READERS = {
    "PNG": PngImagePlugin, "JPEG": JpegImagePlugin, "WEBP": WebPImagePlugin, "GIF": GifImagePlugin,
    "BMP": BmpImagePlugin, "TIFF": TiffImagePlugin, "PPM": PpmImagePlugin, "AVIF": AvifImagePlugin,
}  # fmt: skip
FORMATS = tuple(_READERS)
"""What is read, everywhere. Pillow would start another program for EPS, and decodes ICO before its size is checked."""


class UnreadableImageError(ValueError):
    """A file is not an image that can be used; the message says which file, why, and what to do.

    `each` has the error of every file where there are several.
    """

    def __init__(self, message: str, each: "Sequence[ValueError]" = ()) -> None:
        super().__init__(message)
        self.each = tuple(each) or (self,)


class UnknownFormatError(UnreadableImageError):
    """A file has none of the formats that are read, or nothing at all."""


class NeedsOptionError(ValueError):
    """An image is sound, but too large or not as the first one is; the message says which option takes it."""


@contextmanager
def open_image(path: Path | str, max_pixels: int = MAX_PIXELS) -> Iterator[Image.Image]:
    """An image file whose header is read, and nothing else yet.

    Raises UnreadableImageError, with the path, for what is no image and for what goes wrong while it is open, and
    NeedsOptionError for more than `max_pixels` pixels.
    """
    try:
        allow(0)
        with _regular_file(path) as file:
            if size := webp_size(file.read(HEADER)):
                _check_size(path, size, max_pixels)
                allow(size[0] * size[1], MEMORY_PER_PIXEL["WEBP"])
            file.seek(0)
            with Image.open(file, formats=FORMATS) as image:
                _check_size(path, image.size, max_pixels)
                _check_tiles(image)
                allow(image.width * image.height, MEMORY_PER_PIXEL.get(image.format or "", MEMORY_OF_OTHERS))
                yield image
    except (UnreadableImageError, NeedsOptionError):
        raise
    except MemoryError as error:
        out_of_memory()
        raise _unreadable(path, error) from error
    except Exception as error:  # Pillow's readers raise what they stumble over
        raise _unreadable(path, error) from error


def _regular_file(path: Path | str) -> IO[bytes]:
    """What is to be read of a file: all of it, or a JPEG as `whole_jpeg` gives it."""
    try:
        regular = stat.S_ISREG(os.stat(path).st_mode)  # noqa: PTH116  (a Path for each takes as long again)
    except FileNotFoundError:
        raise UnreadableImageError(f"{shown(path)} is gone; start again without it") from None
    if not regular:
        raise UnreadableImageError(f"{shown(path)} is no file but a folder, pipe or device; start again without it")
    file = open(path, "rb")  # noqa: PTH123, SIM115
    if file.peek(3)[:3] != b"\xff\xd8\xff":
        return file
    with file:
        return io.BytesIO(whole_jpeg(file.read()))


def _check_size(path: Path | str, size: tuple[int, int], max_pixels: int) -> None:
    """Raise for an image that would take more memory than is allowed, by what its header says."""
    width, height = size
    if width * height > max_pixels:
        raise NeedsOptionError(
            f"{shown(path)} has {width:,}x{height:,} pixels, more than the {max_pixels:,} that are "
            "decoded; make it smaller, move it away, or raise the limit (--data.max_pixels=...)"
        )
    if max(width, height) > MAX_SIDE:
        raise ValueError(f"{width:,}x{height:,} pixels, and a side has at most {MAX_SIDE:,}")


def _check_tiles(image: Image.Image) -> None:
    """Raise for a TIFF whose tiles would take much more memory than the image."""
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        (width, height), tags = image.size, (TiffImagePlugin.TILEWIDTH, TiffImagePlugin.TILELENGTH)
        tile = [int(image.tag_v2.get(tag, 0)) for tag in tags]
        if tile[0] * tile[1] > 4 * max(width, 256) * max(height, 256):
            raise ValueError(f"tiles of {tile[0]:,}x{tile[1]:,} pixels in an image of {width:,}x{height:,}")


def _unreadable(path: Path | str, error: Exception) -> UnreadableImageError:
    """The error for a file that Pillow cannot read as an image."""
    reason, advice = str(error) or type(error).__name__, "repair it or move it away"
    if isinstance(error, UnidentifiedImageError):
        reason = f"no image format of {', '.join(FORMATS)}" if os.stat(path).st_size else "it is empty"  # noqa: PTH116
        return UnknownFormatError(f"{shown(path)} is not an image that can be read ({reason}); {advice}")
    if isinstance(error, PermissionError):
        reason, advice = "no permission", "give yourself the right to read it (chmod u+r), or move it away"
    elif isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        reason, advice = "more pixels than Pillow decodes", "make it smaller or move it away"
    return UnreadableImageError(f"{shown(path)} is not an image that can be read ({reason}); {advice}")
