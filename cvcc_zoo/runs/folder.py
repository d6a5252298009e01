"""Folders and files of a run: nothing of another run is touched, and nothing is left half-written."""

from collections.abc import Sequence
from pathlib import Path

from lightning.fabric.utilities.rank_zero import rank_zero_only

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


def new_folder(asked: str | None, parent: Path, name: str) -> Path:
    """Make the folder that was asked for, else `<parent>/<name>` or the next number of it.

    Only the first of several processes makes it. Raises FileExistsError if the one asked for is there already.
    """
    if getattr(rank_zero_only, "rank", 0):
        return Path(asked) if asked else parent / name
    if not asked:
        return reserve_folder(name, parent)
    folder = Path(asked).expanduser()
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        raise FileExistsError(
            f"the run folder {folder} exists, and nothing of it will be overwritten; choose another --run=..., or "
            f"leave --run out to get a numbered one; to go on with it: --config={folder}/config.yaml --ckpt_path=last"
        ) from None
    return folder


def folder_to_resume(configs: Sequence[Path]) -> Path:
    """The run folder that one of these config files lies in. Raises ValueError if none or several do."""
    folders = [file.parent for file in configs if (file.parent / "last.ckpt").is_file()]
    if len(folders) != 1:
        raise ValueError(
            "--ckpt_path=last goes on with the run whose config is given: --config=runs/NAME/config.yaml, beside a "
            f"last.ckpt; the configs are {', '.join(map(str, configs)) or 'none'}"
        )
    return folders[0]


def write_text(path: Path, text: str) -> None:
    """Write a text file; it is never half there."""
    write_whole(path, text.encode())
