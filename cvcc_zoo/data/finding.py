"""The image files among paths that somebody gives, and below folders."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import UnidentifiedImageError

from cvcc_zoo.data.decode import NeedsOptionError, UnreadableImageError, open_image
from cvcc_zoo.data.links import is_junk
from cvcc_zoo.files import shown


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
    files, skipped, resized, broken = [], [], 0, dict[Path, ValueError]()
    for place in given:
        if not place.exists():
            raise FileNotFoundError(f"there is no image or folder {shown(place)}")
        for path in _below(place) if place.is_dir() else [place]:
            try:
                with open_image(path) as image:
                    resized += image.size != (size, size)
            except (UnreadableImageError, NeedsOptionError) as error:
                if path == place or not isinstance(error.__cause__, UnidentifiedImageError):
                    broken[path] = error
                else:
                    skipped.append(path)
                continue
            files.append(path)
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
