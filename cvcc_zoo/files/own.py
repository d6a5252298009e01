"""The package's own files: where they are, and functions that write a file whole or not at all."""

import csv
import errno
import glob
import io
import json
import math
import os
import secrets
import shlex
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from filelock import BaseFileLock, FileLock, Timeout

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
"""Errors of a disk that is full or cannot be written."""
FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)
"""Errors of files and folders that a user is not allowed to read or write."""
LOCK = ".lock"
UNFINISHED = ".unfinished"
"""Ending of the names of files that are being written."""
UNLOCKABLE = (errno.ENOLCK, errno.EOPNOTSUPP)
"""Errors of file systems without locks, such as some network drives."""
LONGEST_START = 50  # characters of a file's name that its temporary name begins with: names have at most 255 bytes
FORMULA = (*"=+-@\t\r\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""First characters of formulas in spreadsheets, also full-width: https://owasp.org/www-community/attacks/CSV_Injection"""
STALE = 3600  # seconds after the last write, when an unfinished file counts as abandoned


def home(variable: str) -> Path:
    """Return the folder named by an environment variable, by default `cvcc_zoo` in the user's cache folder.

    Raises ValueError for a user without a home folder.
    """
    if chosen := os.environ.get(variable):
        return expanded(chosen)
    found = expanded(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "cvcc_zoo"
    if str(found).startswith("~"):
        raise ValueError(f"this user has no home folder for the files of the package; name one: export {variable}=...")
    return found


def expanded(path: Path | str) -> Path:
    """Return a path in which `~` is the user's home folder, as a shell reads it; unchanged if there is no such user."""
    return Path(os.path.expanduser(path))  # noqa: PTH111  (that of Path raises RuntimeError for an unknown user)


def shown(path: Path | str) -> str:
    """Return a path for a message: unchanged, or quoted with escapes if a terminal cannot show it on one line."""
    text = str(path)
    return text if text.isprintable() else repr(text)


def in_command(path: Path | str) -> str:
    """Return a path for a command in a message: as `shown`, and quoted if a shell would take it apart."""
    text = str(path)
    return shlex.quote(text) if text.isprintable() else shown(text)


def file_to_write(path: str, *endings: str) -> Path:
    """Return the path of an output file, which is written only after the work of minutes.

    Raises ValueError for another ending, or if its folder does not exist, and OSError if it cannot be written there.
    """
    found = expanded(path)
    if found.suffix not in endings:
        raise ValueError(f"{found} must end in {' or '.join(endings)}")
    if not found.parent.is_dir():
        raise ValueError(f"the folder {found.parent} does not exist; create it, or choose another one for {found.name}")
    if found.is_dir():
        raise ValueError(f"{found} is a folder; choose another name for the file")
    if not os.access(found.parent, os.W_OK):
        raise PermissionError(errno.EACCES, "cannot write into this folder", str(found.parent))
    return found


def check_new_folder(path: Path) -> None:
    """Check the place of a folder that is made only after the work of minutes.

    Raises ValueError if a file is in the way, and PermissionError if nothing can be written there.
    """
    place = next(each for each in path.absolute().parents if each.exists())
    if not place.is_dir():
        raise ValueError(
            f"the folder {shown(path)} cannot be made, because {shown(place)} is a file; choose another one"
        )
    if not os.access(place, os.W_OK):
        raise PermissionError(errno.EACCES, "cannot write into this folder", str(place))


def json_text(value: Any, indent: int | None = 2) -> str:
    """Return plain data as JSON. NaN and infinite numbers, which are not valid JSON, become null."""
    return json.dumps(_finite(value), indent=indent, allow_nan=False) + "\n"


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(each) for key, each in value.items()}
    return [_finite(each) for each in value] if isinstance(value, list | tuple) else value


def csv_text(rows: Iterable[Iterable[Any]]) -> str:
    """Return rows as CSV, without formulas.

    Text that a spreadsheet would run as a formula (it begins with =, +, -, @ or a tab) gets an apostrophe in front, so
    that it is shown as text; numbers are not changed.
    """
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows([_harmless(cell) for cell in row] for row in rows)
    return text.getvalue()


def _harmless(cell: Any) -> Any:
    """Put an apostrophe in front of text that looks like a formula."""
    if not isinstance(cell, str) or not cell.startswith(FORMULA):
        return cell
    with suppress(ValueError):
        float(cell)
        return cell
    return f"'{cell}"


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file that is written whole or not at all: under a temporary name beside it, then flushed and renamed.

    The temporary name is random, because two containers that share a folder may have processes of the same number.
    Raises OSError with the name of the file, which the error of a full disk lacks. Abandoned temporary files of earlier
    writes are removed.
    """
    remove_unfinished(path.parent, path.name, older=STALE)
    unfinished = path.with_name(f".{path.name[:LONGEST_START]}-{secrets.token_hex(8)}{UNFINISHED}")
    try:
        with unfinished.open("xb") as file:  # "x" does not follow a link that somebody put there
            yield file
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        own = error.errno in FULL if error.filename is None else str(error.filename) == str(unfinished)
        if not own:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        with suppress(OSError):  # if it could not be created, the first error is the one to report
            unfinished.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Flush the names in a folder to the disk if its file system supports that; file contents are not affected."""
    with suppress(OSError):  # Windows cannot open folders, and some network drives cannot sync them
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_whole(path: Path, data: bytes | memoryview) -> None:
    """Write a file whole or not at all."""
    with whole_file(path) as file:
        file.write(data)


def write_picture(path: Path, figure: Any, dpi: int = 120) -> None:
    """Write a Matplotlib figure whole or not at all, in the format that the ending of the path names."""
    with whole_file(path) as file:
        figure.savefig(file, format=path.suffix.removeprefix("."), dpi=dpi)


def remove_unfinished(folder: Path, name: str | None = None, older: float = 0.0) -> None:
    """Remove the temporary files that killed processes left in a folder: those of the file `name`, or all.

    If other processes may be writing into the folder, give `older`: files younger than that, in seconds, are kept.
    """
    start = "*" if name is None else glob.escape(name[:LONGEST_START])
    for path in folder.glob(f".{start}-????????????????{UNFINISHED}"):
        with suppress(OSError):  # another process removed it first, or this one is not allowed to
            if path.is_file() and time.time() - path.stat().st_mtime >= older:
                path.unlink()


def give_back(lock: BaseFileLock) -> None:
    """Remove the file of a lock, then release the lock.

    In the other order a second process could lock the file before it is removed, and a third one could then create and
    lock a new file, so that both would hold the lock.
    """
    with suppress(OSError):  # Windows cannot remove open files, and the folder may no longer exist
        Path(lock.lock_file).unlink()
    lock.release()


@contextmanager
def one_at_a_time(path: Path) -> Iterator[None]:
    """Let only one process at a time change a file, on disks that can lock files; the others wait."""
    lock, ours = FileLock(path.with_name(f".{path.name}.lock")), True
    try:
        lock.acquire()
    except OSError as error:  # if nothing can be written there, the error of the file itself is the one to report
        ours = error.errno in UNLOCKABLE  # a lock may also be a file of another user
    try:
        yield
    finally:
        if ours:
            give_back(lock)


@contextmanager
def locked(folder: Path, work: str, instead: str) -> Iterator[None]:
    """Keep other processes out of a folder, and remove the files that killed ones left; `work` is the verb for it.

    The folder is removed at the end if it is empty. Raises FileExistsError with the option to give `instead` if another
    process is at work in the folder, and OSError if nothing can be written there.
    """
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise FileExistsError(
            f"another process is {work} in {folder}; wait until it ends, or choose another {instead}; if it ran on "
            f"a machine that is gone, remove {in_command(folder / LOCK)}"
        ) from None
    except OSError as error:
        why = "cannot write into this folder"
        if error.errno in UNLOCKABLE:
            why = f"this disk cannot lock files, so two processes could disturb each other; choose another {instead}"
            with suppress(OSError):
                Path(lock.lock_file).unlink()
        if error.errno not in FORBIDDEN:
            with suppress(OSError):
                folder.rmdir()
        raise OSError(error.errno, why, str(folder)) from error
    try:
        remove_unfinished(folder)
        yield
    finally:
        give_back(lock)
        with suppress(OSError):  # a folder with files stays
            folder.rmdir()
