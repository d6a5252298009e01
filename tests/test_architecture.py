"""The map of the code holds: imports point down, files fit a sitting."""

import ast
from pathlib import Path

import pytest

import cvcc_zoo

ROOT = Path(cvcc_zoo.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
LEVELS = {
    "internals": -1,
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
    "network": 1,
    "whitened": 2,
    "freezing": 2.5,
    "preparation": 2.5,
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


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_imports_only_from_lower_levels_or_its_own_folder(path: Path) -> None:
    own = path.relative_to(ROOT).parts[0].removesuffix(".py")
    for node in ast.walk(ast.parse(path.read_text())):
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        for name in names:
            if name.startswith("cvcc_zoo"):
                other = pillar(name)
                assert other == own or LEVELS[other] < LEVELS[own], f"{path} must not import {name}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_fits_a_sitting(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 250
