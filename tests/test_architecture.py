"""The map of the code holds: imports point down, files fit a sitting."""

import ast
import functools
import re
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import cvcc_zoo

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


def module_of(path: Path) -> str:
    return ".".join(["cvcc_zoo", *path.relative_to(ROOT).with_suffix("").parts]).removesuffix(".__init__")


MODULES = set(map(module_of, FILES))


def pillar(module: str) -> str:
    return module.split(".")[1] if "." in module else "__init__"


@functools.cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def names(path: Path) -> Iterator[str]:
    """The dotted names that a file imports, also in functions."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            before = f"{node.module}." if isinstance(node, ast.ImportFrom) else ""
            yield from (before + alias.name for alias in node.names)


def imported(path: Path) -> set[str]:
    """The modules of the package that a file imports; that Python also runs the `__init__.py` above does not count."""
    return {name if name in MODULES else name.rpartition(".")[0] for name in names(path)} & MODULES


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
    TopologicalSorter({module_of(path): imported(path) - {module_of(path)} for path in FILES}).prepare()


def test_private_parts_of_lightning_and_torch_have_one_room() -> None:
    """Imports such as `torch._C`, and attributes such as `torch._foreach_add`."""
    private = re.compile(r"(lightning|nn|torch)\.(.*\.)?_(?!_)")
    touching = set()
    for path in FILES:
        nodes = ast.walk(tree(path))
        attributes = [ast.unparse(n) for n in nodes if isinstance(n, ast.Attribute) and n.attr.startswith("_")]
        if any(map(private.match, [*names(path), *attributes])):
            touching.add(path.relative_to(ROOT).as_posix())
    winograd = "runs/winograd.py"  # which replaces the `_conv_forward` of single convolutions
    assert touching == {"internals/lightning.py", "internals/torch.py", winograd}


def test_paths_in_the_home_of_an_unknown_user_raise_no_error() -> None:
    """`Path.expanduser` raises RuntimeError for them; `expanded` does not."""
    assert not [path for path in FILES if ".expanduser()" in path.read_text()]


def test_files_fit_a_sitting() -> None:
    lines = {path.relative_to(ROOT): len(path.read_text().splitlines()) for path in FILES}
    long = [f"{path} has {count} lines" for path, count in lines.items() if count > 250]
    assert not long, "\n".join(long)
