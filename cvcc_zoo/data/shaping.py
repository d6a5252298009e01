"""What a picture goes through before it is pixels, in training, `predict` and the demo: opaque, 8 bits, square."""

import numpy as np
from PIL import Image, ImageColor

from cvcc_zoo.data.bands import UprightImage
from cvcc_zoo.registry import check_whole, unknown

GREY_MODES = ("1", "L", "LA", "La")
RESIZES = ("squash", "crop", "pad")
STRETCHED = 1.2  # more than a fifth


def check_shaping(resize: str, background: str) -> None:
    """Raise ValueError for what is no way to make a picture square, or no colour."""
    if resize not in RESIZES:
        raise unknown("way to resize", resize, RESIZES)
    try:
        ImageColor.getrgb(background)
    except ValueError as error:
        raise ValueError(f"background is a colour like white or '#808080', not {background!r}") from error


def check_batch_size(batch_size: int) -> None:
    """Raise ValueError for less than one image, and for a part of one."""
    check_whole("batch_size", batch_size)
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")


def check_shape(image_size: int | None, in_channels: int | None) -> None:
    """Raise ValueError for impossible sizes and numbers of channels; None stands for those of the images."""
    if image_size is not None and image_size < 1:
        raise ValueError(f"image_size is a number of pixels, got {image_size}")
    if in_channels not in (None, 1, 3):
        raise ValueError(f"in_channels must be 1 (grey) or 3 (colour), got {in_channels}")


def is_grey(image: Image.Image) -> bool:
    """Whether a picture holds no colour, as far as its header says: in its palette, if it has one."""
    if image.mode == "P" and (palette := image.getpalette("RGB")):
        return palette[0::3] == palette[1::3] == palette[2::3]
    return image.mode in GREY_MODES or is_deep(image)


def has_colour(image: Image.Image) -> bool:
    """Whether a pixel has a colour."""
    if is_grey(image):
        return False
    pixels = np.asarray(image.convert("RGB"))
    return not (pixels == pixels[..., :1]).all()


def is_deep(image: Image.Image) -> bool:
    """Whether a picture has 16 bits of grey."""
    return image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM"))


def eight_bits(image: Image.Image) -> Image.Image:
    """A picture with 16 bits of grey in 8, so that 65535 becomes 255."""
    values = np.asarray(image).astype(np.int64)
    grey = Image.fromarray(((values * 255 + 32767) // 65535).astype(np.uint8))
    clear = image.info.get("transparency")
    if isinstance(clear, int):
        grey.putalpha(Image.fromarray(np.where(values == clear, 0, 255).astype(np.uint8)))
    return grey


def opaque(image: Image.Image, background: str) -> Image.Image:
    """A picture of any mode as RGB or L; where it is transparent the background is seen."""
    if image.has_transparency_data:
        above = image.convert("RGBA")
        canvas = Image.new("RGBA", image.size, ImageColor.getrgb(background)[:3])
        return Image.alpha_composite(canvas, above).convert("RGB")
    return image.convert("L" if image.mode in GREY_MODES else "RGB")


def is_stretched(size: tuple[int, int]) -> bool:
    """Whether the sides of a picture differ so much that to squash it distorts by more than a fifth."""
    return max(size) > STRETCHED * min(size)


def square(picture: UprightImage, size: int, resize: str, background: str) -> Image.Image:
    """`size` x `size` pixels of a picture whose bands are RGB or L.

    `squash` changes its proportions, `crop` takes its middle, `pad` puts the background beside it.
    """
    width, height = picture.size
    if resize == "crop":
        side = min(width, height)
        left, upper = (width - side) * 0.5, (height - side) * 0.5
        return picture.resize((size, size), (left, upper, left + side, upper + side))
    if resize == "pad" and width != height:
        canvas = Image.new("RGB", (size, size), ImageColor.getrgb(background)[:3])
        inner = round(width / max(width, height) * size) or 1, round(height / max(width, height) * size) or 1
        x, y = (round((size - side) * 0.5) for side in inner)
        canvas.paste(picture.resize(inner), (x, y))
        return canvas
    return picture.resize((size, size))
