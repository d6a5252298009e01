"""Parts of jsonargparse (4.53) that are private."""

from typing import Any

import jsonargparse._paths


def read_files_as_utf8() -> None:
    """Let files of options be UTF-8 on every system: jsonargparse opens them in the encoding of the locale."""
    jsonargparse._paths.open = _open  # type: ignore[attr-defined]


def _open(file: Any, mode: str = "r") -> Any:
    return open(file, mode, encoding=None if "b" in mode else "utf-8")  # noqa: PTH123
