"""Settle and check what a user chose before anything is built: seed, length and limits; errors of Lightning."""

import os
import re
import secrets
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from inspect import signature
from pathlib import Path
from typing import Any, get_args

import lightning
from jsonargparse import Namespace
from lightning import Trainer
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities import rank_zero_info

from cvcc_zoo.classifier.compatibility import is_spawned
from cvcc_zoo.classifier.metrics import MONITORED
from cvcc_zoo.cli.refusals import of_constructor
from cvcc_zoo.files.plain import read_yaml
from cvcc_zoo.registry import as_typed, pick

EPOCHS = 10
"""Length of training if neither epochs nor steps are given."""
SAID_ELSEWHERE = {"optimizer": "optimizer", "lr_scheduler": "lr_scheduler", "whitening": "data.whitening"}
"""Options of a model that the commands take from other options, and from which."""
OF_IMAGES = ("num_classes", "in_channels", "image_size")
"""Options of a model that the commands take from the images."""
EXTRAS = {"tensorboard": "tensorboard", "tensorboardX": "tensorboard", "wandb": "wandb", "mlflow": "mlflow"}
"""Packages that Lightning's loggers need, and the extra that installs them."""
LOGGERS = Path(lightning.__file__).parent / "pytorch" / "loggers"

EVALUATED = {"fit": "test", "test": "test", "validate": "val", "predict": "predict"}
"""The split that a command evaluates, as in the names of Lightning's limits: `limit_test_batches`."""

LOST = "Connection (closed|reset) by peer|remote worker|remote process exited"
"""What gloo and NCCL say if another process has ended."""

CLUSTERS = ("RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK")
"""Environment variables by which Lightning knows at once which process this is: of torchrun, SLURM's srun, jsrun."""


def link_options(parser: Any) -> None:
    """Link the options of the model to the options and images that they come from, and the data's seed to the seed."""
    for name, source in SAID_ELSEWHERE.items():
        parser.link_arguments(source, f"model.init_args.{name}")
    for name in OF_IMAGES:
        parser.link_arguments(f"data.{name}", f"model.init_args.{name}", apply_on="instantiate")
    parser.link_arguments("seed_everything", "data.seed", compute_fn=int)


def check_not_of_model(option: str) -> None:
    """Raise ValueError if the commands do not take this option from the model; it says where they take it from."""
    if option in SAID_ELSEWHERE:
        raise ValueError(
            f"the {option} is not an option of the model here; write --{SAID_ELSEWHERE[option]}=... (in a file "
            f"{SAID_ELSEWHERE[option].replace('.', ': ')}: ...)"
        )
    if option in OF_IMAGES:
        change = "" if option == "num_classes" else f"; --data.{option}=... changes the images"
        raise ValueError(f"the model takes its {option} from the images: leave model.{option} out{change}")


def check_not_of_data(options: Iterable[str]) -> None:
    """Raise ValueError if the seed is among the options of the data, which take it from the run."""
    if "seed" in options:
        raise ValueError(
            "the seed is not an option of the data here; write --seed_everything=... (in a file seed_everything: ...), "
            "and leave data.seed out"
        )


def check_training(config: Any) -> None:
    """Give the model the whitening of the images, to which it is linked.

    Raises ValueError if there are no images, and for what is null, or no group of options, but cannot be.
    """
    if config.get("data") is None:
        raise ValueError("data is null, but training needs images; give data its options, or leave it out")
    for name in ("data", "trainer"):
        if not isinstance(config.get(name), Namespace):
            raise ValueError(f"{name} has no options; indent them below it, or leave it out")
    for name, parameter in signature(Trainer).parameters.items():
        may_be_null = parameter.default is None or type(None) in get_args(parameter.annotation)
        if config.trainer.get(name, 0) is None and not may_be_null:
            raise ValueError(f"trainer.{name} is null; give it a value, or leave it out")
    if config.get("model"):
        config["model.init_args.whitening"] = config.data.whitening


def _settle_seed(config: Any, before: str | None) -> None:
    """Draw one seed for model and data if true or false asks for it; a resumed run keeps its own."""
    if not isinstance(config.seed_everything, bool):
        return
    saved = None
    if before and isinstance(options := read_yaml(before, "the checkpoint's config"), dict):
        saved = options.get("seed_everything")
    config.seed_everything = config.data.seed = _draw_seed() if saved is None else int(saved)


def _draw_seed() -> int:
    if "LOCAL_RANK" in os.environ and (drawn := os.environ.get("PL_GLOBAL_SEED")):
        return int(drawn)  # by the process that started this one
    if any(int(os.environ.get(name) or 1) > 1 for name in ("WORLD_SIZE", "SLURM_NTASKS")):
        raise ValueError("every process would draw its own seed; give a number: --seed_everything=1")
    return secrets.randbelow(2**31)


