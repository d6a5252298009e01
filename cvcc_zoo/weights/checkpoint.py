"""What a checkpoint of ours holds of a model: plain data and tensors alone; nothing in it can run."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cvcc_zoo.files.plain import load_plain
from cvcc_zoo.weights.fits import check_fits

LONGEST_NAME = 1_000  # characters


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint holds of a model: a registered family, its hyper-parameters and its weights."""

    path: Path
    family: str
    hparams: dict[str, Any]
    state: dict[str, Any]
    config: str | None = None  # of the run, in YAML
    classes: tuple[str, ...] | None = None  # in the order of the logits; None where it does not say
    dataset: str = ""  # what it was trained on, in words; empty where it does not say
    ended: bool = False  # whether the training of the run came to its end
    has_best: bool = False  # whether a best.ckpt was written before it, or it is one
    metrics: Any = None  # what the metrics are known by that were logged before it; None where it does not say


def read_checkpoint(checkpoint: str | Path) -> Checkpoint:
    """Read a checkpoint file, or that of a run folder; raises as `load` does.

    Its tensors are those of the family with its hyper-parameters, by name and shape. An import path in the
    hyper-parameters (of an optimizer, say) is a text that nobody follows.
    """
    path = Path(checkpoint).expanduser()
    if path.is_dir():
        found = [path / name for name in ("best.ckpt", "last.ckpt") if (path / name).is_file()]
        if not found:
            raise FileNotFoundError(f"the folder {path} has no best.ckpt or last.ckpt; is it a run folder?")
        path = found[0]
    if not path.is_file():
        raise FileNotFoundError(f"there is no checkpoint {path}; a run writes runs/<model>-<dataset>/best.ckpt")
    content = load_plain(path)
    about = content.get("cvcc_zoo") if isinstance(content, dict) else None
    if not isinstance(about, dict) or not isinstance(about.get("family"), str):
        raise ValueError(f"{path} is not a checkpoint of this package: it does not say which model family it holds")
    for part in ("hyper_parameters", "state_dict"):
        if not isinstance(content.get(part), dict):
            raise ValueError(f"{path} is not a whole checkpoint: it has no {part}; get it again")
    family = about["family"]
    check_fits(path, family, content["hyper_parameters"], content["state_dict"])
    callbacks = content.get("callbacks")
    run = callbacks.get("RunFolder") if isinstance(callbacks, dict) else None
    run = run if isinstance(run, dict) else {}
    best = _has_best(callbacks) if isinstance(callbacks, dict) else False
    classes, data = about.get("classes"), about.get("data")
    if classes is not None:
        check_names(path, classes, content["hyper_parameters"])
    title = data.get("title") if isinstance(data, dict) else None
    title = title if isinstance(title, str) else ""
    names = tuple(classes) if classes is not None else None
    return Checkpoint(
        path,
        family,
        content["hyper_parameters"],
        content["state_dict"],
        run.get("config"),
        names,
        title,
        ended=bool(run.get("ended")),
        has_best=best,
        metrics=run.get("metrics"),
    )


def _has_best(callbacks: dict[Any, Any]) -> bool:
    """Whether the state of BestCheckpoint, whose key holds its options, names a file."""
    states = [state for key, state in callbacks.items() if str(key).startswith("BestCheckpoint")]
    return any(isinstance(state, dict) and bool(state.get("best_model_path")) for state in states)


def check_names(path: Path, classes: Any, hparams: dict[str, Any]) -> None:
    """Raise ValueError for what is no list of the names of a model's classes."""
    names = isinstance(classes, list) and all(isinstance(name, str) and len(name) <= LONGEST_NAME for name in classes)
    if not names or len(classes) != hparams.get("num_classes"):
        raise ValueError(f"{path} does not name the {hparams.get('num_classes')} classes of its model; get it again")
