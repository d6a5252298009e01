"""`cvcc-zoo completion SHELL`: a script that completes commands, options and names with the tab key.

shtab (https://github.com/iterative/shtab) makes it from the parsers of the commands. The `--print_shtab` of
jsonargparse does not replace it: it knows one parser, no names of models, and no `--model=resnet20` in bash.
"""

import argparse
import re
from collections.abc import Sequence
from typing import Any

from cvcc_zoo.cli.manual import COMMANDS
from cvcc_zoo.cli.parsing import ZooParser, command_parser
from cvcc_zoo.cli.recipes import recipes
from cvcc_zoo.commands import parser_of
from cvcc_zoo.data.sources import NAMES
from cvcc_zoo.optim.build import OWN
from cvcc_zoo.optim.curves import CURVES
from cvcc_zoo.registry import ALIASES, ENTRIES, FAMILIES, family_options
from cvcc_zoo.weights.card import list_cards

SHELLS = ("bash", "zsh", "tcsh")
BASH = """
_cvcc_zoo() {  # bash takes --model=resnet20 for three words: the "=" is left out
  local words=() here=0 number
  for number in "${!COMP_WORDS[@]}"; do
    if [[ ${COMP_WORDS[number]} != "=" ]]; then words+=("${COMP_WORDS[number]}")
    elif ((number == COMP_CWORD)); then words+=(""); fi
    ((number == COMP_CWORD)) && here=$((${#words[@]} - 1))
  done
  COMP_WORDS=("${words[@]}") COMP_CWORD=$here
  _shtab_cvcc_zoo
}
complete -o bashdefault -F _cvcc_zoo cvcc-zoo"""

FUNCTIONS = {
    "bash": """
_cvcc_zoo_recipe() { compgen -W "RECIPES" -- "$1"; }
_cvcc_zoo_recipe_or_file() { _cvcc_zoo_recipe "$1"; compgen -f -- "$1"; }""",
    "zsh": """
_cvcc_zoo_recipe() { compadd -- RECIPES }
_cvcc_zoo_recipe_or_file() { _alternative 'recipes:recipe:(RECIPES)' 'files:file:_files' }""",
}
"""Functions of a shell that complete recipes; tcsh has none, and in its patterns the names would end at the slash."""
RECIPE = {"bash": "_cvcc_zoo_recipe", "zsh": "_cvcc_zoo_recipe"}
RECIPE_OR_FILE = {"bash": "_cvcc_zoo_recipe_or_file", "zsh": "_cvcc_zoo_recipe_or_file", "tcsh": "f"}


def parser() -> ZooParser:
    """Return the parser of the command."""
    made = command_parser("completion", "SHELL")
    made.add_argument("shell", choices=SHELLS, help=f"{', '.join(SHELLS[:-1])} or {SHELLS[-1]}.")
    return made


def main(args: Sequence[str]) -> int:
    """Run the command."""
    print(script(parser().parse_args(list(args)).shell))
    return 0


def script(shell: str) -> str:
    """Return the script for a shell."""
    import shtab

    root = argparse.ArgumentParser("cvcc-zoo")
    commands = root.add_subparsers(dest="command")
    for name, command in COMMANDS.items():
        parser = commands.add_parser(name, help=command.what)
        for action in parser_of(name)._actions:
            if action.option_strings and "--help" not in action.option_strings:
                more: dict[str, Any] = {"action": "store_true"} if action.nargs == 0 else {"choices": values(action)}
                flag = parser.add_argument(*action.option_strings, help=in_a_line(action.help), **more)
                if action.dest == "config":
                    flag.complete = RECIPE_OR_FILE  # type: ignore[attr-defined]
            if action.required or not action.option_strings:  # may stand alone
                text, known = in_a_line(action.help), None if name == "recipes" else values(action)
                nargs: Any = "?" if action.option_strings else action.nargs
                place = parser.add_argument(action.dest, nargs=nargs, help=text, choices=known)
                if known is None:
                    place.complete = RECIPE if name == "recipes" else shtab.FILE  # type: ignore[attr-defined]
        if name == "fit":
            for option in sorted({option for family in FAMILIES.values() for option in family_options(family)}):
                parser.add_argument(f"--model.{option}", help="an option of a family")
    functions = FUNCTIONS.get(shell, "").replace("RECIPES", " ".join(recipes()))
    made = str(shtab.complete(root, shell, preamble=functions))
    if shell == "zsh":  # so that it takes --model=resnet20, too
        return re.sub(r'(--[\w.]+)(\}"|)\[([^"]*\]:)', r"\1=\2[\3", made)
    return made + BASH if shell == "bash" else made


def values(action: argparse.Action) -> list[str] | None:
    """Return the names that an option can be given, or None if it takes other values."""
    name = action.option_strings[-1].lstrip("-") if action.option_strings else action.dest
    published = list(list_cards())
    known: dict[str, Any] = {
        "model": [*ENTRIES, *ALIASES, *FAMILIES, *published],
        "models": [*ENTRIES, *ALIASES, *FAMILIES, *published],
        "name": published,
        "names": published,
        "weights": published,
        "optimizer": OWN,
        "lr_scheduler": CURVES,
        "data.dataset": NAMES,
    }
    found = known.get(name, action.choices)
    return list(map(str, found)) if found else None


def in_a_line(text: str | None) -> str:
    """Return the first sentence of a help text."""
    return " ".join((text or "").split()).partition(". ")[0].partition(" (default")[0].replace("%", "%%")
