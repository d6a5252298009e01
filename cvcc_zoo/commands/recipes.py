"""`cvcc-zoo recipes [NAME]`: all recipes with accuracy, time and hardware, or the text of one of them."""

import sys
from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table

from cvcc_zoo.cli.parsing import ZooParser, command_parser
from cvcc_zoo.cli.recipes import named, read_head, recipes
from cvcc_zoo.printing.console import PlainConsole
from cvcc_zoo.registry import as_typed, unknown


def parser() -> ZooParser:
    """Return the parser of the command."""
    parser = command_parser("recipes", "[NAME]")
    parser.add_argument(
        "name", type=str, nargs="?", default="", help="A recipe, which is printed, or a folder of recipes to list."
    )
    return parser


def main(args: Sequence[str]) -> int:
    """Print the text of a recipe, or a table of all recipes or those of a folder.

    Raises ValueError for other names, and after the table if the heads of some recipes cannot be read.
    """
    name: str = parser().parse_args(list(args)).name or ""
    if (recipe := named(name)) is not None:
        sys.stdout.write(recipes()[recipe].read_text(encoding="utf-8"))
        return 0
    folder = name.removeprefix("configs/").rstrip("/")
    folder = as_typed(folder, {recipe.partition("/")[0] for recipe in recipes()}) or folder
    chosen = [recipe for recipe in recipes() if not folder or recipe.startswith(f"{folder}/")]
    if not chosen:
        raise unknown("recipe", folder, recipes(), "`cvcc-zoo recipes` lists them")
    table = Table(box=SIMPLE_HEAD, title="Recipes, with their test accuracy and the time of training")
    table.add_column("recipe", no_wrap=True)
    for column in ("accuracy", "epochs"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("time", no_wrap=True)
    table.add_column("hardware", no_wrap=True)
    wrong = []
    for recipe in chosen:
        try:
            head = read_head(recipe)
        except ValueError as error:
            wrong.append(str(error))
            continue
        accuracy = head.accuracy.replace("not measured", "-")
        table.add_row(head.name, accuracy, head.epochs, head.time.replace("minutes", "min"), head.hardware)
    PlainConsole().print(table)
    if wrong:
        raise ValueError(f"not listed: {'; '.join(wrong)}")
    return 0
