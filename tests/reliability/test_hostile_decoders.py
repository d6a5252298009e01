"""A small image file takes no more memory and time than its size allows, and no other image suffers from it."""

import io
import os
import signal
import struct
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cvcc_zoo.data import workers
from cvcc_zoo.data.decode import Decoding
from cvcc_zoo.data.jpeg import whole_jpeg
from cvcc_zoo.data.opening import FORMATS, NeedsOptionError, open_image, webp_size
from cvcc_zoo.data.shaping import Shaping
from cvcc_zoo.data.workers import Worker, outcomes, read_each
from tests.reliability.hostile_folders import cache, pixels
from tests.reliability.hostile_helpers import png

SMALL = Decoding(8, 3, same_size=False, grey_only=False)
SQUARE = [(256, 4, 1, 8), (257, 4, 1, 8), (258, 3, 1, 8), (259, 3, 1, 8), (262, 3, 1, 1), (277, 3, 1, 1)]
"""The tags of a grey TIFF of 8x8 pixels, deflated: tag, type, count, value."""
SHARED = [(tag, 7, 1_000_000, 0) for tag in range(40_000, 42_000)]
"""Two thousand tags that all have the same megabyte for their value."""


def tiff(tags: list[tuple[int, int, int, int]], data: bytes = b"") -> bytes:
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    return struct.pack("<2sHIH", b"II", 42, 8, len(tags)) + entries + bytes(4) + data


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def huge_tiles() -> bytes:
    tiles = [(322, 4, 1, 46_000), (323, 4, 1, 46_000), (324, 4, 1, 200), (325, 4, 1, 100)]
    return tiff(SQUARE + tiles, bytes(300))


def shared_exif() -> bytes:
    jpeg, exif = saved(Image.new("RGB", (8, 8)), "JPEG"), tiff(SHARED, bytes(1_000_000))
    parts = [exif[start : start + 65_000] for start in range(0, len(exif), 65_000)]
    segments = b"".join(b"\xff\xe1" + struct.pack(">H", len(part) + 8) + b"Exif\0\0" + part for part in parts)
    return jpeg[:2] + segments + jpeg[2:]


def many_scans(scans: int = 500) -> bytes:
    jpeg = saved(Image.new("L", (8, 8)), "JPEG", progressive=True)
    last, end = jpeg.rindex(b"\xff\xda"), jpeg.rindex(b"\xff\xd9")
    return jpeg[:last] + jpeg[last:end] * scans + jpeg[end:]


def many_comments() -> bytes:
    gif = saved(Image.new("P", (8, 8)), "GIF")
    start = gif.index(b",", 13)
    return gif[:start] + b"!\xfe\x01x\0" * 2_000_000 + gif[start:]


HOSTILE: list[Any] = [
    (huge_tiles, "tiles of 46,000x46,000 pixels in an image of 8x8"),
    (lambda: png(60_000_000, 1), "60,000,000x1 pixels, but a side may have at most 65,535"),
    (lambda: png(1, 60_000_000), "1x60,000,000 pixels, but a side may have at most 65,535"),
    (lambda: tiff(SQUARE + SHARED, bytes(1_000_000)), "it takes more memory than images of its size"),
    (shared_exif, "it takes more memory than images of its size"),
    (many_scans, "a JPEG of more than 100 scans"),
    pytest.param(many_comments, "it takes too long to decode", marks=pytest.mark.slow),
    (lambda: saved(Image.new("RGB", (8, 8)), "ICO"), "not one of PNG"),
    (lambda: saved(Image.new("RGB", (8, 8)), "EPS"), "not one of PNG"),
    (lambda: saved(Image.new("RGB", (8, 8)), "JPEG2000"), "its format is JPEG 2000); convert it to JPEG or PNG"),
]


@pytest.mark.parametrize(("make", "message"), HOSTILE)
def test_a_file_that_would_take_more_than_its_size_allows_is_refused_by_name(
    make: Callable[[], bytes], message: str, colours: Path
) -> None:
    (colours / "train/red/z.png").write_bytes(make())
    with pytest.raises(ValueError) as caught:
        pixels(colours, shaping=Shaping(image_size=8))
    assert message in str(caught.value) and "train/red/z.png" in str(caught.value)
    assert "\n" not in str(caught.value) and not [left for left in cache() if "train" in left]


