"""Files are written whole or not at all, by whatever other processes there are."""

import errno
import os
import secrets
from pathlib import Path

import pytest
from filelock import FileLock, Timeout

from cvcc_zoo.files.own import (
    STALE,
    file_to_write,
    give_back,
    home,
    locked,
    one_at_a_time,
    remove_unfinished,
    whole_file,
    write_whole,
)
from cvcc_zoo.weights.card import PUBLISHED, find_card


def test_a_file_may_have_the_longest_name_that_there_is(tmp_path: Path) -> None:
    for letter in ("a", "画"):
        path = tmp_path / (letter * (255 // len(letter.encode())))
        path.with_name(f".{path.name[:50]}-{'0' * 16}.unfinished").touch()
        os.utime(path.with_name(f".{path.name[:50]}-{'0' * 16}.unfinished"), (0, 0))
        write_whole(path, b"whole")
        assert path.read_bytes() == b"whole"
    assert len(list(tmp_path.iterdir())) == 2


def test_a_user_without_a_home_gets_no_folder_of_the_name_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os.path, "expanduser", str)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("CVCC_ZOO_DATA", raising=False)
    with pytest.raises(ValueError, match=r"no home folder .* name one: export CVCC_ZOO_DATA="):
        home("CVCC_ZOO_DATA")
    monkeypatch.delenv("CVCC_ZOO_HOME", raising=False)
    assert find_card("linear.cifar10").parent == PUBLISHED  # the weights of the package are there


def test_a_disk_without_locks_is_told_from_one_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(lock: FileLock, timeout: float) -> None:
        Path(lock.lock_file).touch()
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(FileLock, "acquire", refuse)
    (tmp_path / "run").mkdir()
    with (
        pytest.raises(OSError, match=r"this disk cannot lock files, .*; choose another --run"),
        locked(tmp_path / "run", "training", "--run"),
    ):
        pass
    assert not (tmp_path / "run").exists()


def test_the_lock_of_another_user_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(lock: FileLock) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    (tmp_path / ".card.lock").touch()
    monkeypatch.setattr(FileLock, "acquire", refuse)
    with one_at_a_time(tmp_path / "card"):
        pass
    assert (tmp_path / ".card.lock").exists()


def test_a_write_does_not_go_through_a_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    precious = tmp_path / "precious"
    precious.write_bytes(b"mine")
    monkeypatch.setattr(secrets, "token_hex", lambda size: "0" * 2 * size)
    (tmp_path / "weights").symlink_to(precious)
    (tmp_path / f".weights-{'0' * 16}.unfinished").symlink_to(precious)
    with pytest.raises(FileExistsError):
        write_whole(tmp_path / "weights", b"new")
    assert precious.read_bytes() == b"mine"
    monkeypatch.undo()
    write_whole(tmp_path / "weights", b"new")
    assert precious.read_bytes() == b"mine" and (tmp_path / "weights").read_bytes() == b"new"
    assert not (tmp_path / "weights").is_symlink()


def test_two_containers_with_the_same_process_number_do_not_write_into_one_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "getpid", lambda: 7)
    with whole_file(tmp_path / "a") as first, whole_file(tmp_path / "a") as second:
        first.write(b"half")
        second.write(b"whole")
        assert len(list(tmp_path.iterdir())) == 2
    assert (tmp_path / "a").read_bytes() == b"half" and len(list(tmp_path.iterdir())) == 1


def test_what_a_killed_process_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    for name in (".notes-2024", f".notes-{'a' * 16}", "a.unfinished", f".last.ckpt-{'0' * 16}.unfinished"):
        (tmp_path / name).touch()
    for folder in (".backup-2024", f".last.ckpt-{'1' * 16}.unfinished"):  # folders are never ours
        (tmp_path / folder).mkdir()
    remove_unfinished(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        ".backup-2024", f".last.ckpt-{'1' * 16}.unfinished", ".notes-2024", f".notes-{'a' * 16}", "a.unfinished",
    ]  # fmt: skip


def test_a_folder_that_is_locked_names_the_file_that_a_lost_machine_may_have_left(tmp_path: Path) -> None:
    with (
        FileLock(tmp_path / ".lock"),
        pytest.raises(FileExistsError, match=r"if it ran on a machine that is gone, remove .*/\.lock"),
        locked(tmp_path, "training", "--run"),
    ):
        pass


def test_a_folder_is_never_taken_by_two_while_the_file_of_its_lock_is_removed(tmp_path: Path) -> None:
    second, third = (FileLock(tmp_path / ".lock") for _ in range(2))

    class WithAQuickOther(FileLock):
        def release(self, force: bool = False) -> None:
            super().release(force)
            second.acquire(timeout=0)

    first = WithAQuickOther(tmp_path / ".lock")
    first.acquire(timeout=0)
    give_back(first)
    with pytest.raises(Timeout):
        third.acquire(timeout=0)
    give_back(second)
    assert not list(tmp_path.iterdir())


def test_a_write_removes_what_a_killed_one_of_the_same_file_left_long_ago(tmp_path: Path) -> None:
    old, new, other = (tmp_path / f".{name}-{'0' * 16}.unfinished" for name in ("[a]", "[a]-1", "a"))
    for path in (old, new, other):
        path.touch()
        os.utime(path, (0, 0))
    young = tmp_path / f".[a]-{'1' * 16}.unfinished"
    young.touch()  # perhaps another process writes it now
    assert STALE > 60
    write_whole(tmp_path / "[a]", b"whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([young.name, new.name, other.name, "[a]"])


def test_a_file_that_cannot_be_written_is_refused_before_the_work_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert file_to_write(str(tmp_path / "a.png"), ".png") == tmp_path / "a.png"
    (tmp_path / "b.png").mkdir()
    with pytest.raises(ValueError, match=r"b.png is a folder; choose another name"):
        file_to_write(str(tmp_path / "b.png"), ".png")
    monkeypatch.setattr("cvcc_zoo.files.own.os.access", lambda path, mode: (path, mode) != (tmp_path, os.W_OK))
    with pytest.raises(PermissionError, match="cannot write into this folder"):
        file_to_write(str(tmp_path / "a.png"), ".png")
