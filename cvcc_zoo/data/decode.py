"""Image files to one file of raw uint8 pixels, in parallel."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError
from rich.progress import track

from cvcc_zoo.files import whole_file

GREY_MODES = ("1", "L", "LA")
CHUNK = 256


def is_grey(image: Image.Image) -> bool:
    """Whether a Pillow image holds no colour."""
    return image.mode in GREY_MODES


@dataclass(frozen=True)
class Decoding:
    """What every image becomes: uint8 (in_channels, image_size, image_size).

    `same_size` says that the size was taken from the first image and all must agree, instead of being resized;
    `grey_only` says the same of its lack of colour, so that no colour is lost silently.
    """

    image_size: int
    in_channels: int
    same_size: bool
    grey_only: bool

    def __call__(self, path: Path) -> npt.NDArray[np.uint8]:
        """One image. Raises ValueError, with the path, if it cannot be read or does not fit."""
        try:
            with Image.open(path) as file:
                image = ImageOps.exif_transpose(file)
                image.load()
        except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise unreadable(path, error) from error
        if image.mode.startswith(("I", "F")):
            raise ValueError(f"{path} has more than 8 bits a pixel (mode {image.mode}); convert it to 8 bits first")
        if self.grey_only and not is_grey(image):
            raise ValueError(
                f"{path} is in colour (mode {image.mode}), but the first training image is grey; "
                "choose with --data.in_channels=3 (all in colour) or --data.in_channels=1 (all grey)"
            )
        if image.mode == "P":
            image = image.convert("RGBA")
        image = image.convert("RGB" if self.in_channels == 3 else "L")
        size = self.image_size
        if image.size != (size, size):
            if self.same_size:
                raise ValueError(
                    f"{path} has {image.width}x{image.height} pixels, but the first training image {size}x{size}; "
                    f"give the size to resize all images to: --data.image_size={size}"
                )
            image = image.resize((size, size), Image.Resampling.BICUBIC)
        return np.asarray(image).reshape(size, size, self.in_channels).transpose(2, 0, 1)


def unreadable(path: Path, error: Exception) -> ValueError:
    """The error for a file that Pillow cannot read as an image."""
    reason = "no image format that Pillow knows" if isinstance(error, UnidentifiedImageError) else str(error)
    return ValueError(f"{path} is not an image that can be read ({reason}); repair it or move it away")


def decode_all(paths: Sequence[Path], target: Path, decoding: Decoding, title: str) -> None:
    """Write all images, (N, C, H, W) in order, to `target`: to a temporary file first, renamed when it is whole."""
    chunks = [paths[start : start + CHUNK] for start in range(0, len(paths), CHUNK)]
    with whole_file(target) as file, ThreadPoolExecutor(os.cpu_count()) as pool:
        decoded = pool.map(lambda chunk: np.stack([decoding(path) for path in chunk]).tobytes(), chunks)
        for pixels in track(decoded, total=len(chunks), description=f"Decoding {title}"):
            file.write(pixels)
