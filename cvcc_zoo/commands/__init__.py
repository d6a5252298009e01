"""The commands; what one needs is imported only when it is called."""

import gc
import importlib
import sys
from collections.abc import Sequence
from types import ModuleType

PICTURES = ("augmentations", "whitening")
LIGHTNING = ("fit", "validate", "test")
OF_RUNS = ("--run", "--ckpt_path", "--config")  # of `predict`: test images of a data set, not files


def call(name: str, args: Sequence[str]) -> int:
    """Run a command of `manual.COMMANDS`, and return its exit code."""
    if name in LIGHTNING or (name == "predict" and any(word.partition("=")[0] in OF_RUNS for word in args)):
        return lightning(name, args)
    if name in PICTURES:
        return int(imported("cvcc_zoo.commands.look").main(name, args))
    return int(imported(f"cvcc_zoo.commands.{name.replace('-', '_')}").main(args))


def imported(name: str) -> ModuleType:
    """Import a module without a search for garbage meanwhile, which takes a fifth of the time: all of it stays."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        return importlib.import_module(name)
    finally:
        if enabled:
            gc.enable()


def lightning(name: str, args: Sequence[str]) -> int:
    """Run a command of LightningCLI; a training that was stopped goes on later."""
    cli, runs = imported("cvcc_zoo.cli"), imported("cvcc_zoo.runs")
    try:
        return int(cli.main([name, *args]))
    except runs.StoppedError as stop:
        print(f"cvcc-zoo: {stop}", file=sys.stderr)
        return int(stop.code)
