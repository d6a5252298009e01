"""What the files of others say is printed as it is: it commands no terminal, and is no markup."""

import io
import json
import warnings
from pathlib import Path

import pytest
from rich.table import Table

from cvcc_zoo.__main__ import main
from cvcc_zoo.printing import first_line, harmless, say
from cvcc_zoo.printing.console import PlainConsole
from cvcc_zoo.printing.notices import quiet
from tests.conftest import Fit

EVIL = "[/red]\x1b[2J\x1b]0;title\x07 :smile: \u202egpj"


def test_what_commands_a_terminal_is_written_as_its_number() -> None:
    assert harmless(EVIL) == r"[/red]\x1b[2J\x1b]0;title\x07 :smile: \u202egpj"
    for text in ("plain", "猫 and कुत्ता", "two\nlines\tand a tab", "Löwe", "👩‍🔬", ""):
        assert harmless(text) == text
    assert harmless("\x9b31m\r\x7f\udc80") == r"\x9b31m\r\x7f\udc80"


def test_the_first_line_of_an_error_is_never_missing() -> None:
    assert first_line(ValueError("one line.\nanother")) == first_line(KeyError("one line"))[1:-1] == "one line"
    assert first_line(RuntimeError("\n  file could not be opened:\n- method gz")) == "file could not be opened"
    assert first_line(RuntimeError()) == first_line(RuntimeError("\n ")) == "RuntimeError"


def test_lines_and_tables_show_it(capsys: pytest.CaptureFixture[str]) -> None:
    say(EVIL)
    say(EVIL, error=True)
    printed = capsys.readouterr()
    assert printed.out == printed.err == harmless(EVIL) + "\n"
    file = io.StringIO()
    table = Table(title=EVIL)
    table.add_column(EVIL)
    table.add_row(EVIL)
    console = PlainConsole(file=file, width=200)
    console.print(table)
    console.print(EVIL)
    assert file.getvalue().count(harmless(EVIL)) == 4 and "\x1b" not in file.getvalue()


def test_one_card_does_not_spoil_the_list_of_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from cvcc_zoo.weights.card import PUBLISHED

    monkeypatch.setenv("CVCC_ZOO_HOME", str(tmp_path))
    card = json.loads((PUBLISHED / "linear.cifar10.json").read_text()) | {"name": "linear.evil", "dataset": EVIL}
    (tmp_path / "linear.evil.json").write_text(json.dumps(card))
    assert main(["list", "--pretrained"]) == 0
    printed = capsys.readouterr().out
    assert "linear.evil" in printed and "resnet20.cifar10" in printed and "\x1b" not in printed and "[/red]" in printed


def test_a_run_may_be_called_like_markup(fit: Fit, capsys: pytest.CaptureFixture[str]) -> None:
    assert fit("--model=linear", "--run=runs/[red]x") == 0
    assert "runs/[red]x" in capsys.readouterr().out


def test_how_torch_stores_gradients_on_several_devices_is_no_news_for_users() -> None:
    with warnings.catch_warnings():
        quiet()
        warnings.warn("Grad strides do not match bucket view strides. This may indicate ...", UserWarning, stacklevel=1)
