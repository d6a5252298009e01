"""Packages that only some features need; `pip install 'cvcc_zoo[EXTRA]'` installs them."""

import importlib
from typing import Any


def needed(module: str, what: str, extra: str) -> Any:
    """Import a module of an extra. Raises ValueError, which says what to install, if it is missing."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ValueError(f"{what} needs {module.partition('.')[0]}: pip install 'cvcc_zoo[{extra}]'") from error
