"""Image files to one file of raw uint8 pixels, in parallel."""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from lightning.pytorch.utilities import rank_zero_info
from PIL import Image, ImageOps, UnidentifiedImageError

from cvcc_zoo.data.shaping import eight_bits, has_colour, is_deep, is_stretched, opaque, square
from cvcc_zoo.files import shown, whole_file
from cvcc_zoo.progress import tracked

CHUNK = 256
MAX_PIXELS = 64_000_000  # a thread takes about 0.5 GB to decode as many in colour
FORMATS = ("AVIF", "BMP", "DIB", "GIF", "ICO", "JPEG", "JPEG2000", "PCX", "PNG", "PPM", "QOI", "SGI", "TGA", "TIFF",
           "WEBP")  # fmt: skip
"""What is read; Pillow would start another program for EPS."""


class UnreadableImageError(ValueError):
    """A file is not an image that can be used; the message says which file, why, and what to do.

    `each` has the error of every file where there are several.
    """

    def __init__(self, message: str, each: "Sequence[ValueError]" = ()) -> None:
        super().__init__(message)
        self.each = tuple(each) or (self,)


class NeedsOptionError(ValueError):
    """An image is sound, but too large or not as the first one is; the message says which option takes it."""


@contextmanager
def open_image(path: Path, max_pixels: int = MAX_PIXELS) -> Iterator[Image.Image]:
    """An image file whose header is read, and nothing else yet.

    Raises UnreadableImageError, with the path, for what is no image and for what goes wrong while it is open, and
    NeedsOptionError for more than `max_pixels` pixels.
    """
    try:
        if not path.is_file():
            what = "is no file but a folder, pipe or device" if path.exists() else "is gone"
            raise UnreadableImageError(f"{shown(path)} {what}; start again without it")
        with Image.open(path, formats=FORMATS) as image:
            if image.width * image.height > max_pixels:
                raise NeedsOptionError(
                    f"{shown(path)} has {image.width:,}x{image.height:,} pixels, more than the {max_pixels:,} that are "
                    "decoded; make it smaller, move it away, or raise the limit (--data.max_pixels=...)"
                )
            yield image
    except (UnreadableImageError, NeedsOptionError):
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


