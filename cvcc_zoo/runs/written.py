"""Reading the config and the summary of a finished run; incomplete files are refused by name."""

import inspect
import json
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cvcc_zoo.classifier.quality import MEANS
from cvcc_zoo.data import ImageDataModule
from cvcc_zoo.data.identity import is_identity
from cvcc_zoo.files.own import in_command, shown
from cvcc_zoo.files.plain import read_yaml
from cvcc_zoo.registry import check_known
from cvcc_zoo.runs.run_folder import CONFIG, is_run

SUMMARY = "summary.json"
GROUPS = ("model", "data", "trainer")
NUMBERS = int | float
KINDS = {
    "model": str, "dataset": str, "known_as": str | None, "seed": int, "parameters": int, "macs": int, "images": dict,
    "data": dict, "epochs": int, "steps": int, "train_seconds": NUMBERS, "images_per_second": NUMBERS | None,
    "test_accuracy": NUMBERS | None, "test_loss": NUMBERS | None, "tested": str | None, "selected_by": str | None,
    "val_accuracy": NUMBERS | None, "validation": dict, "precision": str, "winograd": bool, "changed": str,
}  # fmt: skip
"""Required entries of a summary, and their types."""
OF_TEST = {"test_per_class": dict, **{f"test_{name}": NUMBERS | None for name in MEANS}}
"""Required entries of the summary of a run that was tested, and their types."""
SHARES = ("test_accuracy", "val_accuracy", "test_top5_accuracy")
"""Entries that are fractions in [0, 1], if the summary has them; NaN is not."""


def read_summary(folder: Path) -> dict[str, Any]:
    """Return the summary of a run. Raises FileNotFoundError if it has not finished, ValueError for a broken file."""
    path = folder / SUMMARY
    if not path.is_file():
        raise FileNotFoundError(f"{shown(folder)} is not the folder of a finished run: it has no {SUMMARY}")
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise _broken(path, str(error)) from error
    if not isinstance(summary, dict):
        raise _broken(path, f"it contains {reprlib.repr(summary)}")
    for name, kind in (KINDS | (OF_TEST if summary.get("test_accuracy") is not None else {})).items():
        if name not in summary:
            raise _broken(path, f"it has no {name}")
        if not isinstance(summary[name], kind):
            raise _broken(path, f"{name} is {reprlib.repr(summary[name])}")
    for name in SHARES:
        share = summary.get(name)
        if share is not None and not (isinstance(share, NUMBERS) and 0 <= share <= 1):
            raise _broken(path, f"{name} is {reprlib.repr(share)}, not between 0 and 1")
    sets = summary["data"]
    if "train" not in sets or not all(map(is_identity, sets.values())):
        raise _broken(path, f"data is {reprlib.repr(sets)}")
    if not all(isinstance(summary["images"].get(split), int) for split in ("train", "test")):
        raise _broken(path, f"images is {reprlib.repr(summary['images'])}")
    return summary


def not_ended(folder: Path) -> str:
    """Return a remark about the weights in the folder of a run that has not ended, or an empty text."""
    begun = not (folder / SUMMARY).is_file() and is_run(folder)
    return f"the run {shown(folder)} has not ended: these are its weights so far" if begun else ""


def left_out(summary: Mapping[str, Any]) -> int:
    """Return how many of the test images a run was not tested on, as with --trainer.limit_test_batches."""
    tested: int = summary["images"]["test"]
    images: int = summary["data"].get("test", {}).get("images", tested)
    return max(0, images - tested)


def _broken(path: Path, why: str) -> ValueError:
    return ValueError(
        f"{shown(path)} cannot be read as the summary of a run: {why}; restore it, or write it again: "
        f"`cvcc-zoo fit --config={in_command(path.parent / CONFIG)} --ckpt_path=last`"
    )


def read_config(folder: Path) -> dict[str, Any]:
    """Return the config of a run: plain data with the groups model, data and trainer, and no unknown data options.

    Raises FileNotFoundError if there is none, and ValueError for a broken one.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise FileNotFoundError(f"{shown(folder)} is not the folder of a finished run: it has no {CONFIG}")
    broken = f"{shown(path)} cannot be read as the config of a run"
    try:
        config = read_yaml(path.read_text(encoding="utf-8"), shown(path))
    except UnicodeDecodeError as error:
        raise ValueError(f"{broken}: {error}; restore it") from error
    for group in GROUPS:
        if not isinstance(config, dict) or not isinstance(config.get(group), dict):
            raise ValueError(f"{broken}: it has no options {group}; restore it")
    known = inspect.signature(ImageDataModule).parameters
    check_known(f"option of the data in {shown(path)}", known, *map(str, config["data"]))
    found: dict[str, Any] = config
    return found
