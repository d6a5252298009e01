"""The image files among paths that somebody gives, and below folders."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cvcc_zoo.data.decode import look_at
from cvcc_zoo.data.links import is_junk
from cvcc_zoo.data.opening import UnknownFormatError
from cvcc_zoo.data.workers import read_files
from cvcc_zoo.files.own import shown

CHUNK = 256  # headers that a process reads at once


@dataclass(frozen=True)
class Found:
    """Image files, how many of them have not the model's size, files in folders that are no images, broken ones."""

    files: list[Path]
    resized: int
    skipped: list[Path]
    broken: dict[Path, ValueError]


def find_images(given: Sequence[Path], size: int) -> Found:
    """The image files among those given and below the folders given, sorted there; hidden ones are not looked at.

    Only headers are read. Raises FileNotFoundError or ValueError for what is missing, and if there are no images.
    """
    files, skipped, resized, broken = list[Path](), list[Path](), 0, dict[Path, ValueError]()
    for place in given:
        if not place.exists():
            raise FileNotFoundError(f"there is no image or folder {shown(place)}")
        paths = [str(path) for path in (_below(place) if place.is_dir() else [place])]
        parts = [paths[start : start + CHUNK] for start in range(0, len(paths), CHUNK)]
        for found, wrong in read_files(parts, look_at):
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
    raise ValueError(f"the folder {shown(error.filename)} cannot be listed ({error.strerror})") from error
