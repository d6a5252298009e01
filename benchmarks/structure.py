"""Figures of how the package is built: `python -m benchmarks.structure`, or `--package FOLDER` for another checkout.

Most come from the syntax trees of its files. Those of `create` come from a fresh process that has imported the package
and calls `create` once. A step is a function of the package that is called, counted once; generators, comprehensions
and generated methods, such as those of dataclasses, are left out. The `__init__` of a model or layer is a step, but
what it calls in turn constructs networks and is counted apart. The rooms are the folders and modules at the root that
hold the steps.
"""

import argparse
import ast
import inspect
import io
import json
import re
import sys
import tokenize
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path
from types import FrameType
from typing import Any

from benchmarks.imports import circles, draw, file_imports, parse, room
from benchmarks.private import touches

PACKAGE = Path(__file__).parents[1] / "cvcc_zoo"
MODEL_FILE, MODEL_CLASS = "models/resnet.py", "ResNet"
NAME, LARGE = "resnet20.cifar10", "wrn16_4.cifar10"
MOST = 6  # parameters of a function
OPENINGS = ("What", "Whether", "How", "That")
"""First words of a docstring that does not say what the function does."""
Trees = dict[str, ast.Module]


@dataclass(frozen=True)
class Found:
    """A figure, and the names of what it counts where there are any."""

    value: float | str
    names: list[str] = field(default_factory=list)


@dataclass
class Trace:
    """The functions of a package that were called, by file and name, and what they built."""

    steps: list[str] = field(default_factory=list)
    construction: list[str] = field(default_factory=list)
    """Functions that were called only while a module's `__init__` ran."""
    networks: int = 0
    """Instances of subclasses of a class called Network."""


def trace(call: Callable[[], object], root: Path) -> Trace:
    """Call a function and return what it called in the package in this folder."""
    found, folder, inside = Trace(), f"{root.resolve()}/", 0
    left_out = inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR

    def profile(frame: FrameType, event: str, _: Any) -> None:
        nonlocal inside
        code = frame.f_code
        if event not in ("call", "return") or not code.co_filename.startswith(folder):
            return
        kind: Any = type(frame.f_locals.get("self"))
        bases = [base.__name__ for base in kind.__mro__]
        constructs = code.co_name == "__init__" and "Module" in bases
        if event == "return":
            inside -= constructs
            return
        is_function = code.co_flags & inspect.CO_OPTIMIZED and not code.co_flags & left_out
        if is_function and (not code.co_name.startswith("<") or code.co_name == "<lambda>"):
            names = found.construction if inside else found.steps
            name = f"{code.co_filename.removeprefix(folder)}: {code.co_qualname}"
            names += [name] if name not in names else []
        found.networks += constructs and "Network" in bases and kind.__init__.__code__ is code  # not that of a base
        inside += constructs

    sys.setprofile(profile)
    try:
        call()
    finally:
        sys.setprofile(None)
    found.construction = [name for name in found.construction if name not in found.steps]
    return found


def _trace_create(root: Path, name: str) -> Trace:
    sys.path.insert(0, str(root.parent))
    create = import_module(root.name).create
    return trace(lambda: create(name), root)


def trace_create(root: Path, name: str) -> Trace:
    """Return what the first `create(name)` of a package calls, in a fresh process."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_trace_create, root, name).result()


def functions(trees: Trees) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Yield every function and method with its file and name."""
    for file, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield f"{file}:{node.lineno} {node.name}", node


def parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Return how many named parameters a function has; `self`, `cls`, `*args` and `**kwargs` do not count."""
    arguments = function.args
    names = [each.arg for each in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
    return len(names) - (names[:1] in (["self"], ["cls"]))


def opens_badly(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Return whether a docstring begins with one of OPENINGS."""
    return re.split(r"\W", ast.get_docstring(function) or "", maxsplit=1)[0] in OPENINGS


def comments(text: str) -> int:
    """Return how many lines of a source have a comment."""
    return sum(token.type == tokenize.COMMENT for token in tokenize.generate_tokens(io.StringIO(text).readline))


