"""Make images opaque, 8-bit and square, in the same way for training, `predict` and the demo."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageColor

from cvcc_zoo.data.bands import UprightImage
from cvcc_zoo.kinds import check_whole
from cvcc_zoo.registry import check_known

GREY_MODES = ("1", "L", "LA", "La")
RESIZES = ("squash", "crop", "pad")
STRETCHED = 1.2  # longer side / shorter side: squashed to a square, it is distorted by more than a fifth


def check_shaping(resize: str, background: str) -> None:
    """Raise ValueError for an unknown way to make images square, and for an invalid colour."""
    check_known("way to resize", RESIZES, resize)
    try:
        ImageColor.getrgb(background)
    except (ValueError, TypeError, AttributeError) as error:  # the last two if it is no text
        raise ValueError(f"background is a colour such as white or '#808080', not {background!r}") from error


def shaping_of(options: Any) -> dict[str, str]:
    """Return `resize` and `background` among the options of an ImageDataModule, or their defaults.

    Raises ValueError for impossible ones: the options may come from a file.
    """
    given = options if isinstance(options, Mapping) else {}
    resize, background = str(given.get("resize", "squash")), str(given.get("background", "white"))
    check_shaping(resize, background)
    return {"resize": resize, "background": background}


def check_shape(image_size: int | None, in_channels: int | None) -> None:
    """Raise ValueError for an invalid size or number of channels; None stands for those of the images."""
    for name, value in {"image_size": image_size, "in_channels": in_channels}.items():
        if value is not None:
            check_whole(name, value)
    if image_size is not None and image_size < 1:
        raise ValueError(f"image_size must be at least 1 pixel, got {image_size}")
    if in_channels not in (None, 1, 3):
        raise ValueError(f"in_channels must be 1 (grey) or 3 (colour), got {in_channels}")


@dataclass(frozen=True)
class Shaping:
    """The shape that all images of a data set get. Raises ValueError for an impossible one.

    `image_size` is height and width in pixels and `in_channels` 1 or 3; None keeps what the images have. `resize`
    (squash, crop or pad) makes images of a folder square, with the colour `background` behind what is transparent.
    """

    image_size: int | None = None
    in_channels: int | None = None
    resize: str = "squash"
    background: str = "white"

    def __post_init__(self) -> None:
        check_shaping(self.resize, self.background)
        check_shape(self.image_size, self.in_channels)


UNCHANGED = Shaping()


def is_grey(image: Image.Image) -> bool:
    """Return whether an image is grey according to its header and palette."""
    if image.mode == "P" and (palette := image.getpalette("RGB")):
        return palette[0::3] == palette[1::3] == palette[2::3]
    return image.mode in GREY_MODES or is_deep(image)


def has_colour(image: Image.Image) -> bool:
    """Return whether any pixel is not grey."""
    if is_grey(image):
        return False
    pixels = np.asarray(image.convert("RGB"))
    return not (pixels == pixels[..., :1]).all()


def is_deep(image: Image.Image) -> bool:
    """Return whether an image is 16-bit grey."""
    return image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM"))


def eight_bits(image: Image.Image) -> Image.Image:
    """Convert 16-bit grey to 8 bits, so that 65535 becomes 255."""
    values = np.asarray(image).astype(np.int64)
    grey = Image.fromarray(((values * 255 + 32767) // 65535).astype(np.uint8))
    clear = image.info.get("transparency")
    if isinstance(clear, int):
        grey.putalpha(Image.fromarray(np.where(values == clear, 0, 255).astype(np.uint8)))
    return grey


def opaque(image: Image.Image, background: str) -> Image.Image:
    """Convert an image of any mode to RGB or L, with the background behind transparent pixels."""
    if image.has_transparency_data:
        canvas = Image.new("RGBA", image.size, ImageColor.getrgb(background)[:3])
        return Image.alpha_composite(canvas, image.convert("RGBA")).convert("RGB")
    return image.convert("L" if image.mode in GREY_MODES else "RGB")


def square(image: UprightImage, size: int, resize: str, background: str) -> Image.Image:
    """Make an image whose bands are RGB or L `size` x `size` pixels large.

    `squash` changes its proportions, `crop` keeps its middle, `pad` adds background at the sides.
    """
    width, height = image.size
    if resize == "crop":
        side = min(width, height)
        left, upper = (width - side) * 0.5, (height - side) * 0.5
        return image.resize((size, size), (left, upper, left + side, upper + side))
    if resize == "pad" and width != height:
        canvas = Image.new("RGB", (size, size), ImageColor.getrgb(background)[:3])
        inner = round(width / max(width, height) * size) or 1, round(height / max(width, height) * size) or 1
        x, y = (round((size - side) * 0.5) for side in inner)
        canvas.paste(image.resize(inner), (x, y))
        return canvas
    return image.resize((size, size))
