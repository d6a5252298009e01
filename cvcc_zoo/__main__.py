"""`cvcc-zoo` and `python -m cvcc_zoo`."""

import gc
import os
import sys
import traceback
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from cvcc_zoo.cli.allocation import keep_freed_memory
from cvcc_zoo.cli.manual import COMMANDS, overview
from cvcc_zoo.commands import call
from cvcc_zoo.files.own import FORBIDDEN, FULL
from cvcc_zoo.printing import say
from cvcc_zoo.registry import pick


def main(args: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code: 0, 2 after a message that says what to do, 128 + that of a signal.

    Without `args` it is the whole program: it takes the command line, and its end is the end of the process.
    """
    keep_freed_memory()
    if args is not None:
        return finished(list(args))
    if "" not in sys.path:
        sys.path.append("")  # `--optimizer=my_module.Mine` of this folder, as with `python -m`; it hides nothing
    try:
        return finished(sys.argv[1:])
    finally:
        gc.freeze()  # at its end Python searches all objects for garbage, some of a second for what ends anyway


def finished(args: list[str]) -> int:
    """The exit code of a command, after its message if it failed."""
    try:
        code = run(args)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # `cvcc-zoo list | head`: nobody reads on
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + 13  # SIGPIPE
    except KeyboardInterrupt:
        say("cvcc-zoo: SIGINT", error=True)
        return 128 + 2
    except (ValueError, OSError, ArithmeticError) as error:
        message = meant_for_users(error)
        if message is None:
            raise
        say(f"cvcc-zoo: error: {message}", error=True)
        return 2


def run(args: list[str]) -> int:
    """Choose the command; what it needs is imported only then."""
    if not args or args[0] in ("-h", "--help"):
        print(overview())
        return 0
    if args[0] == "help":
        return run([*args[1:2], "--help"])
    if args[0] == "--version":
        print(f"cvcc_zoo {version('cvcc_zoo')}")
        return 0
    return call(pick("command", args[0], COMMANDS, "`cvcc-zoo --help` shows what they do"), args[1:])


def meant_for_users(error: BaseException | None) -> str | None:
    """The message of the error, or of its cause, that a line of this package raised or that names a file of the system.

    None if there is none: then the traceback is what helps.
    """
    while error is not None:
        frames = traceback.extract_tb(error.__traceback__)
        own = frames and Path(frames[-1].filename).is_relative_to(Path(__file__).parent)
        if own or (isinstance(error, OSError) and error.filename is not None):  # [Errno 13] Permission denied: 'runs'
            number = error.errno if isinstance(error, OSError) else None
            if number in FULL:
                return f"{error}; make room on its disk, and start the command again"
            return f"{error}; change its rights, or choose another place" if number in FORBIDDEN else str(error)
        error = error.__cause__
    return None


if __name__ == "__main__":
    sys.exit(main())
