"""The options of `fit`, `validate`, `test` and `predict`: of model, data and trainer, and those of the commands."""

from functools import cache
from inspect import signature
from typing import Any

from lightning import Trainer
from lightning.pytorch.cli import LightningArgumentParser
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from cvcc_zoo.classifier import ImageClassifier
from cvcc_zoo.classifier.compatibility import complete
from cvcc_zoo.classifier.metrics import MONITORED
from cvcc_zoo.cli.choices import EPOCHS, link_options
from cvcc_zoo.cli.expansion import path_of
from cvcc_zoo.cli.parsing import ZooParser, command_parser
from cvcc_zoo.data import ImageDataModule
from cvcc_zoo.data.sources import OBJECTS
from cvcc_zoo.optim.build import TIMM, import_path
from cvcc_zoo.optim.curves import CURVES
from cvcc_zoo.registry import already_imported, as_spec, import_class
from cvcc_zoo.runs import MINUTES
from cvcc_zoo.zoo.catalogue import describe

DEFAULT_MODEL = "cnn_small"
GIVEN = {"model", "datamodule", "dataloaders", "train_dataloaders", "val_dataloaders", "return_predictions"}
"""Arguments of the Trainer's methods that are not options of the commands."""
DEFAULT_OPTIMIZER = {"name": "AdamW", "lr": 0.004, "weight_decay": 0.05}
DEFAULT_SCHEDULE = {"name": "OneCycleLR"}
HELP = {
    "model": "A model of `cvcc-zoo list` (resnet20), published weights (resnet20.cifar10), a family with options "
    "(ResNet with --model.depth=26; --model.help=ResNet shows them), a network of timm (timm.resnet18), or the import "
    "path of yours.",
    "trainer.max_epochs": f"Number of epochs: {EPOCHS}, unless this, --trainer.max_steps or --trainer.max_time is "
    "given. Training ends at the first of these limits; -1 sets none.",
    "trainer.max_steps": "Number of optimizer steps; -1 sets no limit.",
    "trainer.logger": "fit: loggers of Lightning that are used in addition to metrics.csv, by name "
    "(TensorBoardLogger); false also turns metrics.csv off.",
    "trainer.default_root_dir": "fit: the folder of the run folders, by default runs.",
}
"""Help for options of Lightning that mean something else here than Lightning says, or more."""
CHECKPOINT_HELP = {
    "fit": "The checkpoint from which training is resumed: its path, or last for that of --run, or of the run whose "
    "config.yaml is given by --config.",
    "others": "The path of the checkpoint; by default the best of --run.",
}
IMPORTED = {"optimizer": Optimizer, "lr_scheduler": LRScheduler, "loss": None}
"""Options of a model that may be import paths, and the class that each is a subclass of."""


@cache
def parser(command: str) -> ZooParser:
    """Return the parser of `fit`, `validate`, `test` or `predict`. It takes a quarter of a second to build."""
    made = command_parser(command, "[options]")
    made.add_argument("-c", "--config", action="config", help="A YAML file with options.")
    made.add_argument(
        "--seed_everything", type=bool | int, default=0, help="The seed of everything; true draws one, which is saved."
    )
    made.add_lightning_class_args(Trainer, "trainer")
    made.add_lightning_class_args(ImageClassifier, "model", subclass_mode=True)
    made.add_class_arguments(ImageDataModule, "data", fail_untyped=False, sub_configs=True, skip=set(OBJECTS))
    family, options = describe(DEFAULT_MODEL)
    made.set_defaults({
        "trainer.use_distributed_sampler": False,
        "model": {"class_path": path_of(family), "init_args": options},
    })  # fmt: skip
    add_own_options(made)
    link_options(made)
    made.add_method_arguments(Trainer, command, skip=GIVEN & set(signature(getattr(Trainer, command)).parameters))
    ours = {**HELP, "ckpt_path": CHECKPOINT_HELP.get(command, CHECKPOINT_HELP["others"])}
    for action in made._actions:
        action.help = ours.get(action.dest, action.help)
    return made


def add_own_options(parser: LightningArgumentParser) -> None:
    """Add the options that belong to neither model, data nor trainer."""
    parser.add_argument(
        "--optimizer",
        type=dict[str, Any],
        default=DEFAULT_OPTIMIZER,
        help="Name of an optimizer of this package (`cvcc-zoo optimizers` shows them), of torch or of timm "
        "(timm.lamb), or an import path; its options as --optimizer.lr=0.1. Norms and biases are decayed only with "
        "--optimizer.decay_norms_and_biases=true.",
    )
    parser.add_argument(
        "--lr_scheduler",
        type=dict[str, Any] | None,
        default=DEFAULT_SCHEDULE,
        help=f"Name of a schedule of this package ({', '.join(CURVES)}) or of torch, or null; its options as "
        "--lr_scheduler.warmup=0.1. Its length and the max_lr of OneCycleLR are set automatically; interval is step or "
        "epoch.",
    )
    parser.add_argument(
        "--run",
        type=str | None,
        default=None,
        help="fit: the new folder of this run (default: runs/<model>-<dataset>, numbered). "
        "Others: the run folder whose config and best checkpoint are used.",
    )
    parser.add_argument(
        "--weights",
        type=str | None,
        default=None,
        help="Weights to start from: a name of `cvcc-zoo list --pretrained`, the path of a card, a run folder or a "
        "checkpoint. --model=resnet20.cifar10 sets both. The classifier is new if the classes differ.",
    )
    parser.add_argument(
        "--monitor",
        type=str,
        default=MONITORED[0],
        help=f"fit: the metric that selects best.ckpt, the weights that are tested: {', '.join(MONITORED)} "
        "(f1 is macro F1; top5_accuracy exists from 20 classes on).",
    )
    parser.add_argument(
        "--checkpoint_minutes",
        type=float,
        default=MINUTES,
        help="fit: last.ckpt is written at the start of every epoch, and every so many minutes within one.",
    )
    parser.add_argument(
        "--allow_changes",
        type=bool,
        default=False,
        help="fit: resume from a checkpoint with options that differ from those of its training.",
    )
    parser.add_argument(
        "--test",
        type=bool,
        default=True,
        help="fit: test the model at the end; with false, no test image is read.",
    )


def import_named(config: Any, command: str) -> None:
    """Import the optimizer, schedule and loss that a user names by import paths; files of others import nothing.

    A name that a module imports only when it is used becomes the path where it is defined. Evaluations need the loss.
    """
    for kind, base in IMPORTED.items():
        option = f"model.init_args.{kind}"
        if not config.get(option) or command not in (("fit", "validate", "test") if kind == "loss" else ("fit",)):
            continue
        spec = as_spec(kind, config[option])
        if "." in (name := spec["name"]) and not TIMM.fullmatch(name):
            found = import_class(kind, name, base)
            if already_imported(name) is not found:
                config[option] = {**spec, "name": import_path(found) or name}
                if kind in config:  # from which the model has it
                    config[kind] = config[option]


def settle_network(config: Any) -> None:
    """Write the defaults of the user's own network into its options, as its code may have others later."""
    if config.get("model") and "network_options" in config.model.init_args:
        whole = complete(config.model.class_path.rpartition(".")[2], vars(config.model.init_args))
        config["model.init_args.network_options"] = whole["network_options"]


def asked_model(model: Any) -> tuple[str, dict[str, Any]]:
    """Return the class and options of a model, without the whitening, which is linked to that of the data."""
    return model.class_path, {key: value for key, value in vars(model.init_args).items() if key != "whitening"}


def list_of(value: Any) -> list[Any]:
    """Return a value that the trainer takes as one, as several or as None, as a list."""
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]
