"""Folders and files of a run: no other run's files are touched, and no file is left half-written."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.fabric.utilities.rank_zero import rank_zero_only

from cvcc_zoo.data.folder import ImageFolder
from cvcc_zoo.data.images import ImageDataset
from cvcc_zoo.files.own import expanded, in_command, shown
from cvcc_zoo.weights.checkpoint import Checkpoint

CONFIG = "config.yaml"
LAST = "last.ckpt"
PREVIOUS = "previous.ckpt"
"""The checkpoint before the last one; it exists only while a run trains."""
LIMITS = ("max_epochs", "max_steps", "max_time")
"""Options of the Trainer that limit the length of a run."""
HEADER = f"# cvcc-zoo fit --config {CONFIG}\n"


def reserve_folder(name: str, parent: Path) -> Path:
    """Make `<parent>/<name>`, or `<name>-2`, `-3`, ... if it exists, so that runs never share a folder."""
    number = 1
    while True:
        folder = parent / (name if number == 1 else f"{name}-{number}")
        try:
            _make(folder)
            return folder
        except FileExistsError:
            number += 1


def _make(folder: Path) -> None:
    """Make a folder. Raises FileExistsError if it exists, and OSError, with the reason, if it cannot be made."""
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        if isinstance(error, FileExistsError) and (folder.exists() or folder.is_symlink()):
            raise
        raise OSError(f"the run folder {shown(folder)} cannot be made: {error}; choose another --run=...") from None


def new_folder(asked: str | None, parent: Path, model: str, images: ImageDataset) -> Path:
    """Make the folder `asked` for, or otherwise `<parent>/<model>-<data set>` with the next free number.

    Only the first of several processes makes it. Raises FileExistsError if the folder asked for exists, and ValueError
    if it would become one of the classes of the images.
    """
    name = f"{model}-{images.title}"
    folder = expanded(asked) if asked else parent / name
    check_outside(folder, images, "--run")
    if getattr(rank_zero_only, "rank", 0):
        return folder
    if not asked:
        return reserve_folder(name, parent)
    try:
        _make(folder)
    except FileExistsError:
        raise FileExistsError(
            f"the run folder {folder} exists, and none of it will be overwritten; choose another --run=..., or "
            f"leave --run out to get a numbered one; to resume it: "
            f"--config={in_command(folder / CONFIG)} --ckpt_path=last"
        ) from None
    return folder


def check_outside(folder: Path, images: ImageDataset, option: str) -> None:
    """Raise ValueError, with the option to choose another, if a folder would become a class of the images.

    Also raise it as `check_address` does.
    """
    check_address(folder, option)
    if not (isinstance(images, ImageFolder) and images.only_classes):
        return
    if folder.resolve().is_relative_to(images.root.resolve()):
        raise ValueError(
            f"the folder {folder} would be in {shown(images.root)}, where every folder is a class; choose one "
            f"elsewhere: {option}=..."
        )


def check_address(folder: Path, option: str) -> None:
    """Raise ValueError for `::` in a path: it joins the parts of an address for fsspec, with which Lightning writes."""
    path = folder.resolve()
    if "::" in str(path):
        raise ValueError(
            f"no checkpoint can be written into {shown(path)}, because of the `::`; rename it, or choose another "
            f"{option}"
        )


def folder_to_resume(asked: str | None, configs: Sequence[Path]) -> Path | None:
    """Return the run folder of `--ckpt_path=last`: the one `asked` for, or otherwise that of one of the config files.

    None if the folder asked for does not exist yet: then the run starts. Raises ValueError if neither names a run, and
    as `check_address` does.
    """
    if asked:
        folder = expanded(asked)
        check_address(folder, "--run")
        files = [path for path in folder.iterdir() if path.name[0] != "."] if folder.is_dir() else []
        if files and not is_run(folder):
            raise ValueError(f"{folder} is not a run folder: it has files, but no {CONFIG}; choose another --run")
        return folder if folder.is_dir() else None
    folders = [file.parent for file in configs if file.name == CONFIG and is_run(file.parent)]
    if len(folders) != 1:
        raise ValueError(
            f"--ckpt_path=last resumes the run whose config is given: --config=runs/NAME/{CONFIG}, or the run in "
            f"--run=FOLDER, which starts if it does not exist; configs: {', '.join(map(str, configs)) or 'none'}"
        )
    check_address(folders[0], "--run")
    return folders[0]


def is_run(folder: Path) -> bool:
    """Return whether a folder holds a config that a run wrote."""
    config = folder / CONFIG
    return config.is_file() and config.read_text(encoding="utf-8", errors="replace").startswith(HEADER)


def last_of(folder: Path | None) -> Path | None:
    """Return the `last.ckpt` of a run; None if the run was killed before it wrote one, so that it starts again."""
    last = folder / LAST if folder else None
    return last if last and last.is_file() else None


def check_unsaved(folder: Path) -> None:
    """Raise ValueError if a run that writes no checkpoints goes on in a folder that has some."""
    if found := sorted(folder.glob("*.ckpt")):
        raise ValueError(
            f"without checkpoints of its own, the run would seem to end with the weights in {found[0]}; leave out "
            "--trainer.enable_checkpointing=false, or resume in another folder: --run=NEW "
            f"--ckpt_path={in_command(folder / LAST)}"
        )


def saved_config(folder: Path | None, checkpoint: Checkpoint | None) -> str | None:
    """Return the YAML config of the run that is resumed: the checkpoint's own, or otherwise that in the folder."""
    if checkpoint is not None and checkpoint.config:
        return checkpoint.config
    return (folder / CONFIG).read_text(encoding="utf-8", errors="replace") if folder and is_run(folder) else None


def has_ended(checkpoint: Checkpoint | None, folder: Path | None, changed: str) -> bool:
    """Return whether a run resumed in `folder` (None: a new one) has finished training, and only the test may be left.

    Raises ValueError for a new folder, in which nothing would be trained.
    """
    if checkpoint is None or not checkpoint.ended or changed:
        return False
    if folder is None:
        raise ValueError(
            f"the run of {checkpoint.path} has finished training; train it further "
            f"({how_to_train_further(checkpoint.settings)}), or start a new one from its weights (--weights=...)"
        )
    return True


def how_to_train_further(config: Mapping[str, Any]) -> str:
    """Return the options that train a finished run further: each limit of its length, which counts all of the run."""
    given = config.get("trainer")
    options = given if isinstance(given, Mapping) else {}
    limits = [name for name in LIMITS if options.get(name) not in (None, -1)] or LIMITS[:1]
    return f"{' '.join(f'--trainer.{name}=...' for name in limits)} --allow_changes=true"


def how_to_resume(folder: Path) -> str:
    """Return a message that says how to resume the run that was stopped in this folder."""
    if not (folder / LAST).is_file():
        return "nothing of it was saved"
    folder, here = folder.resolve(), Path.cwd()
    shorter = folder.relative_to(here) if folder.is_relative_to(here) else folder
    return f"`cvcc-zoo fit --config={in_command(shorter / CONFIG)} --ckpt_path=last` resumes it"
