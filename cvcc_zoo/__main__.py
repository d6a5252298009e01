"""The program: `cvcc-zoo` and `python -m cvcc_zoo`."""

import errno
import gc
import io
import os
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path

from cvcc_zoo.cli.allocation import keep_freed_memory
from cvcc_zoo.cli.imports import import_modules
from cvcc_zoo.cli.manual import COMMANDS, overview
from cvcc_zoo.commands import call
from cvcc_zoo.files.own import FORBIDDEN, FULL
from cvcc_zoo.printing import say
from cvcc_zoo.registry import pick


def main(args: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code: 0, 2 after an error message, or 128 + the number of a signal.

    Without `args` this is the whole program: it reads the command line, and the process ends when it returns.
    """
    if args is not None:
        return finished(list(args))
    keep_freed_memory()
    open_streams()
    with suppress(FileNotFoundError):  # the folder was removed
        # Finds `--optimizer=my_module.Mine` in this folder, also while a config in another one is read, when Lightning
        # changes to that folder; last, so that it hides nothing.
        sys.path.append(str(Path.cwd()))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal may not know every character of a name
    try:
        return finished(sys.argv[1:])
    finally:
        if "triton" not in sys.modules:  # its version 3.9 prints 30 lines if its objects are not freed
            gc.freeze()  # Python would search all objects for garbage as it exits, which takes a part of a second


def open_streams() -> None:
    """Open the null device for each closed stream, as of `2>&-`: libraries print to it, and its number stays taken."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):  # each gets the lowest free number, its own
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode, encoding="utf-8"))


def finished(args: list[str]) -> int:
    """Run a command, print its error message if it fails, and return its exit code."""
    try:
        code = run(args)
        if sys.stdout is not None:  # as in a program without a console
            sys.stdout.flush()
        return code
    except BrokenPipeError:  # `cvcc-zoo list | head`: the reader has closed the pipe
        if sys.stdout is not None:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + 13  # SIGPIPE
    except KeyboardInterrupt:
        say("cvcc-zoo: SIGINT", error=True)
        return 128 + 2
    except (ValueError, OSError, ArithmeticError) as error:
        message = meant_for_users(error) or missing_folder()
        if message is None:
            raise
        say(f"cvcc-zoo: error: {message}", error=True)
        return 2


def run(args: list[str]) -> int:
    """Run the command that the first argument names; its module is imported only then."""
    args = import_modules(args)
    if not args or args[0] in ("-h", "--help"):
        print(overview())
        return 0
    if args[0] == "help":
        return run([*args[1:2], "--help"])
    if args[0] == "--version":
        print(f"cvcc_zoo {import_module('cvcc_zoo').__version__}")
        return 0
    command = pick("command", args[0], COMMANDS, "`cvcc-zoo --help` shows what they do")
    refuse_empty(args[1:])
    return call(command, args[1:])


def refuse_empty(args: Sequence[str]) -> None:
    """Raise ValueError for an argument or a value without a character, as of an empty variable of the shell.

    Options of classes, such as the loggers of Lightning, may be empty: `--trainer.logger.name=`.
    """
    for before, word in zip(["", *args], args, strict=False):
        option, equals, value = word.partition("=")
        if word == "=":
            raise ValueError("an equals sign stands alone; write --option=value without spaces")
        if not word and before.startswith("-") and "=" not in before:
            option = before
        elif value or (word and not equals):
            continue
        if option.count(".") < 2:
            what = f"{option} has no value; give it one" if option else "an argument is empty; fill it"
            raise ValueError(f"{what}, or leave it out (perhaps a variable of the shell is not set)")


def missing_folder() -> str | None:
    """Return a message if the current folder was removed, which many libraries cannot handle; otherwise None."""
    try:
        Path.cwd()
    except FileNotFoundError:
        return "the current folder no longer exists; change to another folder with cd, and start the command again"
    return None


def meant_for_users(error: BaseException | None) -> str | None:
    """Return the message of an error that this package raised or that names a file, or of such a cause of the error.

    Return None if there is none: then the traceback is more helpful.
    """
    while error is not None:
        frames = traceback.extract_tb(error.__traceback__)
        own = frames and Path(frames[-1].filename).is_relative_to(Path(__file__).parent)
        if own or (isinstance(error, OSError) and error.filename is not None):  # [Errno 13] Permission denied: 'runs'
            number = error.errno if isinstance(error, OSError) else None
            if number in FULL:
                return f"{error}; make room on its disk, and start the command again"
            return f"{error}; change its rights, or choose another place" if number in FORBIDDEN else str(error)
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):  # of `cvcc-zoo list > file`
            return f"the output cannot be written: {error}; make room on its disk, and start the command again"
        error = error.__cause__
    return None


if __name__ == "__main__":
    sys.exit(main())
