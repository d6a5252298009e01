"""`metrics.csv` of a run, in which a resumed run goes on."""

import csv
import hashlib
import io
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers.csv_logs import CSVLogger, ExperimentWriter

from cvcc_zoo.files.own import write_whole

NAME = ExperimentWriter.NAME_METRICS_FILE


class _Writer(ExperimentWriter):
    def _check_log_dir_exists(self) -> None:
        """Lightning removes the file here; we go on with its columns."""
        self.metrics_keys = read_rows(Path(self.metrics_file_path))[0]

    def log_hparams(self, params: dict[str, Any]) -> None:
        """Write none: config.yaml holds everything."""

    def save(self) -> None:
        """Add the rows that are new; where that fails, the file is as it was, and they are still to be added.

        With new columns the file is written anew, so that a kill leaves the old or the new one.
        """
        path = Path(self.metrics_file_path)
        known = self.metrics_keys if path.is_file() else []
        columns = sorted({*known, *(column for row in self.metrics for column in row)})
        if not self.metrics:
            return
        if columns != known:
            write_rows(path, columns, [*read_rows(path)[1], *self.metrics])
        else:
            append_rows(path, columns, self.metrics)
        self.metrics_keys, self.metrics = columns, []


def read_rows(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """Columns and whole rows of a file of metrics, none if it is not there; a row that a kill cut off is left out."""
    if not path.is_file():
        return [], []
    text = path.read_text()
    reader = csv.DictReader(io.StringIO(text[: text.rfind("\n") + 1], newline=""))
    rows = [row for row in reader if None not in row.values()]
    return list(reader.fieldnames or []), rows


def rows_before(path: Path, step: int) -> list[dict[str, str]]:
    """The rows of a file of metrics that belong to the optimizer steps before this one.

    Raises ValueError for a row without a step.
    """
    try:
        return [row for row in read_rows(path)[1] if int(row["step"]) < step]
    except (KeyError, ValueError):
        raise ValueError(
            f"{path} is no file of metrics that a run wrote: in a row or in its first line `step` is missing; put it "
            "back as it was, or remove it and go on without what was logged: --allow_changes=true"
        ) from None


def fingerprint(path: Path, step: int) -> dict[str, Any]:
    """What the rows of a file of metrics before this step are known by: how many they are, and their sha256."""
    rows = [sorted((name, value) for name, value in row.items() if value) for row in rows_before(path, step)]
    return {"step": step, "rows": len(rows), "sha256": hashlib.sha256(json.dumps(rows).encode()).hexdigest()}


def check_metrics(path: Path, expected: Any, *, allowed: bool) -> None:
    """Raise ValueError unless the file has the rows that a checkpoint knows by this fingerprint.

    None for one that knows none. It may have others if that is `allowed`.
    """
    if not isinstance(expected, dict) or not isinstance(expected.get("step"), int):
        return
    found = fingerprint(path, expected["step"])
    if found != expected and not allowed:
        what = f"has {found['rows']:,} rows" if path.is_file() else "is missing"
        raise ValueError(
            f"{path} {what} of the {expected['rows']:,} that were logged before the checkpoint, or others; put it back "
            "as it was, or go on with what is there: --allow_changes=true"
        )


def write_rows(path: Path, columns: list[str], rows: Sequence[Mapping[str, Any]]) -> None:
    """Write a file of metrics; it is never half there."""
    write_whole(path, _csv(columns, [dict(zip(columns, columns, strict=True)), *rows]))


def append_rows(path: Path, columns: list[str], rows: Sequence[Mapping[str, Any]]) -> None:
    """Add rows to a file of metrics; where the disk is full, what was there stays as it was."""
    size = path.stat().st_size
    try:
        with path.open("ab") as file:
            file.write(_csv(columns, rows))
            file.flush()
            os.fsync(file.fileno())  # a checkpoint, which says what is in it, comes later to the disk
    except OSError:
        os.truncate(path, size)
        raise


def _csv(columns: list[str], rows: Sequence[Mapping[str, Any]]) -> bytes:
    text = io.StringIO(newline="")
    csv.DictWriter(text, columns).writerows(rows)
    return text.getvalue().encode()


class MetricsFile(CSVLogger):
    """Writes `metrics.csv` into the folder of a run."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder.parent, name="", version=folder.name, flush_logs_every_n_steps=100)
        self.file = folder / NAME

    @property
    @rank_zero_experiment
    def experiment(self) -> ExperimentWriter:
        """What writes; made when it is first needed."""
        if self._experiment is None:
            self._experiment = _Writer(self.log_dir)
        return self._experiment  # type: ignore[return-value]

    def save(self) -> None:
        """Write what was logged. Raises OSError, with the file's name, if the disk is full."""
        try:
            super().save()
        except OSError as error:
            raise OSError(f"{self.file} cannot be written ({error.strerror or error})") from error

    def go_back(self, step: int) -> None:
        """Forget the rows of this optimizer step and of later ones, which a resumed training makes again."""
        self.save()
        if columns := read_rows(self.file)[0]:
            write_rows(self.file, columns, rows_before(self.file, step))
        else:
            self.file.unlink(missing_ok=True)
