"""Tables as files: rows of plain data as JSON or CSV."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cvcc_zoo.files.own import csv_text, json_text, write_whole

Row = Mapping[str, Any]
"""A line of a table by its columns; None where nothing is known."""


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """Write rows with the same columns, as JSON, or as CSV where the file ends in .csv."""
    write_whole(path, _csv(rows) if path.suffix == ".csv" else json_text(list(rows)).encode())


def _csv(rows: Sequence[Row]) -> bytes:
    """What is unknown is empty, and what is no number or text is JSON."""
    cells = [[json.dumps(value) if isinstance(value, dict) else value for value in row.values()] for row in rows]
    return csv_text([list(rows[0]), *cells]).encode()
