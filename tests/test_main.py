"""The program starts and ends without a search for garbage; as a function it leaves the collector alone."""

import errno
import gc
import io
import subprocess
import sys
from importlib.metadata import Distribution, PackageNotFoundError
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn

import pytest
import torch
from lightning import Trainer

import cvcc_zoo
from cvcc_zoo.__main__ import main, meant_for_users
from cvcc_zoo.commands import imported
from cvcc_zoo.printing.console import PlainConsole
from cvcc_zoo.runs.summary import conditions


def test_what_is_imported_is_not_searched_for_garbage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "looks_at_gc.py").write_text("import gc\nENABLED = gc.isenabled()\n")
    (tmp_path / "fails.py").write_text("raise ImportError('broken')\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert gc.isenabled() and not imported("looks_at_gc").ENABLED and gc.isenabled()
    with pytest.raises(ImportError, match="broken"):
        imported("fails")
    assert gc.isenabled()
    gc.disable()
    try:
        assert imported("looks_at_gc") and not gc.isenabled()  # who has switched it off keeps it so
    finally:
        gc.enable()


WITH_TRITON = pytest.mark.skipif(
    torch.accelerator.is_available() or not find_spec("triton"), reason="imported as ever, or absent"
)


def after_a_fit(folder: Path, code: str) -> None:
    """Run Python code after a training on a CPU, in a program that says nothing about triton."""
    words = ["fit", "--model=linear", "--data.dataset=fashion-mini", "--trainer.fast_dev_run=true", "--test=false"]
    fit = f"""
import sys
from cvcc_zoo.__main__ import main
assert main({[*words, f"--run={folder / 'run'}"]}) == 0
assert "torch._dynamo" in sys.modules and "triton" not in sys.modules
"""
    shown = subprocess.run([sys.executable, "-c", fit + code], capture_output=True, text=True, check=False)
    assert shown.returncode == 0, shown.stderr
    assert "triton not found" not in shown.stderr


@WITH_TRITON
def test_triton_is_not_imported_for_a_cpu(tmp_path: Path) -> None:
    """The program is silent about it, and who imports it later gets it."""
    after_a_fit(tmp_path, "import triton")


@pytest.mark.slow
@WITH_TRITON
def test_a_network_is_compiled_without_triton_for_a_cpu(tmp_path: Path) -> None:
    code = """
import torch
f = torch.compile(lambda x: (x.sin() + 1).sum())
x = torch.arange(10.0)
assert torch.allclose(f(x), (x.sin() + 1).sum())
import triton
"""
    after_a_fit(tmp_path, code)


def test_only_the_program_freezes_its_objects(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls: list[str] = []
    monkeypatch.setattr(gc, "freeze", lambda: calls.append("freeze"))
    monkeypatch.delitem(sys.modules, "triton", raising=False)
    assert main(["--help"]) == 0 and calls == []
    monkeypatch.setattr(sys, "argv", ["cvcc-zoo", "--help"])
    assert main() == 0 and calls == ["freeze"]
    monkeypatch.setattr(sys, "argv", ["cvcc-zoo", "nothing"])
    assert main() == 2 and calls == ["freeze", "freeze"]
    assert "no command named 'nothing'" in capsys.readouterr().err


def test_a_character_that_the_terminal_does_not_know_is_printed_as_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    def show(args: list[str]) -> int:
        PlainConsole().print(args[0])
        return 0

    printed = io.BytesIO()
    monkeypatch.setattr(gc, "freeze", lambda: None)
    monkeypatch.setattr("cvcc_zoo.__main__.run", show)
    monkeypatch.setattr(sys, "argv", ["cvcc-zoo", "Löwe 猫"])
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(printed, encoding="iso-8859-1", write_through=True))
    assert main() == 0 and printed.getvalue() == b"L\xf6we \\u732b\n"


@pytest.mark.skipif(not find_spec("triton"), reason="absent")
def test_the_program_ends_without_a_word_about_triton() -> None:
    """Its bindings, of nanobind since 3.9, look at the end for objects that were not freed."""
    code = (
        "import sys, triton._C.libtriton; sys.argv = ['cvcc-zoo', '--version']; "
        "from cvcc_zoo.__main__ import main; sys.exit(main())"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.startswith("cvcc_zoo ") and not shown.stderr


def test_what_is_printed_and_run_at_the_end_is_there() -> None:
    code = (
        "import atexit, sys; atexit.register(print, 'at exit'); sys.argv = ['cvcc-zoo', '--version']; "
        "from cvcc_zoo.__main__ import main; sys.exit(main())"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.startswith("cvcc_zoo ") and shown.endswith("at exit\n")


def test_a_closed_output_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    assert main(["list", "linear"]) == 0


CLOSED = """
import os, sys
from cvcc_zoo.__main__ import main
sys.argv = ["cvcc-zoo", "--version"]
assert main() == 0
assert not sys.stdin.isatty() and not sys.stdout.isatty() and not sys.stderr.isatty()
assert [os.fstat(number).st_rdev for number in range(3)] == 3 * [os.stat(os.devnull).st_rdev]
"""


def test_closed_streams_of_the_program_lead_nowhere() -> None:
    shell = ["sh", "-c", 'exec "$0" -c "$1" <&- >&- 2>&-', sys.executable, CLOSED]
    assert subprocess.run(shell, check=False).returncode == 0


def test_an_output_on_a_full_disk_is_told() -> None:
    full = OSError(errno.ENOSPC, "No space left on device")  # as rich raises it, without the name of a file
    assert str(meant_for_users(full)).startswith("the output cannot be written: [Errno 28] No space left on device; ma")
    assert meant_for_users(OSError(errno.EPERM, "")) is None


def test_a_folder_that_was_removed_is_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert main(["fit", "--model=linear"]) == 2
    error = capsys.readouterr().err
    assert "the current folder no longer exists; change to another folder with cd" in error and "Traceback" not in error


READING = """
from pathlib import Path
from cvcc_zoo.__main__ import main

tiny = ["--model=linear", "--trainer.max_epochs=1", "--trainer.limit_train_batches=2"]
Path("größe.yaml").write_text("# 日本 Ý\\ndata: {batch_size: 64}", encoding="utf-8")
Path("raum.yaml").write_text("# größe\\noptimizer.lr: [0.1]", encoding="utf-8")
assert main(["fit", *tiny, "--config=größe.yaml", "--run=run"]) == 0
assert main(["search", *tiny, "--space=raum.yaml", "--folder=search"]) == 0
assert main(["report", "run", "--output=page.html"]) == 0
"""


@pytest.mark.skipif(not find_spec("plotly"), reason="a report needs it")
def test_files_are_utf8_in_every_locale(tmp_path: Path) -> None:
    """Python says where it reads or writes text in the encoding of the locale, which on Windows is not UTF-8."""
    command = [sys.executable, "-X", "warn_default_encoding", "-W", "always::EncodingWarning", "-c", READING]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr
    warned = [line for line in done.stderr.splitlines() if "EncodingWarning" in line]
    assert not [line for line in warned if "jsonargparse" in line or "cvcc_zoo" in line]


def test_a_checkout_that_is_not_installed_has_a_version(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is found by PYTHONPATH, and has no metadata."""

    def not_installed(name: str) -> NoReturn:
        raise PackageNotFoundError(name)

    trainer = Trainer(logger=False, enable_checkpointing=False, enable_model_summary=False)
    monkeypatch.setattr(Distribution, "from_name", not_installed)
    assert conditions(trainer, {})["versions"]["cvcc_zoo"] == cvcc_zoo.__version__
    assert main(["--version"]) == 0 and cvcc_zoo.__version__ in capsys.readouterr().out
