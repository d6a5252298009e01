"""The map of the code, docs/map.md, from the first line of each module: `python -m benchmarks.map` writes it."""

import ast
from pathlib import Path

import cvcc_zoo
from tests.test_architecture import LEVELS

PACKAGE = Path(cvcc_zoo.__file__).parent
PAGE = Path(__file__).parents[1] / "docs" / "map.md"
INTRODUCTION = """# Map of the code

`python -m benchmarks.map` writes this page from the first line of each module, and a test compares it.

The package is divided into folders: each is about one topic, and new files go to the folder of their topic. Each folder
and each file at the root has a level, and imports only from lower levels or from its own folder.
`tests/test_architecture.py` holds the levels and checks the imports.

| beside the package | what is in it |
|---|---|
| `configs/` | Recipes, `<dataset>/<model>.yaml`; `linear/` fits linear classifiers, `fast/` CIFAR-10 in less time. |
| `docs/` | The tutorial, the guides and the reference, as pages or as a site: `mkdocs serve`. |
| `notebooks/` | The course in eight parts, with measurements and figures. |
| `benchmarks/` | Measurements against what a user would pick instead, and the programs that write tables of the docs. |
| `tests/` | One sentence about the world each; `reliability/` kills training runs, fills disks and forges files. |
| `hubconf.py` | The entry points of torch.hub. |"""


def summary(path: Path) -> str:
    """Return the first line of a module's docstring, fit for a cell of a table."""
    docstring = ast.get_docstring(ast.parse(path.read_text()))
    if not docstring:
        raise ValueError(f"{path} has no docstring; its first line is needed for the map")
    return docstring.splitlines()[0].replace("|", "\\|")


def room(folder: Path) -> str:
    """Return the section of a folder: its own docstring, and a table of its files."""
    files = sorted(path for path in folder.rglob("*.py") if path != folder / "__init__.py")
    names = [path.relative_to(folder).as_posix().removesuffix("__init__.py") for path in files]
    lines = [f"| `{name}` | {summary(path)} |" for name, path in sorted(zip(names, files, strict=True))]
    title = f"## Level {LEVELS[folder.name]}: `{folder.name}/`"
    return "\n".join([title, "", summary(folder / "__init__.py"), "", "| file | what is in it |", "|---|---|", *lines])


def page() -> str:
    """Return the whole page: the files at the root, then the rooms from the lowest level to the highest."""
    levels = sorted(LEVELS, key=lambda name: (LEVELS[name], name))
    modules = [PACKAGE / f"{name}.py" for name in levels if (PACKAGE / f"{name}.py").is_file()]
    lines = [f"| `{path.name}` | {LEVELS[path.stem]} | {summary(path)} |" for path in modules]
    root = ["## The root of the package", "", "| file | level | what is in it |", "|---|---:|---|", *lines]
    rooms = [room(PACKAGE / name) for name in levels if (PACKAGE / name).is_dir()]
    return "\n\n".join([INTRODUCTION, "\n".join(root), *rooms]) + "\n"


def main() -> None:
    """Write the page."""
    PAGE.write_text(page())
    print(f"written to docs/{PAGE.name}")


if __name__ == "__main__":
    main()
