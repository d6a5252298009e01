"""A run whose files are broken, or may not be read or written, is refused in one line, or used as far as it goes."""

import ctypes
import json
import os
import re
import shutil
import struct
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from cvcc_zoo.__main__ import main
from tests.conftest import Fit

COMMANDS = {
    "predict": ["predict", "run", "colours/test"],
    "report": ["report", "run"],
    "publish": ["publish", "run"],
    "evaluate": ["evaluate", "run"],
    "test": ["test", "--run=run", "--trainer.enable_progress_bar=false"],
    "resume": ["fit", "--config=run/config.yaml", "--ckpt_path=last"],
}
HEADER = "# cvcc-zoo fit --config config.yaml\n"


@pytest.fixture
def run(fit: Fit, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("CVCC_ZOO_HOME", str(tmp_path / "zoo"))
    assert fit("--model=linear", "--run=run") == 0
    return Path("run")


def without(group: str) -> Callable[[str], str]:
    return lambda text: re.sub(rf"(?m)^{group}:\n(  .*\n)*", "", text)


def refused(command: str, capsys: pytest.CaptureFixture[str]) -> bool:
    """Whether the command ended with a message of one line, and with no error that nobody expected."""
    capsys.readouterr()
    try:
        code: object = main(COMMANDS[command])
    except SystemExit as stop:
        code = stop.code
    lines = [line for line in capsys.readouterr().err.splitlines() if line and not line.startswith("INFO")]
    assert code in (0, 2) and (code == 0 or (len(lines) == 1 and lines[0].startswith("cvcc-zoo: error: "))), lines
    return code == 2


CONFIGS: list[Callable[[str], str]] = [
    lambda text: "",
    lambda text: HEADER,
    lambda text: f"{HEADER}- a\n",
    lambda text: f"{HEADER}a: [\n",
    lambda text: f"{HEADER}data: null\n",
    lambda text: HEADER + "x: " + 5000 * "[",
    lambda text: f"{HEADER}\udcff",
    lambda text: text.replace("data:\n", "data:\n  nonsense: 3\n"),
    without("data"),
]
SUMMARIES: list[str | dict[str, Any]] = [
    "", "{", "[]", "{}", "\udcff", 100_000 * "[", {"model": 3}, {"parameters": "many"}, {"images": [1]},
    {"data": {"train": 1}}, {"data": {}}, {"data": {"train": {}}}, {"test_accuracy": "good"}, {"epochs": None},
    {"test_per_class": 1}, {"changed": None},
]  # fmt: skip


def test_a_broken_config_is_told_by_those_who_need_it(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = run / "config.yaml"
    whole = config.read_text()
    for number, broken in enumerate(CONFIGS):
        config.write_text(broken(whole), errors="surrogateescape")
        asked = COMMANDS if number % 4 == 0 else ("report", "resume")
        told = {command for command in asked if refused(command, capsys)}
        assert told == {"report", "publish", "test", "resume"}.intersection(asked), broken(whole)[:100]


def test_a_broken_summary_is_told_and_written_anew_by_the_run(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    summary = run / "summary.json"
    whole = json.loads(summary.read_text())
    for number, broken in enumerate(SUMMARIES):
        text = broken if isinstance(broken, str) else json.dumps({**whole, **broken})
        summary.write_text(text, errors="surrogateescape")
        asked = ("predict", "report", *(("publish", "evaluate") if number % 4 == 0 else ()))
        told = {command for command in asked if refused(command, capsys)}
        assert told == {"report", "publish"}.intersection(asked), text[:100]
    assert not refused("resume", capsys) and json.loads(summary.read_text()).keys() == whole.keys()
    assert not refused("report", capsys)


@contextmanager
def as_others() -> Iterator[None]:
    """Root may read and write everything; here it may not, as others."""
    if os.geteuid():
        yield
        return
    libc = ctypes.CDLL(None, use_errno=True)
    header, rights = struct.pack("=Ii", 0x20080522, 0), ctypes.create_string_buffer(24)  # linux/capability.h
    assert libc.capget(header, rights) == 0
    before = bytes(rights)
    effective, *others = struct.unpack("=6I", before)
    assert libc.capset(header, struct.pack("=6I", effective & ~0b110, *others)) == 0  # DAC_OVERRIDE, DAC_READ_SEARCH
    try:
        yield
    finally:
        assert libc.capset(header, before) == 0


@contextmanager
def rights(path: Path, mode: int) -> Iterator[None]:
    before = path.stat().st_mode
    path.chmod(mode)
    try:
        with as_others():
            yield
    finally:
        path.chmod(before)


@pytest.mark.skipif(sys.platform != "linux", reason="root gives up its rights by Linux's capset")
def test_what_may_not_be_read_or_written_is_told(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with rights(run, 0o555):
        found = {command: refused(command, capsys) for command in COMMANDS}
        assert found == {**dict.fromkeys(COMMANDS, False), "resume": True}
        assert main(["predict", "run", "colours/test", "--output=run/out.csv"]) == 2
        assert "Permission denied: 'run/out.csv'; change its rights" in capsys.readouterr().err
        assert main(["fit", "--config=run/config.yaml", "--ckpt_path=last"]) == 2
        assert "cannot write into this folder: 'run'; change its rights" in capsys.readouterr().err
    with rights(run / "config.yaml", 0):
        assert {command for command in COMMANDS if refused(command, capsys)} == {"report", "publish", "test", "resume"}
    with rights(run / "summary.json", 0):
        assert {command for command in COMMANDS if refused(command, capsys)} == {"report", "publish"}
    shutil.copy("run/last.ckpt", "kept.ckpt")
    for name in ("best.ckpt", "last.ckpt"):
        with rights(run / name, 0):
            assert refused("predict" if name == "best.ckpt" else "resume", capsys)
    assert Path("kept.ckpt").read_bytes() == (run / "last.ckpt").read_bytes()
