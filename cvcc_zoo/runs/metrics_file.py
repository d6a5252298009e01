"""`metrics.csv` of a run: written, continued by a resumed run, and read as curves."""

import csv
import hashlib
import io
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.loggers import CSVLogger, Logger
from torch import Tensor

from cvcc_zoo.files.own import write_whole

NAME = "metrics.csv"
Curve = tuple[list[float], list[float]]
"""Optimizer steps, and a value at each."""


def read_metrics(path: Path) -> dict[str, Curve]:
    """Read each column of a `metrics.csv` as (steps, values), without its empty cells; none if it is missing."""
    curves: dict[str, Curve] = {}
    for row in read_rows(path)[1]:
        for name, value in row.items():
            if name not in ("step", "epoch") and value:
                steps, values = curves.setdefault(name, ([], []))
                steps.append(float(row["step"]))
                values.append(float(value))
    return curves


def read_rows(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """Return the columns and rows of a metrics file, none if it is missing; a row that a kill cut off is left out."""
    if not path.is_file():
        return [], []
    text = path.read_text(encoding="utf-8")
    reader = csv.DictReader(io.StringIO(text[: text.rfind("\n") + 1], newline=""))
    rows = [row for row in reader if None not in row.values()]
    return list(reader.fieldnames or []), rows


def rows_before(path: Path, step: int, without: str = "") -> list[dict[str, str]]:
    """Return the rows of a metrics file from before this optimizer step. Raises ValueError for a row without a step.

    Later rows are returned, too, if they have no metric whose name begins with `without`.
    """
    try:
        return [
            row
            for row in read_rows(path)[1]
            if int(row["step"]) < step or not any(row[name] for name in row if str(name).startswith(without))
        ]
    except (KeyError, ValueError):
        raise ValueError(
            f"{path} is not the metrics file of a run: `step` is missing in a row or in the first line; restore it, "
            "or remove it and resume without the logged rows: --allow_changes=true"
        ) from None


def fingerprint(path: Path, step: int) -> dict[str, Any]:
    """Return the number of rows before this optimizer step in a metrics file, and their sha256."""
    rows = [sorted((name, value) for name, value in row.items() if value) for row in rows_before(path, step)]
    return {"step": step, "rows": len(rows), "sha256": hashlib.sha256(json.dumps(rows).encode()).hexdigest()}


def check_metrics(path: Path, expected: Any, *, allowed: bool) -> None:
    """Raise ValueError unless the file has the rows of the fingerprint in a checkpoint, or others are `allowed`.

    A checkpoint without a fingerprint (None) accepts any file.
    """
    if not isinstance(expected, dict) or not isinstance(expected.get("step"), int):
        return
    found = fingerprint(path, expected["step"])
    if found != expected and not allowed:
        what = f"has {found['rows']:,} rows" if path.is_file() else "is missing"
        raise ValueError(
            f"{path} {what}, not exactly the {expected['rows']:,} rows that were logged before the checkpoint; "
            "restore it, or resume with the file as it is: --allow_changes=true"
        )


def write_rows(path: Path, columns: list[str], rows: Sequence[Mapping[str, Any]]) -> None:
    """Write a metrics file; a reader never sees half of it."""
    write_whole(path, _csv(columns, [dict(zip(columns, columns, strict=True)), *rows]))


def append_rows(path: Path, columns: list[str], rows: Sequence[Mapping[str, Any]]) -> None:
    """Append rows to a metrics file; if the disk is full, the file is unchanged."""
    size = path.stat().st_size
    try:
        with path.open("ab") as file:
            file.write(_csv(columns, rows))
            file.flush()
            os.fsync(file.fileno())  # the rows must be on disk before a checkpoint with their fingerprint
    except OSError:
        os.truncate(path, size)
        raise


def _csv(columns: list[str], rows: Sequence[Mapping[str, Any]]) -> bytes:
    text = io.StringIO(newline="")
    csv.DictWriter(text, columns).writerows(rows)
    return text.getvalue().encode()


class MetricsFile(Logger):
    """Writes `metrics.csv` into the folder of a run, and continues the file of a run that is resumed.

    Lightning calls `save` after every row.
    """

    name = version = ""  # callbacks of Lightning save into save_dir/name/version

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder, self.file = folder, folder / NAME
        self.columns: list[str] = []  # of the file, once this object has written it
        self.rows: list[dict[str, Any]] = []  # that are not written yet

    @property
    def save_dir(self) -> str:
        """The folder of the run."""
        return str(self.folder)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float | Tensor], step: int | None = None) -> None:
        """Add a row, which the next `save` writes."""
        values = {name: value.item() if isinstance(value, Tensor) else value for name, value in metrics.items()}
        self.rows.append({**values, "step": len(self.rows) if step is None else step})

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing: config.yaml holds all hyperparameters."""

    @rank_zero_only
    def save(self) -> None:
        """Append the new rows; if that fails, the file is unchanged, and the next call tries again.

        New columns need a whole new file, which replaces the old one at once, so that a kill leaves one of the two.
        Raises OSError, with the file's name, if the disk is full.
        """
        if not self.rows:
            return
        try:
            if self.file.is_file() and all(row.keys() <= {*self.columns} for row in self.rows):
                append_rows(self.file, self.columns, self.rows)
            else:
                known, rows = read_rows(self.file)
                columns = sorted({*known, *(column for row in self.rows for column in row)})
                write_rows(self.file, columns, [*rows, *self.rows])
                self.columns = columns
        except OSError as error:
            raise OSError(f"{self.file} cannot be written ({error.strerror or error})") from error
        self.rows = []

    def truncate(self, step: int, without: str = "") -> None:
        """Remove the rows of this optimizer step and of later ones, which are written again.

        With `without`, only those with a metric whose name begins so are removed.
        """
        self.save()
        if columns := read_rows(self.file)[0]:
            write_rows(self.file, columns, rows_before(self.file, step, without))
        else:
            self.file.unlink(missing_ok=True)


def loggers(folder: Path, more: Sequence[Logger]) -> list[Logger]:
    """Return the loggers of a run: its metrics file, and `more`. Raises ValueError if one of them writes this file."""
    if any(isinstance(each, CSVLogger) and Path(each.log_dir).resolve() == folder.resolve() for each in more):
        raise ValueError(
            f"a CSVLogger would write into {folder / NAME}, which the run writes anyway; leave it out, or choose "
            "another --trainer.logger.save_dir"
        )
    return [MetricsFile(folder), *more]
