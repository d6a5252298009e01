"""Broken, huge and oddly named images end in the right colours or in a clear message."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from cvcc_zoo.__main__ import main
from cvcc_zoo.data.decode import Decoding
from cvcc_zoo.data.folder import image_folder
from cvcc_zoo.data.shaping import Shaping
from tests.conftest import MakeFolder
from tests.reliability.hostile_folders import cache, last_pixel, pixels
from tests.reliability.hostile_helpers import answer, options, png

RGB = tuple[int, int, int]


def animation(path: Path) -> None:
    pictures = [Image.new("RGB", (8, 8), colour) for colour in ((8, 16, 24), (200, 0, 0), (0, 200, 0))]
    pictures[0].save(path, save_all=True, append_images=pictures[1:], lossless=True)


def palette(path: Path) -> None:
    image = Image.new("P", (8, 8), 1)
    image.putpalette([0, 0, 0, 10, 200, 30])
    image.save(path, transparency=bytes([255, 0]))  # the colour of the image is wholly transparent


def rotated(path: Path) -> None:
    image = Image.new("RGB", (8, 8))
    image.putpixel((0, 7), (255, 254, 253))  # the lower left corner
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise
    image.save(path, exif=exif)


def deep_colour(path: Path) -> None:
    rows = b"".join(b"\0" + 8 * b"\x80\x01\x40\x02\x20\x03" for _ in range(8))
    path.write_bytes(png(8, 8, depth=16, colour=2, rows=rows))


@pytest.mark.parametrize(
    ("name", "write", "expected"),
    [
        ("z.gif", animation, (8, 16, 24)),
        ("z.webp", animation, (8, 16, 24)),
        ("z.png", animation, (8, 16, 24)),
        ("z.png", palette, (255, 255, 255)),
        ("z.png", rotated, (255, 254, 253)),
        ("z.jpg", lambda path: Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(path, quality=100), (254, 0, 0)),
        ("z.png", deep_colour, (128, 64, 32)),
        ("z.png", lambda path: Image.new("1", (8, 8), 1).save(path), (255, 255, 255)),
        ("z.png", lambda path: Image.new("LA", (8, 8), (50, 0)).save(path), (255, 255, 255)),
        ("z.png", lambda path: Image.new("LA", (8, 8), (50, 255)).save(path), (50, 50, 50)),
        ("z.png", lambda path: Image.new("RGBA", (8, 8), (0, 0, 0, 51)).save(path), (204, 204, 204)),
        ("z.png", lambda path: Image.new("I;16", (8, 8), 257 * 9).save(path), (9, 9, 9)),
        ("z.tif", lambda path: Image.new("I;16B", (8, 8), 257 * 9).save(path), (9, 9, 9)),
        ("z.gif.jpeg", lambda path: Image.new("RGB", (8, 8), (1, 2, 3)).save(path, "PNG"), (1, 2, 3)),
    ],
)
def test_odd_images_have_the_right_colours(
    name: str, write: Callable[[Path], None], expected: RGB, colours: Path
) -> None:
    write(colours / "train/red" / name)
    found = last_pixel(colours)
    assert max(abs(a - b) for a, b in zip(found, expected, strict=True)) <= 1, found


def cut(path: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:-40])


@pytest.mark.parametrize(
    ("name", "write", "message"),
    [
        ("z.png", Path.touch, "it is empty"),
        ("z.png", lambda path: path.write_text("no image"), "not one of PNG, JPEG"),
        ("z.png", lambda path: path.write_bytes(bytes(10**6)), "not one of PNG, JPEG"),
        ("z.png", cut, "is not an image that can be read"),
        ("z.jpg", cut, "is not an image that can be read"),
        ("z.gif", lambda path: path.write_bytes(b"GIF89a" + bytes(50)), "is not an image that can be read"),
        ("z.png", lambda path: Image.new("RGB", (8, 8)).save(path, "EPS"), "not one of PNG, JPEG"),
        ("z.tif", lambda path: Image.new("I", (8, 8)).save(path), "more than 16 bits per pixel"),
        ("z.tif", lambda path: Image.new("F", (8, 8)).save(path), "more than 16 bits per pixel"),
        (
            "z.png",
            lambda path: path.write_bytes(png(10_000, 8_000)),
            "10,000x8,000 pixels, more than the limit of 64,000,000",
        ),
        ("z.png", lambda path: path.write_bytes(png(60_000, 60_000, rows=b"")), "more pixels than Pillow decodes"),
        ("z.png", lambda path: os.mkfifo(path), "is a folder, pipe or device, not a file"),
    ],
)
@pytest.mark.parametrize("place", ["train/red", "train/blue"])
def test_what_is_no_image_is_refused_by_name(
    name: str, write: Callable[[Path], Any], message: str, place: str, colours: Path
) -> None:
    if place == "train/blue":  # the first image of all, whose size the others must have
        name = f"!{name}"
    write(colours / place / name)
    with pytest.raises(ValueError) as caught:
        pixels(colours, shaping=Shaping(image_size=8))
    assert message in str(caught.value) and f"{place}/{name}" in str(caught.value)
    assert not [left for left in cache() if "train" in left]


def test_mutilated_images_never_end_in_another_error(tmp_path: Path) -> None:
    draws, decoding = np.random.default_rng(0), Decoding(8, 3, same_size=False, grey_only=False)
    image = Image.fromarray(draws.integers(0, 256, (16, 16, 3), dtype=np.uint8))
    refused = 0
    for ending in ("png", "jpg", "gif", "bmp", "webp", "tif", "ppm", "avif"):
        path = tmp_path / f"a.{ending}"
        image.save(path)
        right = path.read_bytes()
        for _ in range(40):
            wrong = bytearray(right)
            for _ in range(draws.integers(1, 8)):
                wrong[draws.integers(0, min(200, len(wrong)))] = draws.integers(0, 256)
            path.write_bytes(wrong[: draws.integers(1, len(wrong) + 1)] if draws.random() < 0.3 else wrong)
            try:
                assert decoding(path).shape == (3, 8, 8)
            except ValueError as error:
                assert str(path) in str(error)
                refused += 1
    assert 100 < refused < 320


def test_the_limit_of_pixels_can_be_chosen(make_folder: MakeFolder, capsys: pytest.CaptureFixture[str]) -> None:
    root = make_folder(size=20)
    assert pixels(root, max_pixels=400).shape == (40, 3, 20, 20)
    data = ["--data.dataset=folder", f"--data.root={root}"]
    assert "000.png has 20x20 pixels, more than the limit of 399; " in answer(
        capsys, "fit", *data, "--data.max_pixels=399"
    )


# Names


@pytest.mark.parametrize(
    "name",
    [b"a\nb.png", b"-rf.png", "é漢🙂.png".encode(), b"\xff\xfe.png", b" a b .png", b"l" * 250 + b".png", b"\x1b[2J.png",
     b"*?[.png", b"$(touch marker).png", b"no ending", b"a.png.txt", b"%s{}.png"],
)  # fmt: skip
def test_any_name_of_a_file_is_read_and_told(name: bytes, colours: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = colours / "train/blue" / os.fsdecode(b"!" + name)  # the first of all
    Image.new("RGB", (8, 8), (7, 6, 5)).save(path, "PNG")
    assert pixels(colours)[0, :, 0, 0].tolist() == [7, 6, 5]
    path.write_text("no image")
    printed = answer(capsys, "fit", "--data.dataset=folder", f"--data.root={colours}")
    assert "is not an image that can be read" in printed and printed.strip().isprintable()


@pytest.mark.parametrize("name", [b"r\xff", b"r" * 255, b"r\nr", b"-r", "é".encode()])
def test_any_name_of_a_folder_has_a_cache_and_a_short_title(name: bytes, colours: Path) -> None:
    root = colours.rename(colours.with_name(os.fsdecode(name)))
    found = image_folder(root)
    assert len(found.title) <= 60 and found.title.isascii() and found.title.isprintable()
    assert pixels(root).shape == (40, 3, 8, 8) and pixels(root).shape == (40, 3, 8, 8)


@pytest.mark.parametrize("name", [b"a\nb", b"\xff", b"\x1b[2J"])
def test_a_class_needs_a_name_that_can_be_shown(name: bytes, colours: Path) -> None:
    for split in ("train", "test"):
        (colours / split / "red").rename(colours / split / os.fsdecode(name))
    with pytest.raises(ValueError, match=r"has a name with unprintable characters; rename it") as caught:
        image_folder(colours)
    assert str(caught.value).isprintable()


def test_joiners_belong_to_the_names_of_classes(colours: Path) -> None:
    for split in ("train", "test"):
        (colours / split / "red").rename(colours / split / "ल्\u200dल")
    assert "ल्\u200dल" in image_folder(colours).classes


def test_predictions_of_files_with_any_name_are_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(options(), "a.ckpt")
    place = tmp_path / "pictures"
    place.mkdir()
    Image.new("L", (8, 8)).save(place / os.fsdecode(b"\xff\n\x1b.png"), "PNG")
    (place / os.fsdecode(b"\xfe.txt")).touch()
    assert main(["predict", "a.ckpt", str(place), "--output=a.csv"]) == 0
    printed = capsys.readouterr().out
    assert "udcff" in printed.replace("\n", "") and "\x1b" not in printed
    assert b"\xff\n\x1b.png" in Path("a.csv").read_bytes()
