"""`cvcc-zoo find-lr`: a learning rate range test with the options of `fit`."""

import math
from collections.abc import Sequence
from contextlib import suppress

import numpy as np
from lightning.pytorch.callbacks import Checkpoint, DeviceStatsMonitor, LearningRateMonitor

from cvcc_zoo.cli.choices import told_in_one_line
from cvcc_zoo.cli.lightning import ZooCLI
from cvcc_zoo.cli.parsing import ZooParser, call_with, function_parser
from cvcc_zoo.cli.passing import split
from cvcc_zoo.files.own import file_to_write, write_picture
from cvcc_zoo.internals.lightning import callbacks_of
from cvcc_zoo.plots.curves import plot_range_test
from cvcc_zoo.printing.console import PlainConsole
from cvcc_zoo.printing.notices import quiet
from cvcc_zoo.runs import StopAtSignal, StoppedError, determinism_restored, stopped_by_signals
from cvcc_zoo.search.rates import FEWEST, Growing, scaled_rates
from cvcc_zoo.zoo.catalogue import name_of

OF_A_RUN = ("run", "ckpt_path", "test", "allow_changes")
RECORDING = (Checkpoint, LearningRateMonitor, DeviceStatsMonitor)
"""Callbacks that need a logger, or save checkpoints; Lightning adds one of them by itself."""


def find_lr(
    low: float = 1e-6,
    high: float = 10.0,
    steps: int = 200,
    output: str = "lr.png",
    options: list[str] | None = None,
) -> int:
    """Find a learning rate: train a few steps while it grows, and see where the loss falls fastest.

    Options of `cvcc-zoo fit` can be given, too, except those of a run folder; the schedule and early stopping are left
    out. No run folder is written, no weights are kept, and neither validation nor test images are used. The loss rises
    again, or is not finite, when the rate becomes too large; that ends the test.

    Args:
        low: The first learning rate.
        high: The last learning rate, if training does not diverge before.
        steps: Number of optimizer steps from the first to the last rate.
        output: The PNG file to write: the loss over the learning rate.
        options: Options of `cvcc-zoo fit` as a list; equivalent to giving them directly.

    """
    if not 0 < low < high < math.inf:
        raise ValueError(f"give rates above 0, the lower one as --low, not --low={low:g} --high={high:g}")
    if steps < FEWEST:
        raise ValueError(f"give at least --steps={FEWEST}: fewer do not show where the loss falls, got {steps}")
    target, console = file_to_write(output, ".png"), PlainConsole(soft_wrap=True)
    growing = Growing(low, high, steps)
    words = [*(options or []), f"--trainer.max_steps={steps}", "--trainer.max_epochs=-1", "--test=false"]
    words += [f"--trainer.{name}=false" for name in ("logger", "enable_progress_bar", "enable_model_summary")]
    words.append("--trainer.limit_val_batches=0")
    quiet()
    try:
        with determinism_restored(), stopped_by_signals(), told_in_one_line():
            built = ZooCLI("fit", words, callbacks=[growing, StopAtSignal()])
            check(built)
            spec = dict(built.model.hparams["optimizer"])
            title = f"{name_of(type(built.model).__name__, built.model.hparams)} on {built.datamodule.dataset.title}"
            with suppress(FloatingPointError):  # a rate that is too large ends the test
                built.trainer.fit(built.model, built.datamodule)
    except StoppedError as stop:
        console.print(f"{stop}: no learning rate was found")
        return stop.code
    finally:
        growing.close()
    found = growing.found
    if not found.rates:
        raise ValueError(
            f"the loss of {title} is not a finite number at the first rate, --low={low:g}, before any step; check the "
            "images, the model and --trainer.precision"
        )
    suggestion = found.suggestion()
    figure = plot_range_test(found.rates, found.smoothed(), found.losses, suggestion, f"{title}, {spec['name']}")
    write_picture(target, figure)
    ended = "" if len(found.rates) == steps else f", where it diverges after {len(found.rates)} steps"
    console.print(f"{title}: the loss at learning rates from {low:g} to {found.rates[-1]:.3g}{ended}")
    console.print(f"written to {target}")
    if suggestion is None:
        console.print("the loss did not fall in this range; choose another --low and --high, or another optimizer")
        return 1
    rates = scaled_rates(spec, suggestion / built.model.lr)
    lowest = found.rates[int(np.argmin(found.smoothed()))]
    console.print(f"it falls fastest at {suggestion:.2g}, and is lowest at {lowest:.2g}")
    console.print(" ".join(f"--optimizer.{name}={rate:.2g}" for name, rate in rates.items()))
    return 0


def check(built: ZooCLI) -> None:
    """Leave out the schedule, and callbacks for what the test has not: validation, a logger and checkpoints.

    Raises ValueError for a model that is not trained step by step, or by one process.
    """
    model, trainer = built.model, built.trainer
    if not model.automatic_optimization:
        raise ValueError("this model is solved in closed form, without a learning rate; train it: cvcc-zoo fit")
    if trainer.world_size > 1:
        raise ValueError(f"the test is run by one process, not by {trainer.world_size}: --trainer.devices=1")
    if built.config.trainer.fast_dev_run:
        raise ValueError("the test needs more steps than --trainer.fast_dev_run has; leave it out")
    if model.lr <= 0:
        raise ValueError("the rates of the test are multiples of the optimizer's; give --optimizer.lr above 0")
    model.hparams["lr_scheduler"] = None
    callbacks = callbacks_of(trainer)
    kept = [each for each in callbacks if getattr(each, "monitor", None) is None]  # not EarlyStopping
    callbacks[:] = [each for each in kept if not isinstance(each, RECORDING)]


def parser() -> ZooParser:
    """Return the parser of the command."""
    return function_parser("find-lr", "[options]", find_lr, config=False)


def main(args: Sequence[str]) -> int:
    """Run the command; options that are not its own are those of `cvcc-zoo fit`."""
    own, passed = split(args, "find-lr", find_lr, OF_A_RUN, "the test writes no run")
    return int(call_with(parser(), find_lr, own, passed))