PEAK = """
import resource, sys
from cvcc_zoo.data.decode import Decoding
from cvcc_zoo.data.workers import Worker
worker = Worker()
try:
    worker.ask(Decoding(8, 3, same_size=False, grey_only=False), sys.argv[1])
except (EOFError, ValueError):
    pass
worker.end()
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024)
"""


def peak(*files: Path) -> int:
    """MB that a process needs at most to read files."""
    return int(subprocess.run([sys.executable, "-c", PEAK, *files], check=True, capture_output=True, text=True).stdout)


def large(mode: str) -> bytes:
    return saved(Image.new(mode, (8_000, 8_000)), "PNG", compress_level=1)


LARGE: list[Any] = [
    (lambda: png(10_000, 8_000), "more than the limit of 64,000,000"),
    (lambda: png(60_000, 60_000, rows=b""), "more pixels than Pillow decodes"),
    *((partial(large, mode), "read") for mode in ("RGB", "RGBA", "LA", "P", "I;16")),
    (lambda: saved(Image.new("CMYK", (8_000, 8_000)), "JPEG"), "read"),
]


@pytest.fixture(scope="module")
def least(tmp_path_factory: pytest.TempPathFactory) -> int:
    """MB that a process needs to read a small image."""
    path = tmp_path_factory.mktemp("images") / "good.png"
    Image.new("RGB", (8, 8)).save(path)
    return peak(path)


@pytest.mark.parametrize(("make", "message"), HOSTILE + LARGE)
def test_no_hostile_file_takes_more_than_300_megabytes_beside_the_libraries(
    make: Callable[[], bytes], message: str, least: int, tmp_path: Path
) -> None:
    (tmp_path / "hostile.png").write_bytes(make())
    assert peak(tmp_path / "hostile.png") - least < 300


@pytest.mark.parametrize("options", [{}, {"lossless": True}, {"lossless": True, "exif": b"Exif\0\0"}])
def test_a_large_webp_is_read_and_its_size_is_known_before_it_takes_memory(
    options: dict[str, Any], tmp_path: Path
) -> None:
    picture = Image.new("RGB", (6_000, 5_000), (200, 0, 0))
    (tmp_path / "a.webp").write_bytes(data := saved(picture, "WEBP", **options))
    assert webp_size(data[:30]) == (6_000, 5_000)
    ((_, found),) = read_each([str(tmp_path / "a.webp")], SMALL)
    assert not isinstance(found, ValueError) and abs(int(found[0].min()) - 200) < 4
    with pytest.raises(NeedsOptionError, match="6,000x5,000 pixels, more than the limit of 1,000; "):
        Decoding(8, 3, same_size=False, grey_only=False, max_pixels=1_000)(tmp_path / "a.webp")


def test_what_a_worker_may_take_is_limited(colours: Path) -> None:
    worker = Worker()
    assert len(worker.ask(bytearray, 100_000_000)) == 100_000_000
    with pytest.raises(EOFError, match="more memory than images of its size"):
        worker.ask(bytearray, 400_000_000)
    assert not worker.lives()
    with pytest.raises(EOFError, match="it takes too long to decode"):
        Worker().ask(sum, range(10**12))


def test_a_worker_has_no_need_of_torch() -> None:
    worker = Worker()
    worker.ask(outcomes, [], SMALL)
    assert worker.ask(eval, "'torch' in __import__('sys').modules") is False
    worker.end()


def test_images_beside_hostile_ones_are_read(colours: Path) -> None:
    good, hostile = str(colours / "train/red/000.png"), "hostile.tif"
    Path(hostile).write_bytes(tiff(SQUARE + SHARED, bytes(1_000_000)))
    files = [good, hostile, good, hostile, good]
    for at_once in (1, 5):
        found = list(read_each(files, SMALL, at_once))
        assert [path for path, _ in found] == files
        assert [path for path, each in found if isinstance(each, ValueError)] == [hostile, hostile]
        images = np.stack([each for _, each in found if not isinstance(each, ValueError)])
        assert images.shape == (3, 3, 8, 8) and (images == images[0]).all()


