"""Real processes for the tests: forked from one that has imported everything, so that they start in a second."""

import io
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import torch.multiprocessing

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["cvcc_zoo.cli.lightning", "cvcc_zoo.plots", "torchvision.transforms.v2.functional"])


def settle(folder: str, environment: Mapping[str, str]) -> None:
    """Take over a folder and an environment; a forked process has those of the first test that started one."""
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)


def execute(code: str, args: Sequence[str], folder: str, environment: Mapping[str, str], answer: Connection) -> None:
    """Run a program as `python -c` does, and send what it prints."""
    settle(folder, environment)
    sys.argv = ["-c", *args]
    sys.path.insert(0, "")
    with redirect_stdout(io.StringIO()) as printed:
        exec(code, {"__name__": "__main__"})
    answer.send(printed.getvalue())


def ran(code: str, *args: str, seconds: float = 120) -> str:
    """What a program prints that runs here in a process of its own, with these words behind `-c`.

    Raises EOFError if it fails, with its traceback on stderr, and AssertionError if it takes too long.
    """
    received, answer = CONTEXT.Pipe(duplex=False)
    process = CONTEXT.Process(target=execute, args=(code, args, str(Path.cwd()), dict(os.environ), answer))
    process.start()
    answer.close()
    try:
        assert received.poll(seconds), f"it has not ended after {seconds} s"
        printed: str = received.recv()
        return printed
    finally:
        received.close()
        process.kill()
        process.join()


def at_once(count: int, work: Callable[..., None], *args: object) -> None:
    """Call `work(rank, *args)` in as many processes at once; raises what one of them raises."""
    torch.multiprocessing.start_processes(  # type: ignore[attr-defined,no-untyped-call]
        work, args, nprocs=count, start_method="forkserver"
    )


CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link")


def killed_before_change(folder: str, number: int) -> None:
    """SIGKILL this process before its change of that number, from 1, to the files of a folder: a real kill."""
    left = number

    def watch(event: str, about: tuple[object, ...]) -> None:
        nonlocal left
        writes = event == "open" and isinstance(about[2], int) and about[2] & (os.O_WRONLY | os.O_RDWR)
        names = (
            (str(about[0]), str(about[1])) if event in ("os.rename", "os.link") else (str(about[0]),) if about else ()
        )
        if (writes or event in CHANGES) and any(Path(name).resolve().is_relative_to(folder) for name in names):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)


def run_command(
    args: Sequence[str], folder: str, environment: Mapping[str, str], output: str, killed_before: int
) -> None:
    """Run a command of ours in a folder, with what it prints in a file; the process exits with its code."""
    from lightning.fabric.utilities.rank_zero import rank_zero_only

    from cvcc_zoo.__main__ import main as command
    from tests.figures import blank_figures

    settle(folder, environment)
    vars(rank_zero_only)["rank"] = int(environment.get("RANK", 0))  # Lightning looks at it when it is imported
    with Path(output).open("a", buffering=1) as file, blank_figures():
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        sys.stdout = sys.stderr = file
        if killed_before:
            killed_before_change(str(Path(folder, "run").resolve()), killed_before)
        sys.exit(command(list(args)))


class Started:
    """A command of ours in a process of its own, which may be killed before a change of the files in its `run`.

    It has the `environment` beside that of this process as it is now.
    """

    def __init__(
        self,
        args: Sequence[str],
        folder: Path,
        environment: Mapping[str, str] | None = None,
        killed_before: int = 0,
    ) -> None:
        mine = {**os.environ, **(environment or {})}
        self.output = folder / "output.txt"
        self.process: ForkServerProcess = CONTEXT.Process(
            target=run_command, args=(args, str(folder), mine, str(self.output), killed_before)
        )
        self.process.start()

    def wait_for(self, path: Path, seconds: float = 120) -> None:
        """Wait until the process has made a file; raises AssertionError with what it printed if it ends before."""
        until = time.monotonic() + seconds
        while not path.exists():
            assert self.process.is_alive() and time.monotonic() < until, self.output.read_text()
            time.sleep(0.005)

    def ends(self, code: int = 0, seconds: float = 600) -> float:
        """Wait until it ends with a code; returns the seconds it took. Else raises AssertionError with its output."""
        began = time.monotonic()
        self.process.join(seconds)
        assert self.process.exitcode == code, self.output.read_text()
        return time.monotonic() - began

    def ended_well(self, seconds: float = 600) -> bool:
        """Wait until it ends; whether it did well, or by a SIGKILL. Else raises AssertionError with its output."""
        self.process.join(seconds)
        assert self.process.exitcode in (0, -signal.SIGKILL), self.output.read_text()
        return self.process.exitcode == 0

    def kill_after(self, seconds: float) -> bool:
        """SIGKILL after this time; returns whether it was still running, else checks that it ended well."""
        self.process.join(seconds)
        if self.process.exitcode is not None:
            assert self.process.exitcode == 0, self.output.read_text()
            return False
        self.process.kill()
        self.process.join()
        return True
