"""Writing tables: rows of plain data as JSON or CSV."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cvcc_zoo.files.own import csv_text, json_text, write_whole

Row = Mapping[str, Any]
"""A row of a table by column; unknown values are None."""


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """Write rows that have the same columns as JSON, or as CSV if the file name ends in .csv."""
    write_whole(path, _csv(rows) if path.suffix == ".csv" else json_text(list(rows)).encode())


def _csv(rows: Sequence[Row]) -> bytes:
    """Return rows as CSV, with empty cells for None, and JSON for dicts."""
    cells = [[json.dumps(value) if isinstance(value, dict) else value for value in row.values()] for row in rows]
    return csv_text([list(rows[0]), *cells]).encode()
