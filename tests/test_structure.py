"""The figures of the package's structure, on a small package of which they are known."""

import importlib
import json
import sys
from pathlib import Path

import pytest

from benchmarks import structure
from benchmarks.imports import circles, draw, essential, file_imports, levels, parse, room_imports
from benchmarks.private import touches
from benchmarks.structure import Found, main, measure, trace

FILES = {
    "__init__.py": "from tiny.zoo import create\n",
    "zoo.py": '''
from tiny.models.resnet import ResNet
from tiny.weights import read


def create(name):
    """Create a model."""  # with its weights
    return [read(each) for each in [name]], ResNet(20), ResNet(32)
''',
    "weights.py": '''
def read(name):
    """What a file holds."""
    from tiny.files import find

    return find(name), list(several())


def several():
    """Yield nothing."""
    yield from ()
''',
    "files.py": '''
def find(name, a=1, b=2, c=3, d=4, *rest, e=5, f=6, **options):
    """Find a file, and import in a circle."""
    import tiny.weights


class Finder:
    def find(self, a, b, c, d, e, f, *rest, **options):
        """Whatever."""
''',
    "models/__init__.py": "",
    "models/network.py": '''
class Module:
    def __init__(self):
        pass


class Network(Module):
    def __init__(self, width):
        super().__init__()
        layer()


def layer():
    """Whether there is one."""
''',
    "models/resnet.py": """
from .network import Module, Network


class ResNet(Module):
    def __init__(self, depth, width=1, **options):
        self.network = Network(width)
""",
}
TOUCHING = """
import os
import lightning
import torch
from lightning import Callback
from lightning.fabric.utilities.rank_zero import rank_zero_only
from torch._utils import load
from tiny._hidden import mine


class Ours(Callback):
    def __init__(self):
        self._own = 1

    def _called_by_us(self):
        return super()._called_by_lightning()

    def _called_by_lightning(self):
        return self._called_by_us()


def use(x, trainer):
    fine = x._own, x.__dict__, x.__class__, vars(x), getattr(x, "public"), os._exit, _own_function, "_text" in x
    others = x._other, torch._foreach_add, getattr(x, "_state"), type(x).__name__ == "_Launcher"
    return trainer.fit_loop, x["epoch_loop.batch_progress"], vars(trainer), vars(x.trainer), rank_zero_only.__dict__


def _own_function():
    x._set_elsewhere = 1
"""
TOUCHED = [
    "_Launcher", "_called_by_lightning", "_foreach_add", "_other", "_set_elsewhere", "_state", "batch_progress",
    "epoch_loop", "fit_loop", "rank_zero_only.__dict__", "torch._utils.load", "vars(trainer)", "vars(x.trainer)",
]  # fmt: skip


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, text in FILES.items():
        path = tmp_path / "tiny" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tmp_path / "README.md").write_text("`zoo`, weights.py and models/\n")
    (tmp_path / "CHANGELOG.md").write_text("The zoo, the weights and the models are new; `files` too\n")
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_levels.py").write_text("LEVELS = [['files'], ['weights', 'models']]\n")
    (tmp_path / "tests" / "test_names.py").write_text("A = ['files', 'weights']\nB = ['models', 'zoo']\n")
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.partition(".")[0] == "tiny"]:
        monkeypatch.delitem(sys.modules, name)
    return tmp_path / "tiny"


@pytest.fixture
def found(root: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Found]:
    create = importlib.import_module("tiny").create
    monkeypatch.setattr(structure, "trace_create", lambda root, name: trace(lambda: create(name), root))
    return measure(root)


def test_the_figures_are_those_of_the_package(found: dict[str, Found]) -> None:
    assert {title: figure.value for title, figure in found.items()} == {
        "modules at the root of the package": 3,
        "files": 7,
        "lines": sum(len(text.splitlines()) for text in FILES.values()),
        'steps of create("resnet20.cifar10")': 4,
        "rooms of these steps": 4,
        "functions called to construct networks": 3,
        'networks built by the first create("wrn16_4.cifar10")': 2,
        "import circles among files": 1,
        "functions with more than 6 parameters": 1,
        "share of functions with more than 6 parameters, %": 11.1,
        "private touches into other libraries": 0,
        "files with private touches": 0,
        "uses of torch._foreach_*": 0,
        "places that hold the map of files": 2,
        "lines of models/resnet.py": len(FILES["models/resnet.py"].splitlines()),
        "options of ResNet": 2,
        "docstrings that begin with What, Whether, How, That": 2,
        "share of these docstrings, %": 33.3,
        "lines with a comment, %": 2.0,
    }


def test_what_is_counted_has_names(found: dict[str, Found]) -> None:
    names = {title.partition("(")[0].strip(): figure.names for title, figure in found.items()}
    assert names["steps of create"] == [
        "zoo.py: create", "weights.py: read", "files.py: find", "models/resnet.py: ResNet.__init__"
    ]  # fmt: skip
    assert names["rooms of these steps"] == ["files", "models", "weights", "zoo"]
    assert names["import circles among files"] == ["files.py - weights.py"]
    assert names["functions with more than 6 parameters"] == ["files.py:2 find (7)"]
    assert names["places that hold the map of files"] == ["README.md", "tests/test_levels.py"]


def test_private_parts_of_others_are_told_from_our_own(root: Path) -> None:
    (root / "touching.py").write_text(TOUCHING)
    assert touches(parse(root), "tiny") == {"touching.py": TOUCHED}


def test_rooms_have_levels_and_implied_imports_are_left_out() -> None:
    rooms = {"top": {"middle", "low"}, "middle": {"low"}, "low": set[str](), "a": {"b", "low"}, "b": {"a"}}
    assert circles(rooms) == [["a", "b"]]
    assert levels(rooms) == {"top": 2, "middle": 1, "low": 0, "a": 1, "b": 0}
    assert essential(rooms) == {"top": {"middle"}, "middle": {"low"}, "low": set(), "a": {"b", "low"}, "b": {"a"}}


def test_the_picture_has_every_room_and_the_circle(root: Path, tmp_path: Path) -> None:
    files = file_imports(parse(root), "tiny")
    assert room_imports(files) == {
        "zoo": {"models", "weights"}, "weights": {"files"}, "files": {"weights"}, "models": set()
    }  # fmt: skip
    draw(files, tmp_path / "rooms.svg")
    drawn = (tmp_path / "rooms.svg").read_text()
    assert all(f"<!-- {name}" in drawn for name in ("zoo", "weights", "files", "models", "3 files"))
    assert "circles: files - weights" in drawn


@pytest.mark.usefixtures("found")
def test_the_command_prints_a_table_or_json(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["--package", str(root), "--names"])
    shown = capsys.readouterr().out
    assert "| files | 7 |\n" in shown and "import circles among files:\n  files.py - weights.py\n" in shown
    main(["--package", str(root), "--json"])
    assert json.loads(capsys.readouterr().out)["import circles among files"] == 1


def test_a_fresh_process_traces_the_first_call(root: Path) -> None:
    found = structure.trace_create(root, "resnet20.cifar10")
    assert len(found.steps) == 4 and found.networks == 2