def test_a_decoder_that_crashes_is_told(tmp_path: Path) -> None:
    worker = Worker()
    with pytest.raises(EOFError, match="its decoder crashed: SIGSEGV"):
        worker.ask(eval, "__import__('os').kill(__import__('os').getpid(), 11)")


def test_a_process_that_was_ended_by_others_is_replaced(colours: Path) -> None:
    file = str(colours / "train/red/000.png")
    for _ in range(3):
        ((_, found),) = read_each([file], SMALL)
        assert not isinstance(found, ValueError)
        for worker in workers.idle[os.getpid()]:
            os.kill(worker.ask(os.getpid), signal.SIGTERM)


SCRIPT = """
from cvcc_zoo.data.decode import Decoding
from cvcc_zoo.data.workers import read_each
decoding = Decoding(8, 3, same_size=False, grey_only=False)
open("out.txt", "w").write(str([found.shape for _, found in read_each(["a.png"], decoding)]))
"""  # without a guard for __main__


@pytest.mark.parametrize("closed", ["", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_and_what_is_printed_at_the_start_of_python_do_no_harm(closed: str, tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    (tmp_path / "sitecustomize.py").write_text("print('hello', flush=True)")
    (tmp_path / "script.py").write_text(SCRIPT)
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"}
    command = f"{sys.executable} script.py {closed}"
    subprocess.run(["sh", "-c", command], cwd=tmp_path, env=environment, timeout=120, check=True)
    assert (tmp_path / "out.txt").read_text() == "[(3, 8, 8)]"


@pytest.mark.parametrize(("program", "why"), [("/bin/true", "does not answer"), (None, "cannot be started")])
def test_a_program_that_is_not_python_is_told(program: str, why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", program)
    with pytest.raises(ValueError, match=rf"and {program} {why}.*; set sys\.executable to Python"):
        Worker()


def test_a_folder_that_was_removed_is_not_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    ((_, found),) = read_each([str(tmp_path / "a.png")], SMALL)
    assert not isinstance(found, ValueError)


@pytest.mark.parametrize("options", [{}, {"subsampling": 0}, {"restart_marker_rows": 1}, {"progressive": True}])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_half_a_jpeg_is_refused_although_an_end_marker_follows(
    mode: str, options: dict[str, object], tmp_path: Path
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    image = Image.fromarray(noise).resize((120, 90)).convert(mode)
    jpeg = saved(image, "JPEG", quality=90, **options)
    path = tmp_path / "a.jpg"
    for trailer in (b"", b"more\xff\xd9"):
        path.write_bytes(jpeg + trailer)
        with open_image(path) as opened, Image.open(io.BytesIO(jpeg)) as expected:
            assert np.array_equal(np.asarray(opened), np.asarray(expected))
    start = jpeg.index(b"\xff\xda") + 14
    for share in (0.1, 0.5, 0.6):
        path.write_bytes(jpeg[: start + int(share * (len(jpeg) - start))] + b"\xff\xd9")
        with pytest.raises(ValueError, match=r"a\.jpg is not an image that can be read \(image file is truncated"):
            Decoding(8, 3, same_size=False, grey_only=False)(path)


@pytest.mark.parametrize("size", [(1, 1), (7, 8), (9, 17), (33, 5), (64, 64)])
def test_a_whole_jpeg_of_any_size_is_read(size: tuple[int, int]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    for quality in (1, 50, 100):
        for options in ({}, {"subsampling": 0}, {"restart_marker_blocks": 1}, {"progressive": True}):
            jpeg = saved(Image.fromarray(noise), "JPEG", quality=quality, **options)
            found, expected = (Image.open(io.BytesIO(data), formats=FORMATS) for data in (whole_jpeg(jpeg), jpeg))
            assert np.array_equal(np.asarray(found), np.asarray(expected))


def test_pictures_of_phones_that_hold_several_are_read(tmp_path: Path) -> None:
    pictures = [Image.new("RGB", (16, 8), colour) for colour in ("red", "blue")]
    pictures[0].save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=pictures[1:])
    found = Decoding(8, 3, same_size=False, grey_only=False)(tmp_path / "a.jpg")
    assert found[0].min() > 250 and found[2].max() < 5


def test_a_long_panorama_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(65_535, 2, rows=bytes(2 * 65_536)))
    assert not Decoding(8, 1, same_size=False, grey_only=False)(tmp_path / "a.png").any()
