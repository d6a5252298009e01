"""Checks of the callbacks of a training before its first step."""

from collections.abc import Iterable

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import BatchSizeFinder, LearningRateFinder

from cvcc_zoo.classifier.metrics import mode_of
from cvcc_zoo.internals.lightning import callbacks_of
from cvcc_zoo.registry import unknown

AVERAGES = ("StochasticWeightAveraging", "WeightAveraging", "EMAWeightAveraging")
"""Callbacks of Lightning (2.6) that test other weights than they save."""
OURS = ("cvcc_zoo", "lightning")
COUNTS = ("epoch", "step")
"""What a ModelCheckpoint of Lightning may watch besides metrics, for example to keep the last three."""


def check_recorded(callbacks: Iterable[Callback]) -> None:
    """Raise ValueError for a callback with which a run would not be what its config says.

    Those are averages that do not save the weights that they test, and searches that change options later.
    """
    for callback in callbacks:
        if type(callback).__name__ in AVERAGES and _is_known(callback):
            raise ValueError(
                f"{type(callback).__name__} does not save the weights that it tests; "
                "use --trainer.callbacks+=EMA, which validates, tests and saves the same average"
            )
        if isinstance(callback, LearningRateFinder | BatchSizeFinder):
            rate = isinstance(callback, LearningRateFinder)
            method, option = ("lr_find", "optimizer.lr") if rate else ("scale_batch_size", "data.batch_size")
            raise ValueError(
                f"{type(callback).__name__} changes an option after it was recorded; in Python, find its value "
                f"with Tuner(trainer).{method}(model, datamodule=data), and pass it as --{option}=..."
            )


def check_monitors(trainer: Trainer, module: LightningModule, logged: tuple[str, ...]) -> None:
    """Raise ValueError for a callback or a schedule that watches a number that nobody logs, or for its worst value.

    Callbacks and modules that users write may log names of their own, so with them any name may be watched. `logs` of
    our callbacks are the names that they log, of which neither the lowest nor the highest value is the best.
    """
    every = callbacks_of(trainer)
    if not all(_is_known(each) for each in (*every, module)):
        return
    schedule = module.hparams["lr_scheduler"] or {}
    watching = [(type(each).__name__, getattr(each, "monitor", None), getattr(each, "mode", None)) for each in every]
    watching.append((str(schedule.get("name")), schedule.get("monitor"), schedule.get("mode", "min")))
    others = [name for each in every for name in getattr(each, "logs", ())]
    for name, watched, mode in watching:
        if watched is None or watched in others or (name == "ModelCheckpoint" and watched in COUNTS):
            continue
        if watched not in logged:
            raise unknown(f"metric to be watched by {name}", watched, (*logged, *others))
        if watched.startswith("val/") and not trainer.enable_validation and name != "BestCheckpoint":
            raise ValueError(
                f"{name} watches {watched}, but nothing is validated; set --data.validation=0.1 (and no "
                "--trainer.limit_val_batches=0), or let it watch train/loss"
            )
        if mode in ("min", "max") and mode != (best := mode_of(watched)):
            option = "lr_scheduler" if name == schedule.get("name") else "trainer.callbacks"
            raise ValueError(
                f"{name} takes the {'highest' if mode == 'max' else 'lowest'} {watched} for the best, but it is the "
                f"worst; set its mode to {best}: --{option}.mode={best}"
            )


def _is_known(thing: object) -> bool:
    return type(thing).__module__.partition(".")[0] in OURS
