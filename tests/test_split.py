"""`cvcc-zoo split`: every class in every split, groups together, duplicates found, the originals untouched."""

import csv
import errno
import io
import os
import shlex
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from filelock import FileLock
from PIL import Image

from cvcc_zoo import ImageDataModule
from cvcc_zoo.__main__ import main
from cvcc_zoo.data.duplicates import connected, duplicates, near_pairs
from cvcc_zoo.data.looks import look_at
from cvcc_zoo.data.partition import largest_remainder, partition
from tests.conftest import QUICK, message

Pixels = npt.NDArray[np.uint8]
SHARES = {"train": 0.8, "val": 0.1, "test": 0.1}


def scene(seed: int, size: int = 32) -> Pixels:
    """A smooth random picture, uint8 (size, size, 3)."""
    noise = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(noise).resize((size, size), Image.Resampling.BICUBIC))


@pytest.fixture
def photos() -> Path:
    """30 photos of a 猫 and 12 of a dog; three of each object."""
    root = Path("photos").absolute()
    for label, (name, count) in enumerate({"猫": 30, "dog": 12}.items()):
        (root / name).mkdir(parents=True)
        for number in range(count):
            Image.fromarray(scene(100 * label + number)).save(root / name / f"{name}{number // 3}_{number % 3}.png")
    return root


def files(root: Path) -> dict[str, list[str]]:
    """The names of the files of each split."""
    splits = [path for path in sorted(root.iterdir()) if path.is_dir()]
    return {split.name: sorted(path.name for path in split.glob("*/*")) for split in splits}


def state(root: Path) -> list[tuple[str, int, bytes]]:
    """The names, times and contents of all files."""
    return [(str(path), path.stat().st_ctime_ns, path.read_bytes()) for path in sorted(root.glob("*/*"))]


def test_the_command_that_trains_on_the_new_folder_quotes_spaces(
    photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["split", str(photos), "--output=my images", "--copy"]) == 0
    assert "Train on it: cvcc-zoo fit --data.root='my images' (" in capsys.readouterr().out


def test_the_command_that_trains_on_a_folder_without_test_images_can_be_run(
    photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["split", str(photos), "--output=new", "--test=0"]) == 0
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("Train on it: "))
    words = shlex.split(line.partition("cvcc-zoo ")[2].partition(" (")[0])
    assert words == ["fit", "--data.root=new", "--data.follow_links=true", "--test=false"]
    assert main([*words, "--model=linear", "--data.image_size=8", *QUICK]) == 0


