"""Decode image files to pixels, uint8 (C, H, W)."""

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from cvcc_zoo.data.bands import UprightImage
from cvcc_zoo.data.opening import MAX_PIXELS, NeedsOptionError, UnreadableImageError, open_image
from cvcc_zoo.data.shaping import STRETCHED, Shaping, eight_bits, has_colour, is_deep, is_grey, opaque, square
from cvcc_zoo.files.own import shown

Pixels = npt.NDArray[np.uint8]
DARK = 2**14  # of 65535: a brightest pixel below it leaves three quarters of the grey values unused


class Tally:
    """Counts of the decoded images that a user should hear about."""

    def __init__(self) -> None:
        self.images = self.deep = self.brightest = self.flat = self.resized = self.stretched = 0
        self.transparent = self.several = 0
        self.first_flat: Path | str | None = None

    def add(
        self,
        path: Path | str,
        pixels: Pixels,
        brightest: int | None,
        *,
        resized: bool,
        stretched: bool,
        transparent: bool,
        several: bool,
    ) -> None:
        """Count an image; `brightest` is its largest value if it was 16-bit grey, else None.

        `several` stands for several frames or pages.
        """
        self.images += 1
        self.resized += resized
        self.stretched += stretched
        self.transparent += transparent
        self.several += several
        if brightest is not None:
            self.deep, self.brightest = self.deep + 1, max(self.brightest, brightest)
        if (pixels == pixels[:, :1, :1]).all():
            self.flat += 1
            self.first_flat = self.first_flat or path

    def merge(self, other: "Tally") -> None:
        """Add the counts of another tally."""
        for name in ("images", "deep", "flat", "resized", "stretched", "transparent", "several"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.brightest = max(self.brightest, other.brightest)
        self.first_flat = self.first_flat or other.first_flat

    def lines(self, *, advice: bool = True) -> list[str]:
        """Return a line for each kind of image found; with `advice` it names the options of `fit` that help."""
        found, of = [], f"of {self.images:,} images"
        if self.flat:
            example = shown(self.first_flat or "")
            found.append(f"{self.flat:,} {of} have a single colour, for example {example}; check them")
        if self.deep:
            found.append(
                f"{self.deep:,} {of} have 16 bits of grey, scaled to 8: 65535 becomes 255, and their brightest pixel "
                f"has {self.brightest}{self._dark(advice=advice)}"
            )
        if self.transparent:
            option = " (--data.background)" if advice else ""
            found.append(f"{self.transparent:,} {of} have transparent pixels, which show the background{option}")
        if self.several:
            found.append(f"{self.several:,} {of} have several frames or pages; only the first is read")
        if self.stretched:
            remedy = "; --data.resize=crop keeps their middle, pad keeps all of them" if advice else ""
            found.append(f"{self.stretched:,} {of} are distorted by more than a fifth to make them square{remedy}")
        return found

    def _dark(self, *, advice: bool) -> str:
        """Return what follows from 16-bit images whose pixels are all dark."""
        if not 0 < self.brightest < DARK:
            return ""
        used = (self.brightest * 255 + 32767) // 65535 + 1
        factor = 65535 // self.brightest
        remedy = f": multiply the values by {factor} before, the same factor for all images" if advice else ""
        return f", so at most {used} of the 256 grey values are used{remedy}"


@dataclass(frozen=True)
class Decoding:
    """Decode images to uint8 (in_channels, image_size, image_size).

    With `same_size` an image of another size is refused, not resized; with `grey_only` one in colour is refused, not
    converted: the user has to ask for either. Images of more than `max_pixels` pixels are refused. Images are turned
    upright by their EXIF orientation, only the first frame or page is read, transparent pixels show the `background`,
    16 bits become 8, and `resize` (squash, crop or pad) makes images square.
    """

    image_size: int
    in_channels: int
    same_size: bool
    grey_only: bool
    max_pixels: int = field(default=MAX_PIXELS, repr=False)  # changes no pixel, so the cache's name omits it
    resize: str = "squash"
    background: str = "white"

    def __call__(self, path: Path | str) -> Pixels:
        """Decode an image file. Raises UnreadableImageError or NeedsOptionError, which name the path."""
        return self.counted(path)[0]

    def counted(self, path: Path | str) -> tuple[Pixels, Tally]:
        """Decode an image file, and count it. Raises UnreadableImageError or NeedsOptionError, which name the path."""
        tally = Tally()
        with open_image(path, self.max_pixels) as file:
            return self.pixels(path, file, tally), tally

    def pixels(self, path: Path | str, file: Image.Image, tally: Tally | None = None) -> Pixels:
        """Decode an open image, which messages call `path`, to a contiguous array; `tally` counts it."""
        several = file.format not in ("GIF", "MPO") and getattr(file, "is_animated", False)
        upright, deep = UprightImage.decoded(file), is_deep(file)
        if not deep and file.mode.startswith(("I", "F")):
            raise UnreadableImageError(
                f"{shown(path)} has more than 16 bits per pixel (mode {file.mode}); scale the values to 0..255 with "
                "one factor for all images, and save them as 8 bits"
            )
        if self.grey_only and not deep and any(has_colour(band) for _, band in upright.bands()):
            raise NeedsOptionError(
                f"{shown(path)} is in colour (mode {file.mode}), but the first training image is grey; "
                "choose with --data.in_channels=3 (all in colour) or --data.in_channels=1 (all grey)"
            )
        (width, height), size = upright.size, self.image_size
        if self.same_size and (width, height) != (size, size):
            raise NeedsOptionError(
                f"{shown(path)} has {width}x{height} pixels, but the first training image has "
                f"{size}x{size}; choose a size for all images: --data.image_size={size}"
            )
        brightest = max(int(np.asarray(band).max()) for _, band in upright.bands()) if deep else None
        eight = upright.then(eight_bits) if deep else upright
        visible = eight.then(partial(opaque, background=self.background))
        image = square(visible, size, self.resize, self.background).convert("RGB" if self.in_channels == 3 else "L")
        stretched = self.resize == "squash" and max(width, height) > STRETCHED * min(width, height)
        pixels = np.asarray(image).reshape(size, size, self.in_channels).transpose(2, 0, 1).copy()
        if tally is not None:
            clear = file.has_transparency_data and any(is_transparent(band) for _, band in eight.bands())
            resized = (width, height) != (size, size)
            kinds = {"resized": resized, "stretched": stretched, "transparent": clear, "several": several}
            tally.add(path, pixels, brightest, **kinds)
        return pixels

    @classmethod
    def like_first(
        cls, first: Path | str, size: tuple[int, int], grey: bool, shaping: Shaping, max_pixels: int
    ) -> "Decoding":
        """Return the decoding for images whose first has this size (width, height), and is grey or not.

        A size or channels that `shaping` leaves open are those of the first image. Raises ValueError, which names it,
        if it is not square and there is no size for all.
        """
        if shaping.image_size is None and size[0] != size[1]:
            raise ValueError(
                f"{shown(first)} has {size[0]}x{size[1]} pixels, and images must be square; "
                "choose a size for all images: --data.image_size=32 (and --data.resize=squash, crop or pad)"
            )
        return cls(
            image_size=shaping.image_size or size[0],
            in_channels=shaping.in_channels or (1 if grey else 3),
            same_size=shaping.image_size is None,
            grey_only=shaping.in_channels is None and grey,
            max_pixels=max_pixels,
            resize=shaping.resize,
            background=shaping.background,
        )

    def none(self) -> Pixels:
        """Return an empty array of images, (0, C, H, W)."""
        return np.empty((0, self.in_channels, self.image_size, self.image_size), dtype=np.uint8)


class DecodedDataset:
    """A data set whose images have the shape that its decoding gives them."""

    decoding: Decoding

    @property
    def in_channels(self) -> int:
        """1 for grey, 3 for colour."""
        return self.decoding.in_channels

    @property
    def image_size(self) -> int:
        """Height and width in pixels."""
        return self.decoding.image_size


def read_header(path: str, max_pixels: int) -> tuple[tuple[int, int], bool]:
    """Return the size (width, height) of an image file, and if it is grey. Raises the errors of `open_image`."""
    with open_image(path, max_pixels) as image:
        return image.size, is_grey(image)


def is_transparent(band: Image.Image) -> bool:
    """Return whether any pixel is not fully opaque."""
    return band.has_transparency_data and bool((np.asarray(band.convert("RGBA"))[..., 3] < 255).any())


def is_visible(path: str) -> bool:
    """Return whether any pixel of an image file is not fully transparent. Raises the errors of `open_image`."""
    with open_image(path) as image:
        if not image.has_transparency_data:
            return True
        return any(band.convert("RGBA").getchannel("A").getbbox() for _, band in UprightImage.decoded(image).bands())
