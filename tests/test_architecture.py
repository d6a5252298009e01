"""The map of the code holds: imports point down, files fit a sitting."""

import ast
from collections.abc import Iterator
from pathlib import Path

import cvcc_zoo
from benchmarks.imports import circles, file_imports, parse

ROOT = Path(cvcc_zoo.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
LEVELS = {
    "internals": -1,
    "kinds": 0,
    "registry": 0,
    "timing": 0,
    "printing": 0,
    "files": 1,
    "losses": 1,
    "optim": 1,
    "plots": 0,
    "data": 2,
    "classifier": 3,
    "weights": 3,
    "linear": 4,
    "models": 5,
    "zoo": 6,
    "runs": 7,
    "cli": 8,
    "demo": 9,
    "export": 9,
    "inspection": 9,
    "report": 9,
    "search": 9,
    "commands": 10,
    "integrations": 10,
    "__main__": 11,
    "__init__": 12,
}


def pillar(module: str) -> str:
    return module.split(".")[1] if "." in module else "__init__"


def imported(path: Path) -> Iterator[str]:
    """The modules of the package that a file imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        yield from (name for name in names if name.startswith("cvcc_zoo"))


def test_files_import_only_from_lower_levels_or_their_own_folder() -> None:
    wrong = []
    for path in FILES:
        own = path.relative_to(ROOT).parts[0].removesuffix(".py")
        for name in imported(path):
            other = pillar(name)
            if other != own and LEVELS[other] >= LEVELS[own]:
                wrong.append(f"{path.relative_to(ROOT)} must not import {name}")
    assert not wrong, "\n".join(wrong)


def test_no_files_import_each_other_in_a_circle() -> None:
    assert circles(file_imports(parse(ROOT), "cvcc_zoo")) == []


def test_paths_in_the_home_of_an_unknown_user_are_read_in_one_place() -> None:
    """`Path.expanduser` raises RuntimeError for them; `expanded` does not, and names of weights get a message."""
    users = {str(path.relative_to(ROOT)) for path in FILES if ".expanduser()" in path.read_text()}
    assert users == {"zoo/names.py"}


def test_files_fit_a_sitting() -> None:
    lines = {path.relative_to(ROOT): len(path.read_text().splitlines()) for path in FILES}
    long = [f"{path} has {count} lines" for path, count in lines.items() if count > 250]
    assert not long, "\n".join(long)