def test_the_command_that_trains_on_a_class_of_one_training_image_can_be_run(
    photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in sorted((photos / "dog").iterdir())[2:]:
        path.unlink()
    assert main(["split", str(photos), "--output=new", "--val=0", "--copy"]) == 0
    words = shlex.split(capsys.readouterr().out.partition("Train on it: cvcc-zoo ")[2].partition(" (")[0])
    assert words == ["fit", "--data.root=new", "--data.validation=0"]
    assert main([*words, "--model=linear", "--data.image_size=8", *QUICK]) == 0


@pytest.mark.parametrize("copy", [False, True])
def test_a_folder_is_divided_class_by_class_and_can_be_trained_on(
    photos: Path, copy: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    before = state(photos)
    assert main(["split", str(photos), "--output=new", "--val=0.1", "--test=0.2", *["--copy"] * copy]) == 0
    printed = capsys.readouterr().out
    assert [line.split("│")[1:-1] for line in printed.splitlines() if "dog" in line or "all " in line]
    assert "No duplicates were found." in printed
    counts = {split: len(list(Path("new", split).glob("*/*"))) for split in ("train", "val", "test")}
    assert counts == {"train": 21 + 9, "val": 3 + 1, "test": 6 + 2}
    assert sorted(path.name for path in Path("new").glob("*/*/*")) == sorted(path.name for path in photos.glob("*/*"))
    assert state(photos) == before
    assert all(path.is_symlink() is not copy for path in Path("new").glob("*/*/*"))
    data = ImageDataModule(root="new", follow_links=not copy)
    assert data.classes == ("dog", "猫") and [len(data.training_images()[2]), data.count("val")] == [30, 4]


def test_the_seed_chooses_the_images(photos: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        assert main(["split", str(photos), f"--output={name}", f"--seed={seed}"]) == 0
    assert files(Path("a")) == files(Path("b")) != files(Path("c"))


def test_images_of_one_object_stay_together(photos: Path) -> None:
    assert main(["split", str(photos), "--output=new", r"--group=^(.*)_", "--val=0.2", "--test=0.2"]) == 0
    objects = {split: {name.partition("_")[0] for name in names} for split, names in files(Path("new")).items()}
    assert not objects["train"] & objects["val"] | objects["train"] & objects["test"] | objects["val"] & objects["test"]
    assert {split: len(names) for split, names in files(Path("new")).items()} == {"train": 24, "val": 9, "test": 9}


@pytest.mark.parametrize("count", [3, 4, 5, 10, 11, 99, 1000])
def test_whole_numbers_are_closest_to_the_shares_and_at_least_one(count: int) -> None:
    found = largest_remainder(count, [0.8, 0.1, 0.1])
    assert found.sum() == count and found.min() >= 1
    if count >= 10:
        assert (np.abs(found - count * np.array([0.8, 0.1, 0.1])) < 1).all()
    assert largest_remainder(10, [0.7, 0.15, 0.15]).tolist() == [7, 2, 1]


def test_single_images_are_divided_exactly_and_groups_as_well_as_scikit_learn_does() -> None:
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 5, 2000)
    alone = partition(labels, np.arange(2000), SHARES, 0, "abcde")
    for label in range(5):
        counts = np.bincount(alone[labels == label], minlength=3)
        assert counts.tolist() == largest_remainder(int((labels == label).sum()), [0.8, 0.1, 0.1]).tolist()
    groups = generator.integers(0, 150, 2000)
    grouped = partition(labels, groups, SHARES, 0, "abcde")
    assert all(len(set(grouped[groups == group])) == 1 for group in range(150))
    shares = np.array(
        [np.bincount(grouped[labels == label], minlength=3) / (labels == label).sum() for label in range(5)]
    )
    assert np.abs(shares - [0.8, 0.1, 0.1]).max() < 0.02


def test_a_class_without_enough_images_or_groups_is_told() -> None:
    with pytest.raises(ValueError, match=r"the class 'b' has 2 images, too few for train and val and test; .*--val=0"):
        partition(np.array([0] * 9 + [1] * 2), np.arange(11), SHARES, 0, "ab")
    with pytest.raises(ValueError, match=r"no group of images is left for the class 'b' in .*: --val=0"):
        partition(np.array([0] * 9 + [1] * 9), np.array([*range(9), *[9] * 5, *[10] * 4]), SHARES, 0, "ab")


def test_a_class_that_no_other_share_helps_is_to_be_left_out() -> None:
    one, halves = np.array([0] * 9 + [1]), {"train": 0.5, "test": 0.5}
    for shares in (SHARES, halves):
        with pytest.raises(ValueError, match=r"has 1 image, too few for .*; add images, or leave the class out"):
            partition(one, np.arange(10), shares, 0, "ab")
    with pytest.raises(ValueError, match=r"no group of images is left .* or leave the class out"):
        partition(np.array([0] * 9 + [1] * 9), np.array([*range(9), *[9] * 9]), halves, 0, "ab")


def test_a_class_of_as_many_groups_as_splits_has_one_in_each() -> None:
    labels, groups = np.array([0] * 6 + [1] * 30), np.array([0, 0, 1, 1, 2, 2, *range(3, 33)])
    assert sorted(partition(labels, groups, SHARES, 0, "ab")[:6:2]) == [0, 1, 2]


def test_groups_of_several_classes_leave_every_class_in_every_split() -> None:
    for seed in range(20):
        generator = np.random.default_rng(seed)
        labels, groups = generator.integers(0, 3, 60), generator.permutation(60) % 12
        found = partition(labels, groups, SHARES, seed, "abc")
        assert len({*zip(labels.tolist(), found.tolist(), strict=True)}) == 9


def saved(pixels: Pixels, name: str, **options: Any) -> str:
    Image.fromarray(pixels).save(name, **options)
    return name


def test_the_same_pixels_are_exact_and_slight_changes_are_near_duplicates() -> None:
    picture, grey = scene(0), np.repeat(scene(1)[..., :1], 3, 2)
    brighter = np.clip(picture.astype(int) + 3, 0, 255).astype(np.uint8)
    large = np.asarray(Image.fromarray(picture).resize((80, 80), Image.Resampling.BICUBIC))
    paths = [
        saved(picture, "a.png"), saved(picture, "a.bmp"), saved(picture, "a.jpg", quality=85), saved(brighter, "b.png"),
        saved(large, "c.webp"), saved(grey, "d.png"), saved(grey[..., 0], "e.png"),
        saved(picture[:, ::-1], "mirrored.png"), saved(scene(2), "other.png"),
    ]  # fmt: skip
    digests, small = zip(*(look_at(path, 10**6) for path in paths), strict=True)
    exact, near = duplicates((np.stack(digests), np.stack(small)))
    assert exact[0] == exact[1] and exact[5] == exact[6] and len(set(exact)) == 7
    assert len(set(near[:5])) == 1 and near[5] == near[6] and len(set(near)) == 4


def test_different_pictures_are_no_duplicates() -> None:
    small = np.stack([np.asarray(Image.fromarray(scene(seed, 16)).convert("L")) for seed in range(400)])
    assert sum(len(pairs) for pairs in near_pairs(small)) == 0
    assert sum(len(pairs) for pairs in near_pairs(np.concatenate([small, small[7:8]]))) == 1
    assert connected(5, np.array([[0, 4], [4, 2]])).tolist() == [0, 1, 0, 2, 0]


def rows() -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(Path("new/duplicates.csv").read_text())))


