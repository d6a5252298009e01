"""Folders and files of a run: nothing of another run is touched, and nothing is left half-written."""

from pathlib import Path

from cvcc_zoo.files import write_whole


def reserve_folder(name: str, parent: Path) -> Path:
    """Make `<parent>/<name>`, or `<name>-2`, `-3`, ... if it exists: never a folder that another run has."""
    number = 1
    while True:
        folder = parent / (name if number == 1 else f"{name}-{number}")
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:
            number += 1


def new_folder(folder: Path) -> Path:
    """Make the folder that was asked for. Raises FileExistsError if it is there already."""
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        raise FileExistsError(
            f"the run folder {folder} exists, and nothing of it will be overwritten; "
            "choose another --run=..., or leave --run out to get a numbered one"
        ) from None
    return folder


def write_text(path: Path, text: str) -> None:
    """Write a text file; it is never half there."""
    write_whole(path, text.encode())
