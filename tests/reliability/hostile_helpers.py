"""Files that try to run code, to import, to fill the memory or to write elsewhere."""

import json
import struct
import sys
import zlib
from argparse import Namespace
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from cvcc_zoo.__main__ import main
from tests.reliability.hostile_archives import (
    Content,
    Touch,
    bare_pickle,
    claims,
    compressed,
    content,
    flipped,
    pickle_before,
    pickled,
    truncated,
    two_directories,
)

EVIL = """from pathlib import Path
import torch
Path(__file__).with_name("marker").touch()
class Optimizer(torch.optim.SGD): pass
class Schedule(torch.optim.lr_scheduler.StepLR): pass
def build(**options): return Optimizer
"""
PATH = "evil_module.Optimizer"
CALL = {"class_path": PATH, "init_args": {}}


def options(**changed: Any) -> Content:
    """A checkpoint with other hyperparameters."""
    right = content()
    return right | {"hyper_parameters": right["hyper_parameters"] | changed}


def tensors(**changed: Any) -> Content:
    """A checkpoint with other tensors; `__` stands for a dot."""
    right = content()
    return right | {"state_dict": right["state_dict"] | {key.replace("__", "."): v for key, v in changed.items()}}


def without(key: str) -> Content:
    """A checkpoint without one of its parts."""
    return {name: value for name, value in content().items() if name != key}


def laughs() -> Content:
    """Few bytes, and ten to the power of thirty values."""
    values: list[Any] = [0.1] * 10
    for _ in range(30):
        values = [values] * 10
    return options(loss={"name": "hinge", "margin": values})


def aliases() -> Content:
    """A run's config of few bytes, each part of which is made of the one before."""
    lines = ["a0: &a0 {x: 1}"] + [
        f"a{n}: &a{n} {{{', '.join(f'{key}: *a{n - 1}' for key in 'abcdefghij')}}}" for n in range(1, 10)
    ]
    return content() | {"callbacks": {"RunFolder": {"config": "\n".join(lines)}}}


def write_hostile(path: Path, made: Content | Callable[[Path], None]) -> None:
    """Write a file from what it holds, or by its own function; an object in it that acts would make `marker`."""
    if callable(made):
        made(path)
        return
    torch.save({key: Touch(path.with_name("marker")) if value is Touch else value for key, value in made.items()}, path)


def safetensors(header: Content | int, data: bytes = b"", encoded: bytes | None = None) -> bytes:
    """A file of safetensors from its header, or from the length that it claims for it."""
    text = encoded if encoded is not None else json.dumps(header).encode()
    return struct.pack("<Q", header if isinstance(header, int) else len(text)) + text + data


