"""The commands of `cvcc-zoo`; the module of a command is imported only when it is called."""

import gc
import importlib
import importlib.abc
import logging
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from cvcc_zoo.printing import say

LIGHTNING = ("fit", "validate", "test")
PICTURES = ("augmentations", "whitening")
MODULES = {**dict.fromkeys(LIGHTNING, "cli.lightning"), **dict.fromkeys(PICTURES, "commands.look")}
"""Modules of commands that are not in a file of this folder with their name."""
OF_RUNS = ("--run", "--ckpt_path", "--config")  # with these, `predict` predicts test images instead of files


def call(name: str, args: Sequence[str]) -> int:
    """Run a command of `manual.COMMANDS`, and return its exit code."""
    if name in LIGHTNING or (name == "predict" and any(word.partition("=")[0] in OF_RUNS for word in args)):
        return lightning(name, args)
    if name in PICTURES:
        return int(module_of(name).main(name, args))
    return int(module_of(name).main(args))


def parser_of(name: str) -> Any:
    """Return the parser of a command, a `ZooParser`."""
    module = module_of(name)
    return module.parser(name) if name in (*LIGHTNING, *PICTURES) else module.parser()


def module_of(name: str) -> ModuleType:
    """Import the module of a command, which has a `main` and a `parser`; those of several commands take the name."""
    own = f"commands.{name.replace('-', '_')}"
    return imported(f"cvcc_zoo.{MODULES.get(name, own)}")


def imported(name: str) -> ModuleType:
    """Import a module, faster and with less memory than `importlib` alone.

    The garbage collector is off meanwhile, as it would take a fifth of the time and find nothing. Without an
    accelerator torch does not find triton, its compiler, which saves half a second and 77 MB; later imports find it.
    """
    enabled, finder = gc.isenabled(), NoTriton()
    gc.disable()
    sys.meta_path.insert(0, finder)
    try:
        return importlib.import_module(name)
    finally:
        sys.meta_path.remove(finder)
        if enabled:
            gc.enable()


class NoTriton(importlib.abc.MetaPathFinder):
    """A finder that hides triton on a machine without an accelerator."""

    def find_spec(self, fullname: str, path: object, target: object = None) -> None:
        """Return None: other finders are asked. Raises ModuleNotFoundError for triton without an accelerator."""
        if fullname == "triton" and "torch" in sys.modules:
            import torch

            if not torch.accelerator.is_available():
                logging.getLogger("torch.utils.flop_counter").addFilter(worth_saying)
                raise ModuleNotFoundError("triton is not imported on a machine without an accelerator", name=fullname)


def worth_saying(record: logging.LogRecord) -> bool:
    """Return False for the warning that triton's kernels are not counted: without triton there are none."""
    return "triton not found" not in record.getMessage()


def lightning(name: str, args: Sequence[str]) -> int:
    """Run a command of `cli.lightning`. If training is stopped by a signal, say how to resume it.

    Raises ValueError for files to predict: with OF_RUNS the images are those of a data set.
    """
    pairs = zip(["", *args], args, strict=False) if name == "predict" else ()
    for before, word in pairs:
        if not word.startswith("-") and (not before.startswith("-") or "=" in before):
            raise ValueError(
                f"{word}: with {', '.join(OF_RUNS)} the test images of a data set are predicted; write files after "
                "the name of a model or a run folder, without these options: cvcc-zoo predict runs/x my_pictures"
            )
    cli, runs = imported("cvcc_zoo.cli.lightning"), imported("cvcc_zoo.runs")
    try:
        return int(cli.main([name, *args]))
    except runs.StoppedError as stop:
        say(f"cvcc-zoo: {stop}", error=True)
        return int(stop.code)
