"""A picture that is treated band by band has the same bits as the whole at once."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageColor, ImageOps

from cvcc_zoo.data import bands
from cvcc_zoo.data.bands import UprightImage
from cvcc_zoo.data.decode import Decoding
from cvcc_zoo.data.shaping import RESIZES, opaque, square

SIZES = [(1, 1), (8, 8), (37, 23), (23, 37), (1, 300), (3, 301), (300, 1), (40, 41)]


def noise(mode: str, size: tuple[int, int]) -> Image.Image:
    width, height = size
    if mode == "P":
        return noise("RGB", size).quantize(16)
    channels = len(Image.new(mode, (1, 1)).getbands())
    values = np.random.default_rng(0).integers(0, 256, (height, width, channels), dtype=np.uint8)
    return Image.fromarray(values.squeeze(2) if channels == 1 else values, mode)


def at_once(image: Image.Image, size: int, resize: str) -> Image.Image:
    """By Pillow alone."""
    above = ImageOps.exif_transpose(image).convert("RGBA")
    whole = Image.alpha_composite(Image.new("RGBA", above.size, ImageColor.getrgb("red")), above).convert("RGB")
    act: Any = {"squash": Image.Image.resize, "crop": ImageOps.fit, "pad": partial(ImageOps.pad, color="red")}[resize]
    found: Image.Image = act(whole, (size, size), Image.Resampling.BICUBIC)
    return found


@pytest.mark.parametrize("band", [1, 50, 10**6])
@pytest.mark.parametrize("resize", RESIZES)
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "CMYK"])
def test_bands_have_the_same_bits(mode: str, resize: str, band: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bands, "PIXELS", band)
    for size in SIZES:
        if resize == "pad" and max(size) > 100 * min(size):
            continue  # Pillow would make it no pixel wide
        for pixels in (8, 40):
            image = noise(mode, size)
            shown = UprightImage.decoded(image).then(partial(opaque, background="red"))
            found = square(shown, pixels, resize, "red").convert("RGB")
            assert np.array_equal(np.asarray(found), np.asarray(at_once(image, pixels, resize))), (size, pixels)


@pytest.mark.parametrize("ending", ["png", "jpg", "tif"])
@pytest.mark.parametrize("orientation", range(1, 10))
def test_each_orientation_is_turned_as_pillow_turns_it(
    orientation: int, ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bands, "PIXELS", 60)
    exif, path = Image.Exif(), tmp_path / f"a.{ending}"
    exif[0x0112] = orientation
    noise("RGB", (31, 17)).save(path, exif=exif)
    with Image.open(path) as image:
        expected = ImageOps.exif_transpose(image)
    with Image.open(path) as image:
        picture = UprightImage.decoded(image)
        assert picture.size == expected.size
        assert np.array_equal(np.asarray(picture.resize(expected.size)), np.asarray(expected))
        for of_columns in (False, True):
            found = Image.new("RGB", expected.size)
            for place, band in picture.bands(of_columns=of_columns):
                found.paste(band, place)
            assert np.array_equal(np.asarray(found), np.asarray(expected))


@pytest.mark.parametrize("options", [{}, {"transparency": 500}])
def test_deep_grey_in_bands_has_the_same_bits(
    options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = np.random.default_rng(0).integers(0, 1000, (40, 30), dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / "a.png", **options)
    decoding = Decoding(8, 1, same_size=False, grey_only=True)
    whole = decoding(tmp_path / "a.png")
    monkeypatch.setattr(bands, "PIXELS", 100)
    assert np.array_equal(decoding(tmp_path / "a.png"), whole)


def test_a_line_of_pixels_is_padded_and_not_lost() -> None:
    found = square(UprightImage.decoded(Image.new("RGB", (1000, 1), "blue")), 8, "pad", "red")
    assert [found.getpixel((4, y)) for y in range(8)].count((0, 0, 255)) == 1
