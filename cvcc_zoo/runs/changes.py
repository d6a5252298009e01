"""Whether a training goes on with the options that it was started with; where others are wanted, they hold."""

import inspect
from typing import Any

from lightning import Callback, LightningModule, Trainer

from cvcc_zoo.classifier.compatibility import complete
from cvcc_zoo.classifier.trainer import take_options
from cvcc_zoo.data import ImageDataModule
from cvcc_zoo.files.plain import read_yaml

HARMLESS = (
    "run",
    "ckpt_path",
    "allow_changes",
    "test",
    "checkpoint_minutes",
    "trainer.default_root_dir",
    "trainer.enable_progress_bar",
    "trainer.enable_model_summary",
)
"""Options that change nothing of what is trained."""
MOST = 10_000
Options = dict[str, Any]


def changed_options(before: str, now: str) -> dict[str, tuple[Any, Any]]:
    """What differs between two configs in YAML: the option's name -> its values; "not given" where it has none.

    The first comes from a file, and may be any text. Raises ValueError if it is no config. Options of model and
    data that came after it was written have their defaults in it.
    """
    old, new = (_options(text) for text in (before, now))
    names = [name for name in {**old, **new} if name not in HARMLESS]
    family = str(old.get("model.class_path")).rpartition(".")[2]
    defaults = {f"model.init_args.{option}": value for option, value in complete(family, {}).items()}
    defaults |= {f"data.{name}": each.default for name, each in inspect.signature(ImageDataModule).parameters.items()}
    values = {name: (old.get(name, defaults.get(name, "not given")), new.get(name, "not given")) for name in names}
    return {name: pair for name, pair in values.items() if pair[0] != pair[1]}


def check_unchanged(before: str | None, now: str, *, allowed: bool) -> str:
    """Return what differs in words, or nothing; raises ValueError if something does and is not `allowed`."""
    if not before:  # a new training
        return ""
    changed = changed_options(before, now)
    words = ", ".join(f"{name} was {old!r} and is {new!r}" for name, (old, new) in changed.items())
    if changed and not allowed:
        raise ValueError(
            f"the checkpoint was made with other options: {words}; leave them as they were to end with the same "
            "result, or go on with the new ones: --allow_changes=true"
        )
    if "optimizer.name" in changed:
        raise ValueError(
            f"{words}: the state of one optimizer is of no use to another; start a new run from these weights: "
            "--weights=CHECKPOINT instead of --ckpt_path"
        )
    return words


def _options(text: Any) -> Options:
    """The options of a config by their whole names."""
    config = read_yaml(text, "the checkpoint's config")
    if not isinstance(config, dict):
        raise ValueError("the checkpoint's config is not that of a run; go on from the checkpoint of a run")
    flat: Options = {}
    waiting = [(str(key), value) for key, value in reversed(config.items())]
    while waiting:
        name, value = waiting.pop()
        if isinstance(value, dict) and value:
            waiting += [(f"{name}.{key}", inner) for key, inner in reversed(value.items())]
        else:
            flat[name] = value
        if len(flat) + len(waiting) > MOST:  # also of a small text, whose parts refer to each other
            raise ValueError(f"the checkpoint's config has more than {MOST:,} options; go on from another checkpoint")
    return flat


class UseChanges(Callback):
    """Lets the new options of optimizer and schedule hold, whose state brings those of the checkpoint."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the options from a new optimizer, and the place in the schedule from a new one that is as far."""
        take_options(trainer, pl_module)