def png(width: int, height: int, *, depth: int = 8, colour: int = 0, rows: bytes | None = None) -> bytes:
    """A PNG of these rows; by default black and grey, a thousandth of its pixels in bytes."""

    def part(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    pixels = zlib.compress(bytes((width + 1) * height) if rows is None else rows, 1)
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + part(b"IHDR", header) + part(b"IDAT", pixels) + part(b"IEND", b"")


CHECKPOINTS: dict[str, tuple[Callable[[], Content | Callable[[Path], None]], str]] = {
    "object": (lambda: content() | {"callbacks": Touch}, "it names '__builtin__.getattr'"),
    "bare pickle": (lambda: bare_pickle, "torch.save did not write it"),
    "os.system": (lambda: pickled(lambda _: b"\x80\x02cos\nsystem\nX\x02\0\0\0id\x85R."), "it names 'os.system'"),
    "by name": (lambda: pickled(lambda _: b"\x80\x04\x8c\x02os\x8c\x06system\x93."), "it names 'STACK_GLOBAL'"),
    "import": (lambda: pickled(lambda _: b"\x80\x02cevil_module\nbuild\n)R."), "it names 'evil_module.build'"),
    "_instantiator": (lambda: options(_instantiator="evil_module.build"), "have '_instantiator': 'evil_module.build'"),
    "_class_path": (lambda: options(_class_path=PATH), "have '_class_path'"),
    "class_path": (lambda: options(class_path=PATH), "have 'class_path'"),
    "optimizer": (lambda: options(optimizer=CALL), "have 'class_path'"),
    "lr_scheduler": (lambda: options(lr_scheduler={"name": "StepLR", "inner": [CALL]}), "have 'class_path'"),
    "loss": (lambda: options(loss=CALL), "have 'class_path'"),
    "whitening": (lambda: options(whitening=CALL), "have 'class_path'"),
    "augmentations": (lambda: options(augmentations=[{"name": "Compose", "augmentations": [CALL]}]), "'class_path'"),
    "whitening by path": (lambda: options(whitening="evil_module.build"), "no whitening named 'evil_module.build'"),
    "family by path": (lambda: content() | {"cvcc_zoo": {"family": PATH}}, f"no model family named '{PATH}'"),
    "shape": (lambda: tensors(network__fc__weight=torch.zeros(3, 3)), r"fc.weight' is (3, 3), not (3, 64)"),
    "no tensor": (lambda: tensors(network__fc__weight=[1.0, 2.0]), "are not plain tensors"),
    "one too many": (lambda: tensors(more=torch.zeros(1)), "'more' is not in the model"),
    "integers": (lambda: tensors(network__fc__weight=torch.zeros(3, 64, dtype=torch.int64)), "is of type torch.int64"),
    "complex": (lambda: tensors(network__fc__weight=torch.zeros(3, 64) * 1j), "are not plain tensors"),
    "sparse": (lambda: tensors(network__fc__weight=torch.zeros(3, 64).to_sparse()), "_rebuild_sparse_tensor"),
    "10**15 by stride": (lambda: tensors(more=torch.zeros(1).expand(10**15)), "claims the shape (1000000000000000,)"),
    "10**15 in options": (
        lambda: content() | {"args": Namespace(more=torch.zeros(1).expand(10**15))},
        "claims the shape (1000000000000000,)",
    ),
    "10**15 by storage": (lambda: pickled(claims(10**15)), "does not match expected size"),
    "1.5 GB of bytes": (
        lambda: pickled(lambda _: b"\x80\x02c__builtin__\nbytearray\nJ" + struct.pack("<i", 1_500_000_000) + b"\x85R."),
        "it names '__builtin__.bytearray'",
    ),
    "zip bomb": (lambda: compressed, "it is larger when unpacked"),
    "many classes": (lambda: options(num_classes=2_000_000), "num_classes is 2000000, but files may have"),
    "large images": (lambda: options(image_size=40_000), "image_size is 40000, but files may have"),
    "large model": (lambda: options(num_classes=9_000), "is (3, 64), not (9000, 64)"),
    "deep model": (
        lambda: (
            (deep := content("resnet20"))
            | {"hyper_parameters": deep["hyper_parameters"] | {"depth": 6 * 10**9 + 2, "shortcut": "B"}}
        ),
        "a network with these hyperparameters has more tensors",
    ),
    "billion laughs": (laughs, "more than 10,000 values, or 10 levels deep"),
    "large number": (lambda: options(freeze=10**100), "a number of 333 bits"),
    "long text": (lambda: options(loss="x" * 10**6), "a text of 1,000,000 characters"),
    "wrong type": (lambda: options(image_size="8"), "image_size is '8'"),
    "negative": (lambda: options(num_classes=-1), "num_classes must be at least 2, got -1"),
    "no options": (lambda: without("hyper_parameters"), "it has no hyper_parameters"),
    "no tensors": (lambda: without("state_dict"), "it has no state_dict"),
    "no family": (lambda: content() | {"cvcc_zoo": None}, "does not name a model family"),
    "a list": (lambda: pickled(lambda _: b"\x80\x02]."), "does not name a model family"),
    "stack": (lambda: pickled(lambda _: b"\x80\x02(."), "cannot be read as a checkpoint of plain data"),
    "flipped bit": (lambda: flipped, "is damaged: a/data/"),
    "two directories": (lambda: two_directories, "torch.save did not write it, or not completely"),
    "pickle before": (lambda: pickle_before, "it has two end records that do not agree"),
    "million lists": (lambda: pickled(lambda _: b"\x80\x02(" + b"]" * 10**7 + b"l."), "more than 200,000 instructions"),
    "million sets": (
        lambda: pickled(lambda _: b"\x80\x02(" + b"c__builtin__\nset\n)R" * 10**5 + b"l."),
        "more than 200,000 instr",
    ),
    "orientations": (
        lambda: options(features=[{"name": "HOG", "orientations": 10**9}]),
        "orientations must be a whole number from 1 to 255",
    ),
    "channels": (lambda: options(in_channels=200, image_size=4096), "its images have 200 x 4096 x 4096 values"),
    "truncated": (lambda: truncated, "torch.save did not write it, or not completely"),
    "empty": (lambda: Path.touch, "torch.save did not write it, or not completely"),
}
"""What a checkpoint tries, and the message that answers it."""

BOMBS = ("10**15 by stride", "10**15 in options", "10**15 by storage", "1.5 GB of bytes", "zip bomb", "many classes",
         "large images", "large model", "deep model", "billion laughs", "long text", "two directories", "pickle before",
         "million lists", "million sets", "orientations", "channels")  # fmt: skip
"""Those that would take memory or time."""


def write_checkpoint(path: Path, name: str) -> None:
    """Write one of the above."""
    write_hostile(path, CHECKPOINTS[name][0]())


@pytest.fixture(autouse=True)
def nothing_acts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A module that leaves a marker when it is imported can be found; after the test, nobody has."""
    folder = tmp_path / "evil"
    folder.mkdir()
    (folder / "evil_module.py").write_text(EVIL)
    monkeypatch.syspath_prepend(folder)
    yield
    assert "evil_module" not in sys.modules and not list(tmp_path.rglob("marker"))


def answer(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line that a command says when it fails."""
    capsys.readouterr()
    assert main(list(arguments)) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("cvcc-zoo: error: ") and printed.count("\n") == 1 and len(printed) < 1500
    return printed
