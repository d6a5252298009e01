"""Links, rights and files that change while they are read: the right images, or a message that names the file."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from cvcc_zoo import ImageDataModule
from cvcc_zoo.data import workers
from cvcc_zoo.data.decode import Decoding
from cvcc_zoo.data.decoded import decode_all
from cvcc_zoo.data.folder import image_folder
from cvcc_zoo.data.workers import Worker
from tests.conftest import Fit
from tests.reliability.hostile_folders import cache, in_child, last_pixel, pixels
from tests.reliability.hostile_helpers import answer


def outside(root: Path) -> Path:
    """A folder beside the root with an image."""
    place = root.with_name("outside")
    place.mkdir(exist_ok=True)
    Image.new("RGB", (8, 8), (5, 4, 3)).save(place / "a.png")
    return place


def link_file(root: Path) -> Path:
    (root / "train/red/zz.png").symlink_to(outside(root) / "a.png")
    return root / "train/red/zz.png"


def link_folder(root: Path) -> Path:
    (root / "train/red/zz").symlink_to(outside(root))
    return root / "train/red/zz"


def link_class(root: Path) -> Path:
    shutil.move(root / "train/red", outside(root) / "red")
    shutil.copy(outside(root) / "a.png", outside(root) / "red/zz.png")
    (root / "train/red").symlink_to(outside(root) / "red")
    return root / "train/red"


def link_split(root: Path) -> Path:
    shutil.move(root / "train", outside(root) / "train")
    shutil.copy(outside(root) / "a.png", outside(root) / "train/red/zz.png")
    (root / "train").symlink_to("../outside/train")
    return root / "train"


def link_by_link(root: Path) -> Path:
    (root / "test/red/.hidden").symlink_to(outside(root) / "a.png")
    (root / "train/red/zz.png").symlink_to("../../test/red/.hidden")
    return root / "train/red/zz.png"


@pytest.mark.parametrize("link", [link_file, link_folder, link_class, link_split, link_by_link])
def test_a_link_out_of_the_root_is_followed_only_when_asked(
    link: Callable[[Path], Path], colours: Path, fit: Fit, capsys: pytest.CaptureFixture[str]
) -> None:
    where = link(colours)
    with pytest.raises(ValueError, match=r"is a link that leads out of .*--data\.follow_links=true") as caught:
        ImageDataModule("folder", str(colours))
    assert str(where) in str(caught.value) and str(colours.with_name("outside")) in str(caught.value)
    assert last_pixel(colours, follow_links=True) == [5, 4, 3]
    assert "follow_links=true" in answer(capsys, "fit", "--data.dataset=folder", f"--data.root={colours}")
    data = ImageDataModule("folder", str(colours), follow_links=True, validation=0)
    assert len(data.training_images()[2]) == 41


def test_links_inside_the_root_and_the_root_itself_are_followed(colours: Path) -> None:
    (colours / "train/red/zz.png").symlink_to("../blue/000.png")
    (colours / "train/red/zzz").symlink_to(colours / "test/red")
    root = colours.with_name("by-link")
    root.symlink_to(colours)
    assert len(pixels(root)) == 40 + 1 + 6
    assert torch.equal(pixels(root)[40], pixels(root)[0])


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("nothing.png", "which does not exist; fix it or remove it"),
        ("zz", "which does not exist; fix it or remove it"),
        (".", "which contains it; remove the link"),
        ("../..", "which contains it; remove the link"),
        ("../blue", "which contains it; remove the link"),
        ("../blue/back", "which contains it; remove the link"),
    ],
)
@pytest.mark.parametrize("follow", [False, True])
def test_links_to_nothing_and_in_circles_are_refused(target: str, message: str, follow: bool, colours: Path) -> None:
    (colours / "train/blue/back").symlink_to("../red")
    (colours / "train/red/zz").symlink_to(target)
    with pytest.raises(ValueError) as caught:
        image_folder(colours, follow_links=follow)
    assert message in str(caught.value)


@pytest.fixture
def open_folder(colours: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The image folder where any user may look, with a cache that any user may write."""
    place = Path(tempfile.mkdtemp())
    place.chmod(0o777)
    monkeypatch.setenv("CVCC_ZOO_DATA", str(place / "cache"))
    yield Path(shutil.copytree(colours, place / "images"))
    shutil.rmtree(place)


@pytest.mark.parametrize(
    ("spoilt", "message"),
    [
        ("train/red/003.png", "003.png is not an image that can be read (no permission); give yourself permission"),
        ("train/red", "the folder {root}/train/red cannot be listed (Permission denied)"),
        ("train/red/more", "the folder {root}/train/red/more cannot be listed (Permission denied)"),
    ],
)
def test_without_permission_nothing_is_left_out_silently(spoilt: str, message: str, open_folder: Path) -> None:
    (open_folder / "train/red/more").mkdir()
    shutil.copy(open_folder / "train/red/000.png", open_folder / "train/red/more")
    (open_folder / spoilt).chmod(0)

    def as_somebody() -> None:
        if os.geteuid() == 0:  # who may read everything
            worker, nobody = Worker(), 65534  # who might have no right to start Python, or to import more of it
            first = [str(open_folder / "train/blue/000.png")]
            worker.ask(workers.outcomes, first, Decoding(8, 3, same_size=False, grey_only=False))
            worker.ask(os.setuid, nobody)
            workers.idle[os.getpid()].append(worker)
            os.setuid(nobody)
        pixels(open_folder)

    assert message.format(root=open_folder) in in_child(as_somebody)
    (open_folder / spoilt).chmod(0o755)
    assert in_child(as_somebody) == "no error"


def replace(path: Path) -> None:
    Image.new("RGB", (8, 8), (1, 2, 3)).save(path)


@pytest.mark.parametrize("change", [replace, Path.unlink, lambda path: path.write_bytes(b"")])
def test_files_that_change_while_they_are_read_leave_no_cache(
    change: Callable[[Path], Any], colours: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = colours / "train/red/019.png"

    def meanwhile(*arguments: Any) -> None:
        decode_all(*arguments)
        change(path)

    with monkeypatch.context() as patch:
        patch.setattr("cvcc_zoo.data.folder.decode_all", meanwhile)
        with pytest.raises(ValueError, match="changed while they were read; start again when nothing writes"):
            pixels(colours)
    assert cache() == []
    replace(path)
    assert last_pixel(colours) == [1, 2, 3]


def test_a_file_that_is_gone_after_the_folder_was_listed_is_named(colours: Path) -> None:
    found = image_folder(colours)
    (colours / "train/red/007.png").unlink()
    with pytest.raises(ValueError, match=r"red/007\.png cannot be read \(No such file or directory\); start again"):
        found.prepare()


def test_another_file_of_the_same_size_and_time_is_noticed(colours: Path) -> None:
    path = colours / "train/red/019.png"
    Image.new("RGB", (8, 8), (1, 2, 3)).save(path)
    assert last_pixel(colours) == [1, 2, 3]
    before = path.stat()
    other = path.with_name("other")
    Image.new("RGB", (8, 8), (3, 2, 1)).save(other, "PNG")
    assert other.stat().st_size == before.st_size
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.replace(path)
    assert path.stat().st_mtime_ns == before.st_mtime_ns
    assert last_pixel(colours) == [3, 2, 1]
