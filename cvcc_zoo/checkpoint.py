"""Reading a checkpoint of ours: plain data and tensors alone; nothing in it can run."""

import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from cvcc_zoo.registry import FAMILIES, unknown


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint holds of a model: a registered family, its hyper-parameters and its weights."""

    path: Path
    family: str
    hparams: dict[str, Any]
    state: dict[str, Any]


def read_checkpoint(checkpoint: str | Path) -> Checkpoint:
    """Read a checkpoint file, or that of a run folder; raises as `load` does."""
    path = Path(checkpoint).expanduser()
    if path.is_dir():
        found = [path / name for name in ("best.ckpt", "last.ckpt") if (path / name).is_file()]
        if not found:
            raise FileNotFoundError(f"the folder {path} has no best.ckpt or last.ckpt; is it a run folder?")
        path = found[0]
    if not path.is_file():
        raise FileNotFoundError(f"there is no checkpoint {path}; a run writes runs/<model>-<dataset>/best.ckpt")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError, ValueError) as error:
        raise ValueError(
            f"{path} cannot be read as a checkpoint of plain data: {str(error).splitlines()[0]}"
        ) from error
    if not isinstance(content, dict) or "cvcc_zoo" not in content:
        raise ValueError(f"{path} is not a checkpoint of this package: it does not say which model family it holds")
    family = str(content["cvcc_zoo"]["family"])
    check_family(family, path)
    return Checkpoint(path, family, content["hyper_parameters"], content["state_dict"])


def check_family(family: str, path: Path) -> None:
    """Raise ValueError for a family that is not registered; no class is looked up elsewhere."""
    if family not in FAMILIES:
        raise unknown("model family", family, FAMILIES, f"{path} was made with a class that is not imported")
