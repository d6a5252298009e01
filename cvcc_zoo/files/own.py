"""Where the package keeps its own files, and how they are written: whole or not at all."""

import csv
import errno
import glob
import io
import json
import math
import os
import secrets
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from filelock import BaseFileLock

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
"""What the system says of a disk that takes no more."""
FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)
"""What it says of files and folders that a user may not read or write."""
UNFINISHED = ".unfinished"
"""How the name of a file ends that is being written."""
FORMULA = (*"=+-@\t\r\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""How texts begin that spreadsheets calculate, also in full width: https://owasp.org/www-community/attacks/CSV_Injection"""
STALE = 3600  # seconds since anything was written into it


def home(variable: str) -> Path:
    """The folder that an environment variable names, else `cvcc_zoo` in the user's cache folder."""
    if chosen := os.environ.get(variable):
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "cvcc_zoo"


def shown(path: Path | str) -> str:
    """A path in a message: as it is, or in quotes with escapes where a terminal could not show it on one line."""
    text = str(path)
    return text if text.isprintable() else repr(text)


def file_to_write(path: str, *endings: str) -> Path:
    """A file that a user asks for. Raises ValueError for another ending, and where its folder is missing."""
    found = Path(path).expanduser()
    if found.suffix not in endings:
        raise ValueError(f"{found} must end in {' or '.join(endings)}")
    if not found.parent.is_dir():
        raise ValueError(f"the folder {found.parent} does not exist; make it, or choose another one for {found.name}")
    return found


def json_text(value: Any, indent: int | None = 2) -> str:
    """Plain data as JSON. NaN and infinite numbers, which it does not have, become null."""
    return json.dumps(_finite(value), indent=indent, allow_nan=False) + "\n"


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(each) for key, each in value.items()}
    return [_finite(each) for each in value] if isinstance(value, list | tuple) else value


def csv_text(rows: Iterable[Iterable[Any]]) -> str:
    """Rows as CSV. Texts that a spreadsheet would calculate (=, +, -, @, a tab in front) get an apostrophe first.

    Such a program shows it as text then; numbers stay as they are.
    """
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows([_harmless(cell) for cell in row] for row in rows)
    return text.getvalue()


def _harmless(cell: Any) -> Any:
    if not isinstance(cell, str) or not cell.startswith(FORMULA):
        return cell
    with suppress(ValueError):
        float(cell)
        return cell
    return f"'{cell}"


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write: under another name beside it, brought to the disk and renamed at the end; never half there.

    The other name is drawn: two containers that share a folder may have processes of the same number. Raises OSError
    with the file's name, which the error of a full disk has not. What was left of it by a kill long ago is removed.
    """
    remove_unfinished(path.parent, path.name, older=STALE)
    unfinished = path.with_name(f".{path.name}-{secrets.token_hex(8)}{UNFINISHED}")
    try:
        with unfinished.open("xb") as file:  # never through a link that somebody put there
            yield file
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        of_it = error.errno in FULL if error.filename is None else str(error.filename) == str(unfinished)
        if not of_it:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        with suppress(OSError):  # where it could not be made, the error before is what matters
            unfinished.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Bring the names in a folder to the disk, where its file system can do that; the files in it are there already."""
    with suppress(OSError):  # Windows opens no folders, and some network drives do not sync them
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


def write_whole(path: Path, data: bytes | memoryview) -> None:
    """Write a file that is never half there."""
    with whole_file(path) as file:
        file.write(data)


def write_picture(path: Path, figure: Any, dpi: int = 120) -> None:
    """Write a figure of matplotlib as the kind of picture that its name ends in; it is never half there."""
    with whole_file(path) as file:
        figure.savefig(file, format=path.suffix.removeprefix("."), dpi=dpi)


def remove_unfinished(folder: Path, name: str | None = None, older: float = 0.0) -> None:
    """Remove what a process that was killed while it wrote has left in a folder: of the file of a `name`, or of all.

    Others may write into the folder where only files are removed that are `older`, in seconds.
    """
    for path in folder.glob(f".{'*' if name is None else glob.escape(name)}-????????????????{UNFINISHED}"):
        with suppress(OSError):  # another process was quicker, or may not
            if path.is_file() and time.time() - path.stat().st_mtime >= older:
                path.unlink()


def give_back(lock: BaseFileLock) -> None:
    """Release a lock whose file is to go too: first the file, which would be another process's after the release.

    That one would have a lock on no file, and a third one could make a new file, and lock it as well.
    """
    with suppress(OSError):  # Windows removes no file that is open, and a folder may be gone
        Path(lock.lock_file).unlink()
    lock.release()
