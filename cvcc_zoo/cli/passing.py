"""Arguments of commands that train as `fit` does: their own options, and those that they pass on to it."""

import inspect
from collections.abc import Callable, Collection, Sequence
from typing import Any

from cvcc_zoo.registry import closest, unknown


def split(
    args: Sequence[str], command: str, function: Callable[..., Any], refused: Collection[str], why: str
) -> tuple[list[str], list[str]]:
    """Return the arguments that are parameters of a command's function, and all others, which `fit` gets.

    Raises ValueError for a misspelt parameter of the function, and for options of `fit` that are `refused`: then the
    message begins with `why` and names the option.
    """
    mine, passed, rest = [], [], list(args)
    names = inspect.signature(function).parameters
    while rest:
        word = rest.pop(0)
        flag, equals, _ = word.partition("=")
        name = flag[2:] if flag.startswith("--") else ""
        if word in ("-h", "--help") or (name in names and equals):
            mine.append(word)
        elif name in names and rest:
            mine.append(f"{word}={rest.pop(0)}")
        elif name in refused:
            raise ValueError(f"{why}; leave {flag} out")
        elif closest(name, names, cutoff=0.8):  # no option of fit resembles one of these as much
            raise unknown("option", name, names, f"`cvcc-zoo {command} --help` shows all")
        else:
            passed.append(word)
    return mine, passed
