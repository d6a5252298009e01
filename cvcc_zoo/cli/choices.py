"""What a user chose, settled before anything is built: names before their options, the seed, the length."""

import os
import re
import secrets
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning
from lightning import Trainer
from lightning.fabric.utilities.exceptions import MisconfigurationException

from cvcc_zoo.files.plain import read_yaml

EPOCHS = 10
"""The length of a training that was given neither epochs nor steps."""
SAID_ELSEWHERE = {"optimizer": "optimizer", "lr_scheduler": "lr_scheduler", "whitening": "data.whitening"}
"""Options of a model that the commands of a training take from elsewhere, and from where."""
OF_IMAGES = ("num_classes", "in_channels", "image_size")
"""Those that they take from the images."""
EXTRAS = {"tensorboard": "tensorboard", "tensorboardX": "tensorboard", "wandb": "wandb", "mlflow": "mlflow"}
"""Packages that Lightning's loggers need, and the extra that brings them."""
LOGGERS = Path(lightning.__file__).parent / "pytorch" / "loggers"

EVALUATED = {"fit": "test", "test": "test", "validate": "val", "predict": "predict"}
"""The images that a command ends with, as Lightning's limits name them."""

CLUSTERS = ("MASTER_ADDR", "SLURM_JOB_ID", "LSB_JOBID", "OMPI_COMM_WORLD_SIZE")
"""What is set where several machines train together: by hand or torchrun, SLURM, LSF, MPI."""


def link_options(parser: Any) -> None:
    """Let the model of a training have what is said elsewhere, and the images the seed of the whole."""
    for name, source in SAID_ELSEWHERE.items():
        parser.link_arguments(source, f"model.init_args.{name}")
    for name in OF_IMAGES:
        parser.link_arguments(f"data.{name}", f"model.init_args.{name}", apply_on="instantiate")
    parser.link_arguments("seed_everything", "data.seed", compute_fn=int)


def check_not_of_model(option: str) -> None:
    """Raise ValueError, which says where it comes from, for an option that a training does not take from its model."""
    if option in SAID_ELSEWHERE:
        raise ValueError(
            f"the {option} of a training is not said with the model; write --{SAID_ELSEWHERE[option]}=... (in a file "
            f"{SAID_ELSEWHERE[option].replace('.', ': ')}: ...)"
        )
    if option in OF_IMAGES:
        change = "" if option == "num_classes" else f"; --data.{option}=... changes the images"
        raise ValueError(f"the model takes its {option} from the images: leave model.{option} out{change}")


def check_training(config: Any) -> None:
    """Raise ValueError for a training without images, and give its model their whitening, which is linked to it."""
    if config.get("data") is None:
        raise ValueError("the images of a training are not null: give data its options, or leave data out")
    if config.get("model"):
        config["model.init_args.whitening"] = config.data.whitening


def _settle_seed(config: Any, before: str | None) -> None:
    """Draw it where true or false asks for one, once for model and data; a run that goes on keeps its own."""
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
    """Draw the seed if it is to be drawn, and choose the length, in the parsed options of a command.

    Steps are a length like epochs: the default number of epochs is that of a training that was given neither. `before`
    is the config in YAML of a run that goes on. Raises ValueError for lengths that are 0 or contradict each other, for
    an evaluation of no image or of a `fresh` model without weights, and for barebones, which leaves nothing to keep.
    """
    if fresh and config.weights is None:
        raise ValueError(
            "no trained weights are given; name a run (--run=FOLDER), a checkpoint (--ckpt_path=FILE) or published "
            "weights (--model=resnet20.cifar10)"
        )
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
            "them by torchrun or SLURM, or set MASTER_ADDR, MASTER_PORT and NODE_RANK there"
        )
    if options.barebones:
        raise ValueError(
            "barebones turns off what a run is made of (metrics, checkpoints); leave it out, or measure the speed "
            "with cvcc-zoo compare MODEL --train"
        )


def _check_limits(config: Any, command: str) -> None:
    """Raise ValueError for an evaluation without a batch; a training has none only where that is chosen."""
    stage = EVALUATED[command]
    if getattr(config.trainer, f"limit_{stage}_batches") == 0 and (command != "fit" or config.test):
        instead = "for a training without a test: --test=false" if command == "fit" else "give more, or leave it out"
        raise ValueError(f"--trainer.limit_{stage}_batches=0 leaves no images; {instead}")


@contextmanager
def told_in_one_line() -> Iterator[None]:
    """What Lightning refuses, and packages that it does not find, are errors for users, of one line."""
    try:
        yield
    except (MisconfigurationException, ImportError, ValueError, TypeError) as error:
        if (message := _explained(error)) is None:
            raise
        raise ValueError(message) from None


def _explained(error: Exception) -> str | None:
    """What a user can do about an error of Lightning; None for another one."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ModuleNotFoundError):
        cause = cause.__cause__ or cause.__context__
    if cause is not None:
        text = str(cause)
        package = re.search("|".join(EXTRAS), text)
        if package is None:
            return f"a package is missing: {' '.join(text.split())}"
        return f"this logger needs {package[0]}: pip install 'cvcc_zoo[{EXTRAS[package[0]]}]', or leave it out"
    first: BaseException = error
    while first.__cause__ is not None:
        first = first.__cause__
    if any(LOGGERS in Path(frame.filename).parents for frame in traceback.extract_tb(first.__traceback__)):
        return f"this logger cannot be made: {' '.join(str(first).split())}"
    file = traceback.extract_tb(error.__traceback__)[-1].filename
    if not isinstance(error, MisconfigurationException) and Path(lightning.__file__).parent not in Path(file).parents:
        return None
    text = " ".join(str(error).split())
    if re.search("accelerator|backend|device", text):
        text += "; leave --trainer.accelerator and --trainer.devices out to take what is here"
    return text


def check_launcher(trainer: Trainer) -> None:
    """Raise ValueError for a strategy that starts its processes as copies of this one, which cannot give a run back."""
    if type(trainer.strategy.launcher).__name__ == "_MultiProcessingLauncher":
        raise ValueError(
            "spawned and forked processes give nothing but weights back; --trainer.strategy=ddp starts the command "
            "once for each device"
        )
