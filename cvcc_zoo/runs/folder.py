"""Folders and files of a run: nothing of another run is touched, and nothing is left half-written."""

from collections.abc import Sequence
from pathlib import Path

from lightning.fabric.utilities.rank_zero import rank_zero_only

from cvcc_zoo.files.own import shown, write_whole
from cvcc_zoo.weights.checkpoint import Checkpoint

CONFIG = "config.yaml"
LAST = "last.ckpt"
PREVIOUS = "previous.ckpt"
"""The one before it, while a run trains."""
HEADER = f"# cvcc-zoo fit --config {CONFIG}\n"


def reserve_folder(name: str, parent: Path) -> Path:
    """Make `<parent>/<name>`, or `<name>-2`, `-3`, ... if it exists: never a folder that another run has."""
    number = 1
    while True:
        folder = parent / (name if number == 1 else f"{name}-{number}")
        try:
            _make(folder)
            return folder
        except FileExistsError:
            number += 1


def _make(folder: Path) -> None:
    """Make a folder. Raises FileExistsError if it is there, and OSError, which says why, if it cannot be made."""
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        raise
    except OSError as error:
        raise OSError(f"the run folder {shown(folder)} cannot be made: {error}; choose another --run=...") from None


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
        _make(folder)
    except FileExistsError:
        raise FileExistsError(
            f"the run folder {folder} exists, and nothing of it will be overwritten; choose another --run=..., or "
            f"leave --run out to get a numbered one; to go on with it: --config={folder}/config.yaml --ckpt_path=last"
        ) from None
    return folder


def folder_to_resume(asked: str | None, configs: Sequence[Path]) -> Path | None:
    """The run folder that `--ckpt_path=last` means: the one asked for, else that of one of these config files.

    None if the one asked for is not there yet: then the run starts. Raises ValueError where no folder is meant.
    """
    if asked:
        folder = Path(asked).expanduser()
        files = [path for path in folder.iterdir() if path.name[0] != "."] if folder.is_dir() else []
        if files and not is_run(folder):
            raise ValueError(f"{folder} is not a run folder: it has no {CONFIG}, but other files; choose another --run")
        return folder if folder.is_dir() else None
    folders = [file.parent for file in configs if file.name == CONFIG and is_run(file.parent)]
    if len(folders) != 1:
        raise ValueError(
            f"--ckpt_path=last goes on with the run whose config is given: --config=runs/NAME/{CONFIG}, or with that "
            f"of --run=FOLDER, which starts where there is none; configs: {', '.join(map(str, configs)) or 'none'}"
        )
    return folders[0]


def is_run(folder: Path) -> bool:
    """Whether a folder holds the config that a run writes."""
    config = folder / CONFIG
    return config.is_file() and config.read_text(errors="replace").startswith(HEADER)


def last_of(folder: Path | None) -> Path | None:
    """The `last.ckpt` of a run, or None: a run that was killed before it wrote one starts again."""
    last = folder / LAST if folder else None
    return last if last and last.is_file() else None


def saved_config(folder: Path | None, checkpoint: Checkpoint | None) -> str | None:
    """The config in YAML that a training goes on from: the checkpoint's own, else that in the folder."""
    if checkpoint is not None and checkpoint.config:
        return checkpoint.config
    return (folder / CONFIG).read_text(errors="replace") if folder and is_run(folder) else None


def write_text(path: Path, text: str) -> None:
    """Write a text file; it is never half there."""
    write_whole(path, text.encode())