def test_duplicates_across_splits_are_listed_or_put_together(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(10):
        shutil.copy(photos / "猫/猫0_0.png", photos / f"猫/copy{number}.png")
    Image.fromarray(scene(4)).save(photos / "dog/wrong.webp", quality=90)  # 猫1_1
    assert main(["split", str(photos), "--output=new", "--test=0.3"]) == 0
    printed = capsys.readouterr().out
    assert "images with exact duplicates: 11, only with near ones: 2, sets of duplicates: 2; listed in new/" in printed
    assert "sets that lie across splits: " in printed and "sets with images of several classes: 1; check" in printed
    found = rows()
    assert [row["kind"] for row in found].count("exact") == 11 and found[0]["across_splits"] == "yes"
    assert {Path("new", row["file"]).resolve().parent.parent for row in found} == {photos}
    shutil.rmtree("new")
    assert main(["split", str(photos), "--output=new", "--test=0.3", "--duplicates=together"]) == 0
    assert "lie across" not in capsys.readouterr().out
    assert {row["across_splits"] for row in rows()} == {"no"} and len(rows()) == 13


def test_wrong_input_is_told_and_writes_nothing(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("full").mkdir()
    Path("full/mine.txt").touch()
    for options, words in {
        ("--output=full",): "full exists and is not an empty folder; choose another --output",
        (f"--output={photos}/new",): "would be inside the originals",
        ("--output=full/mine.txt/a/new",): "full/mine.txt is a file; choose another one",
        ("--output=new", "--test=1"): "--val and --test are shares of the images",
        ("--output=new", "--val=0", "--test=0"): "--val and --test are shares",
        ("--output=new", "--group=("): "is not a regular expression: missing )",
        ("--output=new", "--group=a"): "has no group; put the part that names the object in parentheses",
        ("--output=new", "--group=(猫.)"): "12 of 42 file names do not match",
        ("--output=new", "--duplicates=drop"): "no treatment named 'drop'; known are: list, together",
        (): "output",
    }.items():
        assert words in message(capsys, ["split", str(photos), *options]), options
    assert "there is no folder nowhere" in message(capsys, ["split", "nowhere", "--output=new"])
    limited = ["split", str(photos), "--output=new", "--data.max_pixels=1000"]
    assert "42 images cannot be read" in (printed := message(capsys, limited)) and "--data.max_pixels=..." in printed
    (photos / "dog/broken.png").write_bytes(b"not an image")
    (photos / "dog/broken2.png").write_bytes(b"not an image")
    printed = message(capsys, ["split", str(photos), "--output=new"])
    assert "2 images cannot be read" in printed and "broken2.png" in printed
    assert sorted(path.name for path in Path().iterdir()) == ["full", "photos"]


def test_a_place_that_cannot_be_written_is_told_before_the_images_are_read(
    photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "dog/broken.png").write_bytes(b"not an image")
    monkeypatch.setattr("os.access", lambda path, mode: False)  # as on a read-only disk, for root too
    assert "cannot write into this folder" in message(capsys, ["split", str(photos), "--output=far/away/new"])
    assert not Path("far").exists()


def test_a_folder_that_is_divided_already_is_refused(colours: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["split", str(colours), "--output=new"]
    assert "is divided already (test, train); give one of these folders" in message(capsys, words)


def test_a_split_that_is_interrupted_leaves_nothing(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link, links = Path.symlink_to, iter([1, 2, 3])

    def interrupted(self: Path, target: Path) -> None:
        if next(links) == 3:
            raise KeyboardInterrupt
        link(self, target)

    monkeypatch.setattr(Path, "symlink_to", interrupted)
    assert main(["split", str(photos), "--output=new"]) == 130
    assert [path.name for path in Path().iterdir()] == ["photos"]


def test_a_split_that_was_killed_leaves_nothing_after_the_next_try(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copyfile", killed)
        patch.setattr(shutil, "rmtree", lambda *_, **options: None)
        assert main(["split", str(photos), "--output=new", "--copy"]) == 130
    assert len(list(Path().iterdir())) == 2
    assert main(["split", str(photos), "--output=new", "--copy"]) == 0
    assert sorted(path.name for path in Path().iterdir()) == ["new", "photos"]


def test_two_splits_do_not_write_the_same_folder(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path(".new.unfinished").mkdir()
    with FileLock(".new.unfinished/.lock"):
        assert "another process is writing in " in message(capsys, ["split", str(photos), "--output=new"])
    assert not Path("new").exists()


@pytest.mark.parametrize(("number", "code", "left"), [(errno.ENOLCK, 0, ["new"]), (errno.ENOSPC, 2, [])])
def test_a_folder_is_divided_also_on_a_disk_that_cannot_lock_files(
    number: int, code: int, left: list[str], photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(lock: FileLock, timeout: float) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(FileLock, "acquire", refuse)
    assert main(["split", str(photos), "--output=new"]) == code
    assert sorted(path.name for path in Path().iterdir()) == [*left, "photos"]


@pytest.mark.usefixtures("without_nohup")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_split_that_is_ended_by_a_signal_leaves_nothing(
    photos: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    monkeypatch.setattr(Path, "symlink_to", lambda *_: os.kill(os.getpid(), number))
    with pytest.raises(SystemExit) as stopped:
        main(["split", str(photos), "--output=new"])
    assert stopped.value.code == 128 + number
    assert [path.name for path in Path().iterdir()] == ["photos"]


def test_a_link_to_an_empty_folder_stays_a_link(photos: Path) -> None:
    Path("disk").mkdir()
    Path("new").symlink_to("disk")
    assert main(["split", str(photos), "--output=new"]) == 0
    assert Path("new").is_symlink() and set(files(Path("disk"))) == {"train", "val", "test"}


def test_a_folder_with_nothing_but_files_of_a_file_manager_is_empty(photos: Path) -> None:
    Path("new").mkdir()
    Path("new/.DS_Store").touch()
    Path("new/Thumbs.db").touch()
    assert main(["split", str(photos), "--output=new"]) == 0
    assert sorted(path.name for path in Path("new").iterdir()) == ["test", "train", "val"]


def test_a_folder_in_use_is_not_replaced(
    photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("new").mkdir()
    with monkeypatch.context() as patch:
        patch.chdir("new")
        assert ". would be replaced while it is in use; give a new folder in it" in message(
            capsys, ["split", str(photos), "--output=."]
        )
    Path("link").symlink_to("new")
    monkeypatch.setattr(os.path, "ismount", lambda path: path == Path("new").absolute())
    assert "link would be replaced while it is in use" in message(capsys, ["split", str(photos), "--output=link"])
    assert "new would be replaced while it is in use" in message(capsys, ["split", str(photos), "--output=new"])


def test_subfolders_of_a_class_are_kept(photos: Path) -> None:
    (photos / "dog/more").mkdir()
    shutil.copy(photos / "dog/dog0_0.png", photos / "dog/more/dog0_0.png")
    assert main(["split", str(photos), "--output=new", "--copy"]) == 0
    assert len(list(Path("new").glob("*/dog/more/dog0_0.png"))) == 1