class Tally:
    """What is to be said of images that were decoded."""

    def __init__(self) -> None:
        self.images = self.deep = self.brightest = self.flat = self.stretched = 0
        self.first_flat: Path | None = None

    def add(self, path: Path, pixels: npt.NDArray[np.uint8], brightest: int | None, *, stretched: bool) -> None:
        """Count an image; `brightest` is its largest value if it had 16 bits of grey."""
        self.images += 1
        self.stretched += stretched
        if brightest is not None:
            self.deep, self.brightest = self.deep + 1, max(self.brightest, brightest)
        if (pixels == pixels[:, :1, :1]).all():
            self.flat += 1
            self.first_flat = self.first_flat or path

    def merge(self, other: "Tally") -> None:
        """Add what another one counted."""
        for name in ("images", "deep", "flat", "stretched"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.brightest = max(self.brightest, other.brightest)
        self.first_flat = self.first_flat or other.first_flat

    def lines(self, *, advice: bool = True) -> list[str]:
        """A line for each kind of images; `advice` names options of a training."""
        found, of = [], f"of {self.images:,} images"
        if self.flat:
            found.append(f"{self.flat:,} {of} have a single colour, like {shown(self.first_flat or '')}; look at them")
        if self.deep:
            found.append(
                f"{self.deep:,} {of} have 16 bits of grey, scaled to 8: 65535 becomes 255, and their brightest pixel "
                f"has {self.brightest}"
            )
        if self.stretched:
            then = "; --data.resize=crop takes their middle, pad keeps all of them" if advice else ""
            found.append(f"{self.stretched:,} {of} are distorted by more than a fifth to be square{then}")
        return found


@dataclass(frozen=True)
class Decoding:
    """What every image becomes: uint8 (in_channels, image_size, image_size).

    `same_size` says that the size was taken from the first image and all must agree, instead of being resized;
    `grey_only` says the same of its lack of colour, so that no colour is lost silently. Images of more than
    `max_pixels` pixels are refused. An image is turned upright by its EXIF orientation, of an animation the first
    picture is taken, transparency shows the `background`, 16 bits become 8, and what is not square is made so by
    `resize`: squash, crop or pad.
    """

    image_size: int
    in_channels: int
    same_size: bool
    grey_only: bool
    max_pixels: int = field(default=MAX_PIXELS, repr=False)  # changes no pixel, and so no name of a cache
    resize: str = "squash"
    background: str = "white"

    def __call__(self, path: Path, tally: Tally | None = None) -> npt.NDArray[np.uint8]:
        """One image. Raises UnreadableImageError or NeedsOptionError, with the path."""
        with open_image(path, self.max_pixels) as file:
            return self.pixels(path, file, tally)

    def pixels(self, path: Path, file: Image.Image, tally: Tally | None = None) -> npt.NDArray[np.uint8]:
        """The pixels of a picture that is open; `path` is what it is called."""
        image, brightest = ImageOps.exif_transpose(file), None
        image.load()
        if is_deep(file):
            image, brightest = eight_bits(image)
        if image.mode.startswith(("I", "F")):
            raise UnreadableImageError(
                f"{shown(path)} has more than 16 bits a pixel (mode {image.mode}); convert it to 8 bits first"
            )
        if self.grey_only and has_colour(image):
            raise NeedsOptionError(
                f"{shown(path)} is in colour (mode {image.mode}), but the first training image is grey; "
                "choose with --data.in_channels=3 (all in colour) or --data.in_channels=1 (all grey)"
            )
        image, size = opaque(image, self.background), self.image_size
        if self.same_size and image.size != (size, size):
            raise NeedsOptionError(
                f"{shown(path)} has {image.width}x{image.height} pixels, but the first training image "
                f"{size}x{size}; give the size to resize all images to: --data.image_size={size}"
            )
        stretched = self.resize == "squash" and is_stretched(image)
        image = square(image, size, self.resize, self.background).convert("RGB" if self.in_channels == 3 else "L")
        found = np.asarray(image).reshape(size, size, self.in_channels).transpose(2, 0, 1)
        if tally is not None:
            tally.add(path, found, brightest, stretched=stretched)
        return found


def decode_some(
    paths: Sequence[Path], decoding: Decoding
) -> tuple[list[npt.NDArray[np.uint8]], Tally, dict[Path, UnreadableImageError]]:
    """The images of those files that can be read, what is to be said of them, and what is wrong with the others."""
    found, tally, broken = [], Tally(), {}
    for path in paths:
        try:
            found.append(decoding(path, tally))
        except UnreadableImageError as error:
            broken[path] = error
    return found, tally, broken


def decode_all(paths: Sequence[str], target: Path, decoding: Decoding, title: str) -> None:
    """Write all images, (N, C, H, W) in order, to `target`: to a temporary file first, renamed when it is whole.

    Raises UnreadableImageError, which names all that cannot be read, NeedsOptionError for the first one, and
    OSError, which says what to do, if the file cannot be written.
    """
    chunks = [[Path(path) for path in paths[start : start + CHUNK]] for start in range(0, len(paths), CHUNK)]
    tally, broken = Tally(), list[ValueError]()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(target) as file, ThreadPoolExecutor(os.cpu_count()) as pool:
            try:
                decoded = pool.map(lambda chunk: decode_some(chunk, decoding), chunks)
                for pixels, counted, wrong in tracked(decoded, f"decoding {title}", len(paths), _of_a_chunk):
                    tally.merge(counted)
                    broken += wrong.values()
                    if pixels and not broken:
                        file.write(np.stack(pixels).tobytes())
                raise_all(broken)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)  # nobody waits for the other images
                raise
    except OSError as error:
        size = len(paths) * decoding.in_channels * decoding.image_size**2
        raise OSError(
            f"the decoded images of {title} take {size / 1e6:,.1f} MB in {target.parent}, which cannot be written "
            f"({error.strerror or error}); make room there, or choose another folder: $CVCC_ZOO_DATA"
        ) from error
    for line in tally.lines():
        rank_zero_info(f"{title}: {line}")


def _of_a_chunk(part: tuple[list[npt.NDArray[np.uint8]], Tally, dict[Path, UnreadableImageError]]) -> int:
    """How many images were decoded, or could not be."""
    return len(part[0]) + len(part[2])


def raise_all(broken: Sequence[ValueError]) -> None:
    """Raise one error that says what is wrong with each image, if there is any."""
    if len(broken) == 1:
        raise broken[0]
    if broken:
        lines = "\n".join(f"  {error}" for error in broken)
        raise UnreadableImageError(f"{len(broken):,} images cannot be read:\n{lines}", broken)
