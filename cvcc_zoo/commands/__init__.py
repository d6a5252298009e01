"""The commands; what one needs is imported only when it is called."""

import importlib
import sys
from collections.abc import Sequence

PICTURES = ("augmentations", "whitening")
LIGHTNING = ("fit", "validate", "test")
OF_RUNS = ("--run", "--ckpt_path", "--config")  # of `predict`: test images of a data set, not files


def call(name: str, args: Sequence[str]) -> int:
    """Run a command of `manual.COMMANDS`, and return its exit code."""
    if name in LIGHTNING or (name == "predict" and any(word.partition("=")[0] in OF_RUNS for word in args)):
        return lightning(name, args)
    if name in PICTURES:
        return int(importlib.import_module("cvcc_zoo.commands.look").main(name, args))
    return int(importlib.import_module(f"cvcc_zoo.commands.{name.replace('-', '_')}").main(args))


def lightning(name: str, args: Sequence[str]) -> int:
    """Run a command of LightningCLI; a training that was stopped goes on later."""
    from cvcc_zoo.cli import main
    from cvcc_zoo.runs import StoppedError

    try:
        return main([name, *args])
    except StoppedError as stop:
        print(f"cvcc-zoo: {stop}", file=sys.stderr)
        return stop.code
