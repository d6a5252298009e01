"""`--import=MODULE` before a command: modules of the user, so that runs and checkpoints may name what is in them."""

import importlib
import re
from collections.abc import Sequence

_modules: list[str] = []
"""Those that the command was started with."""
ADVICE = "write --import=MODULE before the command, once for each module: cvcc-zoo --import=my_nets fit ..."


def import_modules(args: Sequence[str]) -> list[str]:
    """Import the modules that are named before a command, and return the command with its arguments.

    Raises ValueError for a module that cannot be imported, and for an `--import` that is written otherwise.
    """
    _modules.clear()
    rest = list(args)
    while rest and (rest[0] == "--import" or rest[0].startswith("--import=")):
        word = rest.pop(0)
        module = rest.pop(0) if word == "--import" and rest else word.removeprefix("--import=")
        if not re.fullmatch(r"\w[\w.]*", module):
            raise ValueError(ADVICE)
        try:
            importlib.import_module(module)
        except ImportError as error:
            advice = "start the command in its folder"
            raise ValueError(f"--import={module} cannot be imported: {error}; {advice}") from error
        _modules.append(module)
    if any(word.startswith("--import") for word in rest):
        raise ValueError(ADVICE)
    return rest


def program() -> list[str]:
    """Return the words before a command in a message: `cvcc-zoo` with the modules that this one was started with."""
    return ["cvcc-zoo", *(f"--import={module}" for module in _modules)]
