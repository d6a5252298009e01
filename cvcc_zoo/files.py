"""Where the package keeps its own files, and how they are written: whole or not at all."""

import os
from pathlib import Path


def home(variable: str) -> Path:
    """The folder that an environment variable names, else `cvcc_zoo` in the user's cache folder."""
    if chosen := os.environ.get(variable):
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "cvcc_zoo"


def write_whole(path: Path, data: bytes) -> None:
    """Write a file under another name beside it, bring it to the disk, and rename it: it is never half there."""
    unfinished = path.with_name(f".{path.name}-{os.getpid()}")
    try:
        with unfinished.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
