"""The folder of a search: its description (such as `search.yaml`), its trials (`trials.jsonl`), and a lock."""

import dataclasses
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from cvcc_zoo.files.own import LOCK, json_text, locked, write_whole
from cvcc_zoo.runs.changes import changed_options, in_words
from cvcc_zoo.search.space import Values

TRIALS = "trials.jsonl"
DEFAULT_TRIALS = 20


@dataclass(frozen=True)
class Trial:
    """One finished or failed training run of a search, with its measure, or with a message that says why it failed."""

    number: int
    values: Values
    measure: float | None
    epochs: int | None = None
    seconds: float | None = None
    """Time of training, without validation."""
    message: str = ""

    @property
    def state(self) -> str:
        """The outcome: "finished", or "failed" without a measure."""
        return "failed" if self.measure is None else "finished"


def read_trials(folder: Path) -> list[Trial]:
    """Return the trials that have ended, in order; none in a new folder. Raises ValueError for an invalid file."""
    path = folder / TRIALS
    trials = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines() if path.is_file() else []):
        try:
            content: dict[str, Any] = json.loads(line)
            del content["state"]
            trials.append(Trial(**content))
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"line {number + 1} of {path} is not a trial: {error}; restore the file, or choose another --folder"
            ) from error
        if trials[-1].number != number:
            raise ValueError(
                f"{path} has no trial {number}: a line was removed; restore it, or choose another --folder"
            )
    return trials


def write_trials(folder: Path, trials: Sequence[Trial]) -> None:
    """Write all trials, one per line; a reader never sees half of the file."""
    lines = [json_text({"state": trial.state, **dataclasses.asdict(trial)}, indent=None) for trial in trials]
    write_whole(folder / TRIALS, "".join(lines).encode())


@contextmanager
def own_folder(folder: Path, kind: str) -> Iterator[None]:
    """Lock the folder for this process; it is made if needed, and removed at the end if it is empty.

    `kind` is search or cross-validation: the description is `<kind>.yaml`. Raises FileExistsError if another process
    works in it, or if it contains something else.
    """
    made = [path for path in folder.parents if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise FileExistsError(
            f"{error.filename} is a file, or a link to a folder that is not there; choose another --folder"
        ) from None
    try:
        with locked(folder, "searching" if kind == "search" else "cross-validating", "--folder"):
            others = [path.name for path in folder.iterdir() if path.name != LOCK]
            if others and f"{kind}.yaml" not in others:
                raise FileExistsError(
                    f"{folder} is not the folder of a {kind}: it has no {kind}.yaml; choose another --folder"
                )
            yield
    finally:
        with suppress(OSError):  # they are not empty
            for path in made:
                path.rmdir()


def as_record(kind: str, options: dict[str, Any], config: dict[str, Any], images: dict[str, str]) -> str:
    """Return the description of a search as YAML: its options, the config of a run with the first values, its images.

    `images` are the identities of its training images and of those that it holds out.
    """
    return str(yaml.safe_dump({kind: options, **config, "images": images}, sort_keys=False, width=120))


def check_record(folder: Path, kind: str, record: str) -> None:
    """Write the description of the search. Raises ValueError if the folder has another one."""
    path = folder / f"{kind}.yaml"
    if not path.is_file():
        write_whole(path, record.encode())
        return
    changed = changed_options(path.read_text(encoding="utf-8"), record)
    if options := {name: values for name, values in changed.items() if not name.startswith("images.")}:
        raise ValueError(
            f"another {kind} is in {folder}: {in_words(options)}; give the same options, or choose another --folder"
        )
    if changed:
        raise ValueError(
            f"the training images have changed since the {kind} in {folder} began, and results on other images cannot "
            "be compared; restore them, or choose another --folder"
        )
