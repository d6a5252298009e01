"""The folder of a search: what it searches (`search.yaml`), what was tried (`trials.jsonl`), one process at a time."""

import dataclasses
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout

from cvcc_zoo.files.own import give_back, json_text, remove_unfinished, write_whole
from cvcc_zoo.runs import changed_options
from cvcc_zoo.search.space import Values

WHAT = "search.yaml"
TRIALS = "trials.jsonl"
LOCK = ".lock"


@dataclass(frozen=True)
class Trial:
    """One training of a search that has ended: with a measure, or with a message that says why there is none."""

    number: int
    values: Values
    measure: float | None
    epochs: int | None = None
    seconds: float | None = None
    """Of training, without validation."""
    message: str = ""

    @property
    def state(self) -> str:
        """Whether it was trained to its end."""
        return "failed" if self.measure is None else "finished"


def read_trials(folder: Path) -> list[Trial]:
    """The trials that have ended, in order; none in a new folder. Raises ValueError for a file of something else."""
    path = folder / TRIALS
    trials = []
    for number, line in enumerate(path.read_text().splitlines() if path.is_file() else []):
        try:
            content: dict[str, Any] = json.loads(line)
            del content["state"]
            trials.append(Trial(**content))
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"line {number + 1} of {path} is no trial of a search: {error}") from error
        if trials[-1].number != number:
            raise ValueError(f"{path} has no trial {number}; a line was taken out: choose another --folder")
    return trials


def write_trials(folder: Path, trials: Sequence[Trial]) -> None:
    """Write all trials, a line each; the file is never half there."""
    lines = [json_text({"state": trial.state, **dataclasses.asdict(trial)}, indent=None) for trial in trials]
    write_whole(folder / TRIALS, "".join(lines).encode())


@contextmanager
def own_folder(folder: Path) -> Iterator[None]:
    """A folder that only this process searches in; it is made, and removed if nothing came into it.

    Raises FileExistsError if another process searches in it, or if it holds something else.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise FileExistsError(
            f"another process searches in {folder}; wait until it ends, or choose another --folder"
        ) from None
    try:
        remove_unfinished(folder)
        others = [path.name for path in folder.iterdir() if path.name != LOCK]
        if others and WHAT not in others:
            raise FileExistsError(f"{folder} is not the folder of a search: it has no {WHAT}; choose another --folder")
        yield
    finally:
        give_back(lock)
        with suppress(OSError):  # where something is in it, it stays
            folder.rmdir()


def as_record(searched: dict[str, Any], config: dict[str, Any]) -> str:
    """What is searched and how, and the config of a training with the first values, as one YAML text."""
    return str(yaml.safe_dump({"search": searched, **config}, sort_keys=False, width=120))


def check_record(folder: Path, record: str) -> None:
    """Write down what is searched, or raise ValueError if something else was searched in this folder."""
    path = folder / WHAT
    if not path.is_file():
        write_whole(path, record.encode())
        return
    if changed := changed_options(path.read_text(), record):
        words = ", ".join(f"{name} was {old!r} and is {new!r}" for name, (old, new) in changed.items())
        raise ValueError(f"another search is in {folder}: {words}; give the same options, or choose another --folder")
