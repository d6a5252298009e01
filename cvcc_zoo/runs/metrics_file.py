"""`metrics.csv` of a run, in which a resumed run goes on."""

import csv
import io
from pathlib import Path

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers.csv_logs import CSVLogger, ExperimentWriter

from cvcc_zoo.files import write_whole

NAME = ExperimentWriter.NAME_METRICS_FILE


class _Writer(ExperimentWriter):
    def _check_log_dir_exists(self) -> None:
        """Lightning removes the file here; we go on with its columns."""
        self.metrics_keys = read_rows(Path(self.metrics_file_path))[0]

    def _rewrite_with_new_header(self, fieldnames: list[str]) -> None:
        """New columns came: write the file anew, so that a kill leaves the old or the new one."""
        path = Path(self.metrics_file_path)
        write_rows(path, fieldnames, read_rows(path)[1])


def read_rows(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """Columns and whole rows of a file of metrics, none if it is not there; a row that a kill cut off is left out."""
    if not path.is_file():
        return [], []
    text = path.read_text()
    reader = csv.DictReader(io.StringIO(text[: text.rfind("\n") + 1], newline=""))
    rows = [row for row in reader if None not in row.values()]
    return list(reader.fieldnames or []), rows


def write_rows(path: Path, columns: list[str], rows: list[dict[str, str]]) -> None:
    """Write a file of metrics; it is never half there."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns)
    writer.writeheader()
    writer.writerows(rows)
    write_whole(path, text.getvalue().encode())


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
        columns, rows = read_rows(self.file)
        if columns:
            write_rows(self.file, columns, [row for row in rows if int(row["step"]) < step])
        else:
            self.file.unlink(missing_ok=True)
