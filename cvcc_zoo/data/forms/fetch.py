"""Download a data set whole or not at all: into a hidden folder, whose content is moved when it is complete."""

import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from filelock import FileLock

from cvcc_zoo.files.own import give_back
from cvcc_zoo.files.web import ending

LARGEST = 64 << 30  # bytes of a response; SUN397 is an archive of 39 GB
LOCK, UNFINISHED = ".download.lock", ".download-"


def fetch(
    title: str, root: Path, folder: str, how: str, download: Callable[[Path], Any], present: Callable[[], Any]
) -> None:
    """Call `download` with a new folder, and move what it writes there into `root`.

    Archives that are in `root`, or in its `folder`, are used instead of downloaded, if their checksums are right.
    Only one process downloads into a root; another one waits, and does nothing if the data are `present` by then (which
    raises an error if they are not). Whatever error `download` raises, nothing is left behind, and it becomes a
    FileNotFoundError, which says `how` to get the data on another machine.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
        lock = FileLock(root / LOCK)
        lock.acquire()
        try:
            with suppress(RuntimeError, OSError):
                present()
                return
            _fetch(root, folder, download)
        finally:
            give_back(lock)
    except Exception as error:  # from the network, http.client, an archive, a wrong checksum, a full disk
        for place in (root / folder, *(root / folder).parents):  # torchvision makes some before it looks
            with suppress(OSError):
                if place.is_relative_to(root):
                    place.rmdir()  # unless it has files
        reason = str(error).splitlines()[-1] if str(error) else type(error).__name__
        raise FileNotFoundError(
            f"{title} is not in {root} and could not be downloaded ({reason}).\nOn a machine with a network {how} "
            "(or name the folder that has the data: --data.root=... or $CVCC_ZOO_DATA)"
        ) from error


def _fetch(root: Path, folder: str, download: Callable[[Path], Any]) -> None:
    for left in root.glob(f"{UNFINISHED}*"):  # by a process that was killed
        shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=root, prefix=UNFINISHED) as name, ending(LARGEST):
        new = Path(name)
        for place in {"", folder}:
            _link_files(root / place, new / place)
        download(new)
        _move(new, root)


def _link_files(there: Path, here: Path) -> None:
    """Link the files of one folder, without those in its folders, in another one, where the system can link them."""
    for file in there.iterdir() if there.is_dir() else ():
        if file.is_file() and not file.name.startswith("."):
            here.mkdir(parents=True, exist_ok=True)
            link = here / file.name
            for make in (link.symlink_to, link.hardlink_to):  # Windows has rights for the first, and exFAT has neither
                with suppress(OSError):
                    make(file.absolute())
                    break


def _move(new: Path, root: Path) -> None:
    """Move everything but links; folders that both have are merged."""
    for entry in sorted(new.iterdir()):
        target = root / entry.name
        if entry.is_symlink():
            continue
        if entry.is_dir() and target.is_dir():
            _move(entry, target)
        else:
            entry.replace(target)