def maps(repository: Path, names: set[str]) -> list[str]:
    """Return the files that hold the map: more than half of the names at the root of the package in one place.

    In a page that is `name.py`, `name/` or the name in backticks; in a test, texts of one dict, list, set or tuple.
    """
    found = []
    for path in sorted([*repository.glob("*.md"), *repository.glob("docs/*.md")]):
        text = path.read_text()
        listed = {name for name in names if re.search(rf"(?<![\w/.-]){name}(\.py\b|/)|`{name}`", text)}
        found += [path] if 2 * len(listed) > len(names) else []
    for path in sorted(repository.glob("tests/*.py")):
        literals = [
            n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Dict | ast.List | ast.Set | ast.Tuple)
        ]
        texts = [{n.value for n in ast.walk(literal) if isinstance(n, ast.Constant)} for literal in literals]
        found += [path] if any(2 * len(names & each) > len(names) for each in texts) else []
    return [path.relative_to(repository).as_posix() for path in found]


def measure(root: Path) -> dict[str, Found]:
    """Return all figures of the package in a folder, by what they count."""
    trees, sources = parse(root), {path.relative_to(root).as_posix(): path.read_text() for path in root.rglob("*.py")}
    lines = {file: len(text.splitlines()) for file, text in sources.items()}
    every = dict(functions(trees))
    modules = sorted(file for file in trees if "/" not in file and not file.startswith("__"))
    way, large = trace_create(root, NAME), trace_create(root, LARGE)
    rooms = sorted({room(step.partition(":")[0]) for step in way.steps})
    around = [" - ".join(circle) for circle in circles(file_imports(trees, root.name))]
    wide = [f"{name} ({parameters(node)})" for name, node in every.items() if parameters(node) > MOST]
    touched = [f"{file}: {name}" for file, names in touches(trees, root.name).items() for name in names]
    operators = [each for each in touched if ": _foreach_" in each]
    others = [each for each in touched if each not in operators]
    places = maps(root.parent, {room(file) for file in trees if not file.startswith("__")})
    model = next(n for n in ast.walk(trees[MODEL_FILE]) if isinstance(n, ast.ClassDef) and n.name == MODEL_CLASS)
    options = next(n for n in model.body if isinstance(n, ast.FunctionDef) and n.name == "__init__")
    documented = [node for node in every.values() if ast.get_docstring(node)]
    bad = [name for name, node in every.items() if opens_badly(node)]
    with_comment = sum(map(comments, sources.values()))
    return {
        "modules at the root of the package": Found(len(modules), modules),
        "files": Found(len(trees)),
        "lines": Found(sum(lines.values())),
        f'steps of create("{NAME}")': Found(len(way.steps), way.steps),
        "rooms of these steps": Found(len(rooms), rooms),
        "functions called to construct networks": Found(len(way.construction), way.construction),
        f'networks built by the first create("{LARGE}")': Found(large.networks),
        "import circles among files": Found(len(around), around),
        f"functions with more than {MOST} parameters": Found(len(wide), wide),
        f"share of functions with more than {MOST} parameters, %": Found(_percent(len(wide), len(every))),
        "private touches into other libraries": Found(len(others), others),
        "files with private touches": Found(len({each.partition(":")[0] for each in others})),
        "uses of torch._foreach_*": Found(len(operators), operators),
        "places that hold the map of files": Found(len(places), places),
        f"lines of {MODEL_FILE}": Found(lines[MODEL_FILE]),
        f"options of {MODEL_CLASS}": Found(parameters(options)),
        f"docstrings that begin with {', '.join(OPENINGS)}": Found(len(bad), bad),
        "share of these docstrings, %": Found(_percent(len(bad), len(documented))),
        "lines with a comment, %": Found(_percent(with_comment, sum(lines.values()))),
    }


def _percent(part: int, whole: int) -> float:
    return round(100 * part / whole, 1)


def main(args: Sequence[str] | None = None) -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--package", type=Path, default=PACKAGE, help="folder of the package (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--names", action="store_true", help="print what is counted too")
    parser.add_argument("--graph", type=Path, help="file for a picture of the imports between rooms, .png or .svg")
    options = parser.parse_args(args)
    root = options.package.resolve()
    found = measure(root)
    if options.graph:
        draw(file_imports(parse(root), root.name), options.graph)
    if options.json:
        print(json.dumps({title: asdict(f) if options.names else f.value for title, f in found.items()}, indent=2))
        return
    print("| | |\n|---|---:|")
    for title, figure in found.items():
        print(f"| {title} | {figure.value:,} |" if isinstance(figure.value, int) else f"| {title} | {figure.value} |")
    if options.names:
        for title, figure in found.items():
            if figure.names:
                print(f"\n{title}:", *figure.names, sep="\n  ")


if __name__ == "__main__":
    main()
