"""Open image files without decoding them: the formats that are read, and the limits of their size."""

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
from cvcc_zoo.data.worker import allow, out_of_memory
from cvcc_zoo.files.own import shown

MAX_PIXELS = 64_000_000
MEMORY_PER_PIXEL = {"JPEG": 8, "TIFF": 12, "AVIF": 12, "WEBP": 20}
"""Bytes that a decoder may use beyond its first 200 MB, by format: measured 6, 8, 9 and 16 (progressive, turned)."""
MEMORY_OF_OTHERS = 6  # measured 4
MAX_SIDE = 65_535  # pixels, the limit of a JPEG; resizing a longer row takes gigabytes
HEADER = 30  # bytes of a WebP, with its size


_READERS = {
    "PNG": PngImagePlugin, "JPEG": JpegImagePlugin, "WEBP": WebPImagePlugin, "GIF": GifImagePlugin,
    "BMP": BmpImagePlugin, "TIFF": TiffImagePlugin, "PPM": PpmImagePlugin, "AVIF": AvifImagePlugin,
}  # fmt: skip
FORMATS = tuple(_READERS)
"""Formats that are read. Pillow starts another program for EPS, and decodes ICO before its size can be checked."""
HEIF = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1")
"""Brands of the photos of phones, HEIC; AVIF shares the last two: https://nokiatech.github.io/heif/technical.html"""
BRANDS = {**dict.fromkeys(HEIF, "HEIC"), b"crx ": "CR3"}
STARTS = {b"8BPS": "PSD", b"\xff\x0a": "JPEG XL", b"\0\0\0\x0cJXL ": "JPEG XL", b"\0\0\0\x0cjP  ": "JPEG 2000"}
"""Formats of images that are not read, by the brand in the box `ftyp` and by the first bytes of a file."""


class UnreadableImageError(ValueError):
    """A file is not a usable image; the message says which file, why, and what to do.

    `each` holds the error of every file if there are several.
    """

    def __init__(self, message: str, each: "Sequence[ValueError]" = ()) -> None:
        super().__init__(message)
        self.each = tuple(each) or (self,)


class UnknownFormatError(UnreadableImageError):
    """A file is empty, or has none of the formats that are read."""


class NeedsOptionError(ValueError):
    """An image is valid, but too large or unlike the first one; the message says which option accepts it."""


@contextmanager
def open_image(path: Path | str, max_pixels: int = MAX_PIXELS) -> Iterator[Image.Image]:
    """Open an image file and read only its header.

    Raises UnreadableImageError, which names the path, if the file is not an image or anything fails while it is open,
    and NeedsOptionError for more than `max_pixels` pixels.
    """
    try:
        allow(0)
        with _regular_file(path) as file:
            if size := webp_size(file.read(HEADER)):
                check_size(path, size, max_pixels)
                allow(size[0] * size[1], MEMORY_PER_PIXEL["WEBP"])
            file.seek(0)
            with Image.open(file, formats=FORMATS) as image:
                check_size(path, image.size, max_pixels)
                _check_tiles(image)
                allow(image.width * image.height, MEMORY_PER_PIXEL.get(image.format or "", MEMORY_OF_OTHERS))
                yield image
    except (UnreadableImageError, NeedsOptionError):
        raise
    except MemoryError as error:
        out_of_memory()
        raise _unreadable(path, error) from error
    except Exception as error:  # Pillow's readers raise errors of any kind
        raise _unreadable(path, error) from error


def _regular_file(path: Path | str) -> IO[bytes]:
    """Open a regular file, whole or, if it is a JPEG, as returned by `whole_jpeg`."""
    try:
        regular = stat.S_ISREG(os.stat(path).st_mode)  # noqa: PTH116  (Path objects would double the time)
    except FileNotFoundError:
        raise UnreadableImageError(f"{shown(path)} no longer exists; start again without it") from None
    if not regular:
        raise UnreadableImageError(f"{shown(path)} is a folder, pipe or device, not a file; start again without it")
    file = open(path, "rb")  # noqa: PTH123, SIM115
    if file.peek(3)[:3] != b"\xff\xd8\xff":
        return file
    with file:
        return io.BytesIO(whole_jpeg(file.read()))


def check_size(path: Path | str, size: tuple[int, int], max_pixels: int = MAX_PIXELS) -> None:
    """Raise NeedsOptionError or ValueError if an image of this size would need too much memory."""
    width, height = size
    if width * height > max_pixels:
        raise NeedsOptionError(
            f"{shown(path)} has {width:,}x{height:,} pixels, more than the limit of {max_pixels:,}; "
            "make it smaller, move it away, or raise the limit (--data.max_pixels=...)"
        )
    if max(width, height) > MAX_SIDE:
        raise ValueError(f"{width:,}x{height:,} pixels, but a side may have at most {MAX_SIDE:,}")


def _check_tiles(image: Image.Image) -> None:
    """Raise ValueError for a TIFF whose tiles would need much more memory than the image."""
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        (width, height), tags = image.size, (TiffImagePlugin.TILEWIDTH, TiffImagePlugin.TILELENGTH)
        tile = [int(image.tag_v2.get(tag, 0)) for tag in tags]
        if tile[0] * tile[1] > 4 * max(width, 256) * max(height, 256):
            raise ValueError(f"tiles of {tile[0]:,}x{tile[1]:,} pixels in an image of {width:,}x{height:,}")


def _unreadable(path: Path | str, error: Exception) -> UnreadableImageError:
    """Return the error for a file that Pillow cannot read as an image."""
    reason, advice = str(error) or type(error).__name__, "repair it or move it away"
    if isinstance(error, UnidentifiedImageError) and (name := other_format(path)):
        reason, advice = f"its format is {name}", "convert it to JPEG or PNG"
    elif isinstance(error, UnidentifiedImageError):
        reason = f"not one of {', '.join(FORMATS)}" if os.stat(path).st_size else "it is empty"  # noqa: PTH116
        return UnknownFormatError(f"{shown(path)} is not an image that can be read ({reason}); {advice}")
    elif isinstance(error, PermissionError):
        reason, advice = "no permission", "give yourself permission to read it (chmod u+r), or move it away"
    elif isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        reason, advice = "more pixels than Pillow decodes", "make it smaller or move it away"
    return UnreadableImageError(f"{shown(path)} is not an image that can be read ({reason}); {advice}")


def other_format(path: Path | str) -> str:
    """Return the name of a format of images that is not read, by the first bytes of a file; empty for other files."""
    with open(path, "rb") as file:  # noqa: PTH123
        start = file.read(64)
    if start[4:8] == b"ftyp" and b"avif" not in start:  # or it is a damaged AVIF
        return BRANDS.get(start[8:12], "")
    return next((name for first, name in STARTS.items() if start.startswith(first)), "")


def webp_size(header: bytes) -> tuple[int, int] | None:
    """Return width and height from the first 30 bytes of a file (RFC 9649), or None if it is not a WebP.

    Pillow allocates all pixels of a WebP when it opens the file, before its size can be checked.
    """
    if header[:4] != b"RIFF" or header[8:12] != b"WEBP" or len(header) < HEADER:
        return None
    kind = header[12:16]
    if kind == b"VP8X":  # 24 bits each, minus one
        return 1 + int.from_bytes(header[24:27], "little"), 1 + int.from_bytes(header[27:30], "little")
    if kind == b"VP8L":  # 14 bits each, minus one
        bits = int.from_bytes(header[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"VP8 ":  # 14 bits each
        return tuple(int.from_bytes(header[at : at + 2], "little") & 0x3FFF for at in (26, 28))  # type: ignore[return-value]
    return None
