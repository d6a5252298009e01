"""The parsers of the commands: what belongs to neither model, data nor trainer, and errors of one line."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from lightning.pytorch.cli import LightningArgumentParser
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from cvcc_zoo.cli.expansion import MODE, install_yaml
from cvcc_zoo.cli.manual import with_examples
from cvcc_zoo.cli.refusals import explain
from cvcc_zoo.optim.build import TIMM
from cvcc_zoo.printing import say
from cvcc_zoo.registry import import_class

DEFAULT_OPTIMIZER = {"name": "AdamW", "lr": 0.004, "weight_decay": 0.05}
DEFAULT_SCHEDULE = {"name": "OneCycleLR"}
IMPORTED = {"optimizer": Optimizer, "lr_scheduler": LRScheduler}


def add_own_options(parser: LightningArgumentParser, checkpoint_minutes: float) -> None:
    """The options that belong to neither model, data nor trainer."""
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
        help="Name of a schedule of this package (Step, QuarterCosine, Cosine, Linear, OneCycle, WSD) or of torch, "
        "or null; its options as --lr_scheduler.warmup=0.1. Its length and the max_lr of OneCycleLR are filled in; "
        "interval is step or epoch.",
    )
    parser.add_argument(
        "--run",
        type=str | None,
        default=None,
        help="fit: the new folder of this run (default: runs/<model>-<dataset>, numbered). "
        "Others: the run folder whose config and best checkpoint are taken.",
    )
    parser.add_argument(
        "--weights",
        type=str | None,
        default=None,
        help="Weights to start from: a name of `cvcc-zoo list --pretrained`, the path of a card, a run folder or a "
        "checkpoint. --model=resnet20.cifar10 sets both. The classifier is new where the classes are others.",
    )
    parser.add_argument(
        "--checkpoint_minutes",
        type=float,
        default=checkpoint_minutes,
        help="fit: last.ckpt is written at the start of every epoch, and within one whenever this time is over.",
    )
    parser.add_argument(
        "--allow_changes",
        type=bool,
        default=False,
        help="fit: go on from a checkpoint with other options than those that it was made with.",
    )
    parser.add_argument(
        "--test",
        type=bool,
        default=True,
        help="fit: whether the test images are tested at the end; without it none of them is read.",
    )


def import_named(config: Any) -> None:
    """Import the optimizer and the schedule that a user names by an import path; nobody does that for a file."""
    for kind, kind_of in IMPORTED.items():
        name = (config.get(kind) or {}).get("name", "")
        if "." in name and not TIMM.fullmatch(name):
            import_class(kind, name, kind_of)


def asked_model(model: Any) -> tuple[str, dict[str, Any]]:
    """A model's class and options, without the whitening, which is linked to that of the data."""
    return model.class_path, {key: value for key, value in vars(model.init_args).items() if key != "whitening"}


def list_of(value: Any) -> list[Any]:
    """What the trainer takes as one, as several or as None."""
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]


class ZooParser(LightningArgumentParser):
    """The parser of every command; its help ends with examples, and an error is one line without the usage."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"parser_mode": MODE, "allow_abbrev": False, **kwargs})

    def format_help(self, *args: Any, **kwargs: Any) -> str:
        """Return the help of the command, followed by its examples."""
        return with_examples(self.prog, super().format_help(*args, **kwargs))

    def parse_args(self, *args: Any, **kwargs: Any) -> Any:
        """Parse; a file of options that is not text is an error of one line, too."""
        try:
            return super().parse_args(*args, **kwargs)
        except UnicodeDecodeError as error:
            self.error(f"a file of options is no text in UTF-8 ({error}); write it anew, or give another one")

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print what is wrong and exit with code 2."""
        explained = explain(message, self)
        say(f"cvcc-zoo: error: {explained}", error=True)
        refused = SystemExit(2)
        refused.add_note(explained)  # for a search, which goes on
        raise refused


def command_parser(command: str, usage: str, description: str, **kwargs: Any) -> ZooParser:
    """Return a parser for `cvcc-zoo COMMAND`; `usage` is what follows that."""
    install_yaml()
    return ZooParser(prog=f"cvcc-zoo {command}", usage=f"cvcc-zoo {command} {usage}", description=description, **kwargs)


def function_parser(command: str, usage: str, function: Callable[..., Any], *, config: bool = True) -> ZooParser:
    """Return a parser whose options are the parameters of a function, with the help from its docstring.

    With `config`, parameters without a default are positional, and `--config` reads options from a YAML file.
    """
    summary = (function.__doc__ or "").partition("Args:")[0].strip()
    parser = command_parser(command, usage, inspect.cleandoc(summary), parser_mode="yaml")
    if config:
        parser.add_argument("--config", action="config", help="A YAML file with options.")
    parser.add_function_arguments(function, as_group=False, as_positional=config, sub_configs=True)
    return parser


def call_with(parser: ZooParser, function: Callable[..., Any], args: Sequence[str]) -> Any:
    """Parse `args` with the `function_parser` of a function, and return what the function returns."""
    options = parser.parse_args(list(args)).as_dict()
    options.pop("config", None)
    return function(**options)
