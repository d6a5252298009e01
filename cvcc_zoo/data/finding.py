"""Find the image files among given paths, and in the folders among them."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cvcc_zoo.data.decode import read_headers
from cvcc_zoo.data.links import is_junk
from cvcc_zoo.data.opening import UnknownFormatError
from cvcc_zoo.data.workers import read_files
from cvcc_zoo.files.own import shown

CHUNK = 256  # files whose headers a process reads at once


@dataclass(frozen=True)
class Found:
    """The files that were found."""

    files: list[Path]
    """Images that can be read."""
    resized: int
    """How many of them have another size than the model."""
    skipped: list[Path]
    """Files in folders that are not images."""
    broken: dict[Path, ValueError]
    """Images that cannot be read, with the reason."""


def find_images(given: Sequence[Path], size: int) -> Found:
    """Find the image files among the given paths and, sorted and without hidden ones, below the given folders.

    `size` is the model's, in pixels. Only headers are read. Raises FileNotFoundError for a missing path, and
    ValueError if there are no images.
    """
    files, skipped, resized, broken = list[Path](), list[Path](), 0, dict[Path, ValueError]()
    for place in given:
        if not place.exists():
            raise FileNotFoundError(f"there is no image or folder {shown(place)}")
        paths = [str(path) for path in (_below(place) if place.is_dir() else [place])]
        parts = [paths[start : start + CHUNK] for start in range(0, len(paths), CHUNK)]
        for found, wrong in read_files(parts, read_headers):
            files += map(Path, found or {})
            resized += sum(shape != (size, size) for shape, _ in (found or {}).values())
            for path, error in wrong.items():
                if isinstance(error, UnknownFormatError) and place.is_dir():
                    skipped.append(Path(path))
                else:
                    broken[Path(path)] = error
    if not files and not broken:
        raise ValueError(f"there are no images in {', '.join(map(shown, given))}")
    return Found(files, resized, skipped, broken)


def _below(folder: Path) -> list[Path]:
    paths = []
    for place, folders, names in os.walk(folder, onerror=_cannot_list):
        folders[:] = [name for name in folders if not is_junk(name)]
        paths += [Path(place, name) for name in names if not is_junk(name)]
    return sorted(paths)


def _cannot_list(error: OSError) -> None:
    raise ValueError(
        f"the folder {shown(error.filename)} cannot be listed ({error.strerror}); give yourself permission to read it, "
        "or leave it out"
    ) from error
