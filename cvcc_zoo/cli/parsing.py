"""The parser of every command: options from code or from a function, help with examples, errors of one line."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from lightning.pytorch.cli import LightningArgumentParser

from cvcc_zoo.cli.dotted import spelt_out
from cvcc_zoo.cli.expansion import MODE, install_yaml, names_from_here
from cvcc_zoo.cli.manual import COMMANDS, with_examples
from cvcc_zoo.cli.refusals import explain
from cvcc_zoo.printing import say

HEADINGS = {
    "trainer": "Lightning's Trainer",
    "model": "The model",
    "data": "The data set, and how its images are prepared",
    **dict.fromkeys(("fit", "validate", "test", "predict"), "The checkpoint"),
}
"""Headings of groups of options in the help, instead of the first lines of the docstrings of their classes."""


class ZooParser(LightningArgumentParser):
    """The parser of every command; its help ends with examples, and an error is one line without the usage."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"parser_mode": MODE, "allow_abbrev": False, **kwargs})

    def format_help(self, *args: Any, **kwargs: Any) -> str:
        """Return the help of the command, followed by its examples."""
        for name, group in (self.groups or {}).items():
            group.title = HEADINGS.get(name, group.title)
        return with_examples(self.prog, super().format_help(*args, **kwargs))

    def parse_args(self, *args: Any, **kwargs: Any) -> Any:
        """Parse arguments; a file of options that is not text is an error of one line, too."""
        try:
            with names_from_here():
                return super().parse_args(*args, **kwargs)
        except UnicodeDecodeError as error:
            self.error(f"a file of options is not text in UTF-8 ({error}); convert it, or give another one")

    def parse_string(self, content: str, *args: Any, **kwargs: Any) -> Any:
        """Parse a file of options, whose names may have dots; jsonargparse loses some of these."""
        return super().parse_string(spelt_out(content), *args, **kwargs)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print the error in one line, and exit with code 2."""
        explained = explain(message, self)
        say(f"cvcc-zoo: error: {explained}", error=True)
        refused = SystemExit(2)
        refused.add_note(explained)  # a search records it for the trial and continues
        raise refused


def command_parser(command: str, usage: str, more: str = "", **kwargs: Any) -> ZooParser:
    """Return a parser for `cvcc-zoo COMMAND usage`; `more` follows the summary of the command in its help."""
    install_yaml()
    what = COMMANDS[command].what
    description = f"{what[0].upper()}{what[1:]}. {more}".rstrip()
    return ZooParser(prog=f"cvcc-zoo {command}", usage=f"cvcc-zoo {command} {usage}", description=description, **kwargs)


def function_parser(command: str, usage: str, function: Callable[..., Any], *, config: bool = True) -> ZooParser:
    """Return a parser whose options are the parameters of a function, with the help from its docstring.

    With `config`, parameters without a default are positional, and `--config` reads options from a YAML file.
    """
    _, _, more = inspect.cleandoc(function.__doc__ or "").partition("Args:")[0].partition("\n\n")
    parser = command_parser(command, usage, more.strip(), parser_mode="yaml")
    if config:
        parser.add_argument("--config", action="config", help="A YAML file with options.")
    parser.add_function_arguments(function, as_group=False, as_positional=config, sub_configs=True)
    return parser


def call_with(parser: ZooParser, function: Callable[..., Any], args: Sequence[str], passed: Sequence[str] = ()) -> Any:
    """Parse `args` with the `function_parser` of a function, and return what the function returns.

    Arguments that are `passed` on to `fit` are added to the function's parameter `options`.
    """
    options = parser.parse_args(list(args)).as_dict()
    options.pop("config", None)
    if passed:
        options["options"] = [*(options["options"] or ()), *passed]
    return function(**options)
