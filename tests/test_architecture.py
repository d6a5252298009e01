"""The map of the code holds: imports point down, files fit a sitting."""

import ast
from collections.abc import Iterator
from pathlib import Path

import cvcc_zoo

ROOT = Path(cvcc_zoo.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
LEVELS = {
    "manual": 0,
    "registry": 0,
    "refusals": 1,
    "allocation": 0,
    "web": 0,
    "folding": 0,
    "length": 0,
    "files": 0,
    "plots": 0,
    "timing": 0,
    "notices": 1,
    "progress": 0,
    "printing": 0,
    "losses": 1,
    "score_plots": 1,
    "closed_form": 2,
    "features": 3,
    "metrics": 1,
    "fetch": 1,
    "plain": 1,
    "optim": 1,
    "data": 1,
    "choices": 2,
    "weights": 2,
    "fitting": 2,
    "hyperparameters": 2,
    "checkpoint": 3,
    "compatibility": 2,
    "stages": 2,
    "trainers": 2,
    "classifier": 3,
    "templates": 4,
    "scores": 4,
    "models": 4,
    "transfer": 4,
    "zoo": 5,
    "runs": 6,
    "expansion": 5,
    "parsing": 6,
    "trained": 6,
    "exporting": 7,
    "cli": 7,
    "searching": 7,
    "inspection": 7,
    "demo": 7,
    "reporting": 7,
    "commands": 8,
    "integrations": 8,
    "__main__": 9,
    "__init__": 10,
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


def test_files_fit_a_sitting() -> None:
    lines = {path.relative_to(ROOT): len(path.read_text().splitlines()) for path in FILES}
    long = [f"{path} has {count} lines" for path, count in lines.items() if count > 250]
    assert not long, "\n".join(long)
