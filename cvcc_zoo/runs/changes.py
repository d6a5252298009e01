"""Options that change when a run is resumed: found, refused unless allowed, and put into effect."""

import inspect
from collections.abc import Mapping
from typing import Any

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping

from cvcc_zoo.classifier.compatibility import complete
from cvcc_zoo.classifier.trainer import take_options
from cvcc_zoo.data import ImageDataModule
from cvcc_zoo.data.length import accumulation, limited
from cvcc_zoo.files.plain import read_yaml
from cvcc_zoo.internals.lightning import callbacks_of, move_in_epoch

HARMLESS = (
    "run",
    "ckpt_path",
    "allow_changes",
    "test",
    "checkpoint_minutes",
    "data.max_pixels",
)
"""Options that do not affect what is trained."""
OF_RECORDS = (
    "default_root_dir",
    "enable_autolog_hparams",
    "enable_model_summary",
    "enable_progress_bar",
    "log_every_n_steps",
    "logger",
    "num_sanity_val_steps",
    "profiler",
)
"""Options of the Trainer that decide what is written and shown, not what is trained."""
RECORDS = tuple(f"trainer.{name}" for name in OF_RECORDS)
PLACE = ("data.root", "data.follow_links")
"""Options that say where the images are; whether they are the same is checked when a checkpoint is loaded."""
ELSEWHERE = (*PLACE, "data.dataset", "trainer.precision")
"""Options in which runs of one recipe may differ."""
OF_STATE = {"optimizer.name", "optimizer.rank"}
"""Options on which the tensors depend that an optimizer keeps."""
NETWORK = "model.init_args.network"
EMPTY = "model.init_args.network_options"
"""The name of a network's own options if there are none; otherwise each has a longer name."""
Options = dict[str, Any]


def changed_options(before: str, now: str) -> dict[str, tuple[Any, Any]]:
    """Return the options that differ between two YAML configs: name -> (value before, value now).

    `before` comes from a file and may be any text. Raises ValueError if it is not a config.
    """
    return compare(flat(_config(before)), flat(_config(now)))


def compare(old: Options, new: Options) -> dict[str, tuple[Any, Any]]:
    """Return the options that differ, by full dotted name: name -> (value before, value now).

    A value that is missing is "not given". Options of model and data that were added to this package after `old` was
    written have their defaults.
    """
    names = [name for name in {**old, **new} if name not in (*HARMLESS, EMPTY) and not name.startswith(RECORDS)]
    family = str(old.get("model.class_path")).rpartition(".")[2]
    network = {"network": old[NETWORK]} if NETWORK in old else {}
    defaults = flat({"model": {"init_args": complete(family, network)}})
    defaults |= {f"data.{name}": each.default for name, each in inspect.signature(ImageDataModule).parameters.items()}
    values = {name: (old.get(name, defaults.get(name, "not given")), new.get(name, "not given")) for name in names}
    return {name: pair for name, pair in values.items() if pair[0] != pair[1]}


def in_words(changed: Mapping[str, tuple[Any, Any]]) -> str:
    """Return the result of `changed_options` as text."""
    return ", ".join(f"{name} was {old!r} and is {new!r}" for name, (old, new) in changed.items())


def changed_recipe(before: str, now: str, earlier: str = "") -> str:
    """Return in words the options with which a training goes on as another recipe, after those of `earlier` times.

    Empty if all of it followed one recipe, wherever its images are and whatever was logged.
    """
    changed = changed_options(before, now) if before else {}
    kept = {name: pair for name, pair in changed.items() if not name.startswith(ELSEWHERE)}
    return "; then ".join(filter(None, (earlier, in_words(kept))))


def check_unchanged(before: str | None, now: str, *, allowed: bool, moved: bool = False) -> str:
    """Return the differences in words, or an empty text. Raises ValueError for any, unless they are `allowed`.

    The folder of the images may be `moved`, if the images themselves are compared later.
    """
    if not before:  # a new run
        return ""
    changed = changed_options(before, now)
    if moved:
        changed = {name: pair for name, pair in changed.items() if name not in PLACE}
    words = in_words(changed)
    if changed and not allowed:
        raise ValueError(
            f"the checkpoint was written with other options: {words}; restore them to get the same result, or resume "
            "with the new ones: --allow_changes=true"
        )
    if changed.keys() & OF_STATE:
        raise ValueError(
            f"{words}: an optimizer cannot use the state of another one, or of another rank; start a new run from "
            "these weights: --weights=CHECKPOINT instead of --ckpt_path"
        )
    if "monitor" in changed:
        raise ValueError(
            f"{words}: the best weights so far were chosen by {changed['monitor'][0]}, and those of other epochs are "
            "lost; resume with it, or start a new run from these weights: --weights=CHECKPOINT instead of --ckpt_path"
        )
    return words


def flat(config: Mapping[str, Any]) -> Options:
    """Return nested options by their full dotted names."""
    found: Options = {}
    waiting = [(str(key), value) for key, value in reversed([*config.items()])]
    while waiting:
        name, value = waiting.pop()
        if isinstance(value, dict) and value:
            waiting += [(f"{name}.{key}", inner) for key, inner in reversed(value.items())]
        else:
            found[name] = value
    return found


def _config(text: Any) -> dict[str, Any]:
    """Return a config that is written in a checkpoint."""
    config = read_yaml(text, "the checkpoint's config")
    if not isinstance(config, dict):
        raise ValueError("the checkpoint's config is not that of a run; resume from the checkpoint of a run")
    return config


class UseChanges(Callback):
    """Put new options of optimizer, schedule and callbacks into effect, because their state restores the old ones."""

    def __init__(self) -> None:
        self._schedule_is_new = False

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Let EarlyStopping take its new patience, another schedule no old state, and an epoch its place."""
        for callback in callbacks_of(trainer):
            if isinstance(callback, EarlyStopping) and callback.state_key in checkpoint["callbacks"]:
                checkpoint["callbacks"][callback.state_key]["patience"] = callback.patience
        if trainer.state.fn == "fit":  # not the test of best.ckpt
            specs = (checkpoint["hyper_parameters"]["lr_scheduler"], pl_module.hparams["lr_scheduler"])
            before, now = (spec and spec["name"] for spec in specs)
            self._schedule_is_new = before != now
            if self._schedule_is_new:
                checkpoint["lr_schedulers"] = []
            _go_on_at_image(trainer, checkpoint)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the options of a new optimizer, and of a new schedule that was advanced to the same step."""
        if self._schedule_is_new:  # so that a plateau schedule has all of the rate, whatever the one before it had left
            for group in (group for optimizer in trainer.optimizers for group in optimizer.param_groups):
                group["initial_lr"] = group["lr"]
        take_options(trainer, pl_module)


def _go_on_at_image(trainer: Trainer, checkpoint: dict[str, Any]) -> None:
    """Go on in an epoch after the images that were trained on, or at most a step before, if batches have a new size."""
    data: Any = getattr(trainer, "datamodule", None)
    state = checkpoint.get(type(data).__qualname__, {})
    if not state.get("batches") or state["batch_size"] == data.batch_size:
        return
    factor = [factor for first, factor in accumulation(trainer).items() if first <= state["epoch"]][-1]
    steps = state["batches"] * state["batch_size"] // (data.batch_size * factor)
    last = limited(len(data.train_dataloader()), trainer.limit_train_batches) - 1  # after which an epoch is validated
    batches = min(steps, last // factor) * factor
    data.load_state_dict({**state, "batches": batches})
    move_in_epoch(checkpoint, batches)
