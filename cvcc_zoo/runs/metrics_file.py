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
        path = Path(self.metrics_file_path)
        if path.is_file():
            with path.open(newline="") as file:
                self.metrics_keys = list(csv.DictReader(file).fieldnames or [])


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

    def go_back(self, step: int) -> None:
        """Forget the rows of this optimizer step and of later ones, which a resumed training makes again."""
        if not self.file.is_file():
            return
        with self.file.open(newline="") as file:
            reader = csv.DictReader(file)
            columns, rows = list(reader.fieldnames or []), [row for row in reader if int(row["step"]) < step]
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, columns)
        writer.writeheader()
        writer.writerows(rows)
        write_whole(self.file, text.getvalue().encode())
