"""Image files to pixels, uint8 (C, H, W)."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from cvcc_zoo.data.bands import Picture
from cvcc_zoo.data.opening import MAX_PIXELS, NeedsOptionError, UnreadableImageError, open_image
from cvcc_zoo.data.shaping import eight_bits, has_colour, is_deep, is_grey, is_stretched, opaque, square
from cvcc_zoo.files.own import shown

Pixels = npt.NDArray[np.uint8]


class Tally:
    """What is to be said of images that were decoded."""

    def __init__(self) -> None:
        self.images = self.deep = self.brightest = self.flat = self.stretched = 0
        self.first_flat: Path | str | None = None

    def add(self, path: Path | str, pixels: Pixels, brightest: int | None, *, stretched: bool) -> None:
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

    def __call__(self, path: Path | str, tally: Tally | None = None) -> Pixels:
        """One image. Raises UnreadableImageError or NeedsOptionError, with the path."""
        with open_image(path, self.max_pixels) as file:
            return self.pixels(path, file, tally)

    def pixels(self, path: Path | str, file: Image.Image, tally: Tally | None = None) -> Pixels:
        """The pixels of a picture that is open; `path` is what it is called."""
        picture, deep = Picture.decoded(file), is_deep(file)
        if not deep and file.mode.startswith(("I", "F")):
            raise UnreadableImageError(
                f"{shown(path)} has more than 16 bits a pixel (mode {file.mode}); convert it to 8 bits first"
            )
        if self.grey_only and not deep and any(has_colour(band) for _, band in picture.bands()):
            raise NeedsOptionError(
                f"{shown(path)} is in colour (mode {file.mode}), but the first training image is grey; "
                "choose with --data.in_channels=3 (all in colour) or --data.in_channels=1 (all grey)"
            )
        (width, height), size = picture.size, self.image_size
        if self.same_size and (width, height) != (size, size):
            raise NeedsOptionError(
                f"{shown(path)} has {width}x{height} pixels, but the first training image "
                f"{size}x{size}; give the size to resize all images to: --data.image_size={size}"
            )
        brightest = max(int(np.asarray(band).max()) for _, band in picture.bands()) if deep else None
        shown_as = (picture.then(eight_bits) if deep else picture).then(partial(opaque, background=self.background))
        image = square(shown_as, size, self.resize, self.background).convert("RGB" if self.in_channels == 3 else "L")
        stretched = self.resize == "squash" and is_stretched((width, height))
        found = np.asarray(image).reshape(size, size, self.in_channels).transpose(2, 0, 1)
        if tally is not None:
            tally.add(path, found, brightest, stretched=stretched)
        return found

    def none(self) -> Pixels:
        """No images, (0, C, H, W)."""
        return np.empty((0, self.in_channels, self.image_size, self.image_size), dtype=np.uint8)


def decode_some(paths: Sequence[str], decoding: Decoding) -> tuple[tuple[Pixels, Tally], dict[str, ValueError]]:
    """The images (N, C, H, W) that can be read and what is to be said of them; and what is wrong with the others.

    It is a job for `workers.read_files`. Raises NeedsOptionError for the first image that needs one.
    """
    found, tally, broken = [decoding.none()], Tally(), dict[str, ValueError]()
    for path in paths:
        try:
            found.append(decoding(path, tally)[None])
        except UnreadableImageError as error:
            broken[path] = error
    return (np.concatenate(found), tally), broken


def look_at(
    paths: Sequence[str], max_pixels: int = MAX_PIXELS
) -> tuple[dict[str, tuple[tuple[int, int], bool]], dict[str, ValueError]]:
    """The size (width, height) of each image, and whether it is grey, by its header; and what is wrong with others.

    It is a job for `workers.read_files`.
    """
    found, broken = dict[str, tuple[tuple[int, int], bool]](), dict[str, ValueError]()
    for path in paths:
        try:
            with open_image(path, max_pixels) as image:
                found[path] = image.size, is_grey(image)
        except (UnreadableImageError, NeedsOptionError) as error:
            broken[path] = error
    return found, broken


def look_at_alpha(paths: Sequence[str]) -> tuple[list[str], dict[str, ValueError]]:
    """The images in which something is seen, that are not transparent everywhere; and what is wrong with others.

    It is a job for `workers.read_files`.
    """
    found, broken = list[str](), dict[str, ValueError]()
    for path in paths:
        try:
            with open_image(path) as image:
                if not image.has_transparency_data or _is_seen(image):
                    found.append(path)
        except (UnreadableImageError, NeedsOptionError) as error:
            broken[path] = error
    return found, broken


def _is_seen(image: Image.Image) -> bool:
    """Whether a pixel is not wholly transparent."""
    return any(band.convert("RGBA").getchannel("A").getbbox() for _, band in Picture.decoded(image).bands())
