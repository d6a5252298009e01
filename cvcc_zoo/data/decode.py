"""Image files to one file of raw uint8 pixels, in parallel."""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError
from rich.progress import track

from cvcc_zoo.files import shown, whole_file

GREY_MODES = ("1", "L", "LA")
CHUNK = 256
MAX_PIXELS = 64_000_000  # a thread takes about 0.5 GB to decode as many in colour
FORMATS = ("AVIF", "BMP", "DIB", "GIF", "ICO", "JPEG", "JPEG2000", "PCX", "PNG", "PPM", "QOI", "SGI", "TGA", "TIFF",
           "WEBP")  # fmt: skip
"""What is read; Pillow would start another program for EPS."""


class UnreadableImageError(ValueError):
    """A file is not an image that can be used; the message says which file, why, and what to do."""


def is_grey(image: Image.Image) -> bool:
    """Whether a Pillow image holds no colour."""
    return image.mode in GREY_MODES


@contextmanager
def open_image(path: Path, max_pixels: int = MAX_PIXELS) -> Iterator[Image.Image]:
    """An image file whose header is read, and nothing else yet.

    Raises UnreadableImageError, with the path, for what is no image or has more than `max_pixels` pixels, and for what
    goes wrong while the image is open.
    """
    try:
        if not path.is_file():
            what = "is no file but a folder, pipe or device" if path.exists() else "is gone"
            raise UnreadableImageError(f"{shown(path)} {what}; start again without it")
        with Image.open(path, formats=FORMATS) as image:
            if image.width * image.height > max_pixels:
                raise UnreadableImageError(
                    f"{shown(path)} has {image.width:,}x{image.height:,} pixels, more than the {max_pixels:,} that are "
                    "decoded; make it smaller, move it away, or raise the limit (--data.max_pixels=...)"
                )
            yield image
    except UnreadableImageError:
        raise
    except Exception as error:  # Pillow's readers raise what they stumble over
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> UnreadableImageError:
    """The error for a file that Pillow cannot read as an image."""
    reason, advice = str(error) or type(error).__name__, "repair it or move it away"
    if isinstance(error, UnidentifiedImageError):
        empty = path.exists() and path.stat().st_size == 0
        reason = "it is empty" if empty else f"no image format of {', '.join(FORMATS)}"
    elif isinstance(error, PermissionError):
        reason, advice = "no permission", "give yourself the right to read it (chmod u+r), or move it away"
    elif isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        reason, advice = "more pixels than Pillow decodes", "make it smaller or move it away"
    return UnreadableImageError(f"{shown(path)} is not an image that can be read ({reason}); {advice}")


@dataclass(frozen=True)
class Decoding:
    """What every image becomes: uint8 (in_channels, image_size, image_size).

    `same_size` says that the size was taken from the first image and all must agree, instead of being resized;
    `grey_only` says the same of its lack of colour, so that no colour is lost silently. Images of more than
    `max_pixels` pixels are refused. An image is turned upright by its EXIF orientation, of an animation the first
    picture is taken, transparency is dropped, and 16 bits of a colour become 8.
    """

    image_size: int
    in_channels: int
    same_size: bool
    grey_only: bool
    max_pixels: int = field(default=MAX_PIXELS, repr=False)  # changes no pixel, and so no name of a cache

    def __call__(self, path: Path) -> npt.NDArray[np.uint8]:
        """One image. Raises UnreadableImageError, with the path, if it cannot be read or does not fit."""
        with open_image(path, self.max_pixels) as file:
            return self._pixels(path, file)

    def _pixels(self, path: Path, file: Image.Image) -> npt.NDArray[np.uint8]:
        image = ImageOps.exif_transpose(file)
        image.load()
        if image.mode.startswith(("I", "F")):
            raise UnreadableImageError(
                f"{shown(path)} has more than 8 bits a pixel (mode {image.mode}); convert it to 8 bits first"
            )
        if self.grey_only and not is_grey(image):
            raise UnreadableImageError(
                f"{shown(path)} is in colour (mode {image.mode}), but the first training image is grey; "
                "choose with --data.in_channels=3 (all in colour) or --data.in_channels=1 (all grey)"
            )
        if image.mode == "P":
            image = image.convert("RGBA")
        image = image.convert("RGB" if self.in_channels == 3 else "L")
        size = self.image_size
        if image.size != (size, size):
            if self.same_size:
                raise UnreadableImageError(
                    f"{shown(path)} has {image.width}x{image.height} pixels, but the first training image "
                    f"{size}x{size}; give the size to resize all images to: --data.image_size={size}"
                )
            image = image.resize((size, size), Image.Resampling.BICUBIC)
        return np.asarray(image).reshape(size, size, self.in_channels).transpose(2, 0, 1)


def decode_all(paths: Sequence[str], target: Path, decoding: Decoding, title: str) -> None:
    """Write all images, (N, C, H, W) in order, to `target`: to a temporary file first, renamed when it is whole.

    Raises UnreadableImageError as `Decoding` does, and OSError, which says what to do, if the file cannot be written.
    """
    chunks = [paths[start : start + CHUNK] for start in range(0, len(paths), CHUNK)]
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(target) as file, ThreadPoolExecutor(os.cpu_count()) as pool:
            try:
                decoded = pool.map(lambda chunk: np.stack([decoding(Path(path)) for path in chunk]).tobytes(), chunks)
                for pixels in track(decoded, total=len(chunks), description=f"Decoding {title}"):
                    file.write(pixels)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)  # nobody waits for the other images
                raise
    except OSError as error:
        size = len(paths) * decoding.in_channels * decoding.image_size**2
        raise OSError(
            f"the decoded images of {title} take {size / 1e6:,.1f} MB in {target.parent}, which cannot be written "
            f"({error.strerror or error}); make room there, or choose another folder: $CVCC_ZOO_DATA"
        ) from error