def settle(config: Any, command: str, before: str | None = None, *, fresh: bool = False) -> None:
    """Draw the seed if asked to, and choose the length, in the parsed options of a command.

    The default number of epochs is used only if neither epochs, steps nor a time are given. `before` is the config in
    YAML of a run that is resumed. Raises ValueError for lengths that are 0 or contradict each other, for an evaluation
    without images or of a `fresh` model without weights, and for barebones, which would save nothing.
    """
    if fresh and config.weights is None:
        raise ValueError(
            "no trained weights are given; name a run (--run=FOLDER), a checkpoint (--ckpt_path=FILE) or published "
            "weights (--model=resnet20.cifar10)"
        )
    config.monitor = monitor_named(config.monitor, MONITORED)
    _settle_seed(config, before)
    options = config.trainer
    if options.max_epochs is None:
        options.max_epochs = EPOCHS if options.max_steps in (None, -1) and options.max_time is None else -1
    for name in ("max_epochs", "max_steps", "accumulate_grad_batches", "limit_train_batches"):
        if getattr(options, name) == 0:
            raise ValueError(f"--trainer.{name}=0 trains nothing; give more, or leave it out")
    if options.min_epochs and -1 < options.max_epochs < options.min_epochs:
        raise ValueError(f"min_epochs={options.min_epochs} is more than max_epochs={options.max_epochs}; choose one")
    _check_limits(config, command)
    if options.num_nodes > 1 and not any(name in os.environ for name in CLUSTERS):
        raise ValueError(
            f"--trainer.num_nodes={options.num_nodes} would wait for the other machines; start the command on each of "
            "them by torchrun or srun: docs/reliability.md"
        )
    if options.barebones:
        raise ValueError(
            "barebones turns off metrics and checkpoints, which a run needs; leave it out, or measure the speed "
            "with cvcc-zoo compare MODEL --train"
        )


def monitor_named(typed: str, measured: Iterable[str]) -> str:
    """Return the metric of the validation that somebody typed, such as val/f1 or f1, among those that are measured.

    Raises ValueError, with the nearest names, if there is none.
    """
    names = [name for name in measured if name.startswith("val/")]
    name = typed if "/" in typed else f"val/{typed}"
    return pick("metric to select the best weights by", as_typed(name, names) or typed, names)


def check_monitored(monitor: str, measured: Iterable[str], *, validates: bool) -> None:
    """Raise ValueError if the model does not measure the metric; print a line if there are no images for it."""
    monitor_named(monitor, measured)
    if not validates and monitor != MONITORED[0]:
        rank_zero_info(f"--monitor={monitor} selects nothing: without validation, the last weights are tested")


def _check_limits(config: Any, command: str) -> None:
    """Raise ValueError if no batch would be evaluated; training without a test must be chosen by --test=false."""
    stage = EVALUATED[command]
    if getattr(config.trainer, f"limit_{stage}_batches") == 0 and (command != "fit" or config.test):
        instead = "to train without a test: --test=false" if command == "fit" else "give more, or leave it out"
        raise ValueError(f"--trainer.limit_{stage}_batches=0 leaves no images; {instead}")


@contextmanager
def told_in_one_line() -> Iterator[None]:
    """Raise errors of Lightning, and missing packages, as ValueError of one line."""
    try:
        yield
    except RuntimeError as error:
        if re.search(LOST, str(error)):
            raise ValueError(
                "another process ended with an error, or was lost, so this one cannot go on; its message says why"
            ) from None
        if "SLURM bash script" not in str(error):
            raise
        raise ValueError(
            f"this job of SLURM has {os.environ.get('SLURM_NTASKS')} tasks; Lightning needs the number of tasks on "
            "each node: write #SBATCH --ntasks-per-node=..., and start the command by srun; to train in one process, "
            "first `unset SLURM_NTASKS`"
        ) from None
    except (MisconfigurationException, ImportError, ValueError, TypeError) as error:
        if (message := _explained(error)) is None:
            raise
        raise ValueError(message) from None


def _explained(error: Exception) -> str | None:
    """Return an error of Lightning, with what to do about it, in one line; None for other errors."""
    if re.search("pip install|at the import path", str(error)) and _is_ours(error):  # it says all already
        return None
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ModuleNotFoundError):
        cause = cause.__cause__ or cause.__context__
    if cause is not None:
        text = str(cause)
        package = re.search("|".join(EXTRAS), text)
        if package is None:
            return f"a package is missing: {' '.join(text.split())}"
        return needs(package[0])
    first: BaseException = error
    while first.__cause__ is not None:
        first = first.__cause__
    if any(LOGGERS in Path(frame.filename).parents for frame in traceback.extract_tb(first.__traceback__)):
        return f"this logger cannot be made: {' '.join(str(first).split())}"
    if not _is_ours(first) and (reason := of_constructor(str(error))) is not None:
        package = re.search("|".join(EXTRAS), reason) if "not met" in reason else None
        return needs(package[0]) if package else f"a class that was chosen cannot be made: {reason}"
    file = traceback.extract_tb(error.__traceback__)[-1].filename
    if not isinstance(error, MisconfigurationException) and Path(lightning.__file__).parent not in Path(file).parents:
        return None
    text = " ".join(str(error).split())
    if re.search("accelerator|backend|device", text):
        text += "; leave --trainer.accelerator and --trainer.devices out to use what this machine has"
    return text


def _is_ours(error: BaseException) -> bool:
    """Return whether an error was raised in this package."""
    return Path(traceback.extract_tb(error.__traceback__)[-1].filename).is_relative_to(Path(__file__).parents[1])


def needs(package: str) -> str:
    """Return how to install one of EXTRAS, which a logger needs."""
    return f"this logger needs {package}: pip install 'cvcc_zoo[{EXTRAS[package]}]', or leave it out"


def check_trainer(trainer: Trainer, command: str) -> None:
    """Raise ValueError for a strategy that spawns or forks processes, which return only weights and no run.

    Also say what training in half precision costs.
    """
    if is_spawned(trainer):
        raise ValueError(
            "spawned and forked processes return nothing but weights; --trainer.strategy=ddp starts the command "
            "once for each device"
        )
    if command == "fit" and trainer.precision == "16-true":
        rank_zero_info(
            "precision=16-true trains weights of half precision, in which Adam's eps of 1e-8 is 0 and small steps "
            "are lost; 16-mixed and bf16-mixed keep whole ones"
        )
