"""Verified downloads: one at a time, checked by sha256, and only then given their name."""

import hashlib
import os
import re
import reprlib
from pathlib import Path
from urllib.parse import quote, urlsplit

from filelock import FileLock

from cvcc_zoo.files.own import give_back, remove_unfinished, whole_file
from cvcc_zoo.files.web import UnavailableError, parts
from cvcc_zoo.printing.progress import Display

CHUNK = 1 << 20  # bytes
HUB = "https://huggingface.co/{repo}/resolve/main/{file}"  # https://huggingface.co/docs/hub/models-downloading
LARGEST = 4 << 30  # bytes; the largest model of the zoo takes 0.3 GB
SCHEMES = ("https", "http", "file")


def address(url: str, file: str) -> str:
    """Return the URL of a file, given a URL or `hf://owner/name` for a file in a Hugging Face repository.

    Raises ValueError for anything else.
    """
    if url.startswith("hf://"):
        repo = url.removeprefix("hf://").strip("/")
        if not re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", repo, flags=re.ASCII):
            raise ValueError(f"{reprlib.repr(url)} is not the address of a file; the Hub has hf://owner/name")
        return HUB.format(repo=repo, file=quote(file))
    if not _is_address(url):
        schemes = ", ".join(f"{scheme}://" for scheme in SCHEMES)
        raise ValueError(f"{reprlib.repr(url)} is not the address of a file; cards have {schemes} or hf://owner/name")
    return url


def _is_address(url: str) -> bool:
    try:
        place = urlsplit(url)
        whole = place.scheme == "file" or bool(place.hostname and place.port != 0)
    except ValueError:  # an incomplete IPv6 address, or a port that is not a number
        return False
    return whole and place.scheme in SCHEMES and url.isprintable() and " " not in url


def fetch(url: str, target: Path, sha256: str, size: int) -> Path:
    """Download a file of `size` bytes to `target` unless it exists already, check its sha256, and return `target`.

    If several processes ask for the same file, one downloads it and the others wait. A token in $HF_TOKEN is sent only
    to the Hugging Face Hub, and only by https. Raises ValueError, and leaves nothing behind, if the file cannot be
    downloaded or is a different one.
    """
    source = address(url, target.name)
    if size > LARGEST:
        raise ValueError(f"{source} would be {size:,} bytes long; more than {LARGEST:,} are not downloaded")
    if target.is_file() and digest(target) == sha256:  # perhaps in a folder that cannot be written
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(target.with_name(f".{target.name}.lock"))
    lock.acquire()
    try:
        if target.is_file() and digest(target) == sha256:
            return target
        remove_unfinished(target.parent, target.name)  # left by a killed download: the lock excludes running ones
        _download(source, target, sha256, size)
    except UnavailableError as error:
        raise ValueError(
            f"{source} cannot be downloaded ({error}); on a machine without a network, put the file {target.name} "
            f"({size:,} bytes, sha256 {sha256}) into {target.parent}"
        ) from error
    finally:
        give_back(lock)
    return target


def _download(source: str, target: Path, sha256: str, size: int) -> None:
    """Write the file. Raises ValueError, and writes nothing, if it is not the right one."""
    place = urlsplit(source)
    hub = place.scheme == "https" and place.hostname == "huggingface.co"
    token = os.environ.get("HF_TOKEN") if hub else None
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    sha, got, display = hashlib.sha256(), 0, Display(f"{target.name}: bytes", size)
    try:
        with whole_file(target) as file:
            for part in parts(source, size, CHUNK, headers):
                got += len(part)
                if got > size:
                    break
                sha.update(part)
                file.write(part)
                display.update(got, text=f"{got / 1e6:,.1f} of {size / 1e6:,.1f} MB")
            if got != size or sha.hexdigest() != sha256:
                found = f"more than {size:,} bytes" if got > size else f"{got:,} bytes and the sha256 {sha.hexdigest()}"
                raise ValueError(f"{source} is not the file that was asked for: it has {found}; nothing was saved")
    finally:
        display.close()


def digest(path: Path) -> str:
    """Return the sha256 of a file as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
