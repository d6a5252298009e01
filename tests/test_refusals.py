"""Messages of jsonargparse are recognised: each is provoked here, so that a release with other words is noticed."""

import re
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import NoReturn

import pytest
import yaml
from lightning import Callback

from cvcc_zoo import runs
from cvcc_zoo.cli.options import parser
from cvcc_zoo.cli.parsing import ZooParser
from cvcc_zoo.cli.refusals import MESSAGES, OURS, check_text, explain
from cvcc_zoo.commands import train_zoo

BROKEN = "trainer: {max_epochs: 1\nmodel: linear\n"
PROVOKED: dict[str, list[Sequence[str]]] = {
    "required": [["--trainer.callbacks+=EarlyStopping"]],
    "argument": [["--optimiser=SGD"]],
    "key": [
        ["--config=unknown.yaml"],
        ["--model=cvcc_zoo.models.resnet.ResNet", "--model.depht=20"],
        ["--trainer.callbacks+=Timer", "--trainer.callbacks.x=1"],
    ],
    "group": [["--data=cifar10"]],
    "no group": [["--config=number.yaml"]],
    "syntax": [["--config=broken.yaml"]],
    "line": [["--config=broken.yaml"]],
    "no file": [["--config=nowhere.yaml"]],
    "folder": [["--config=."]],
    "no options": [["--config=empty.yaml"]],
    "option": [["--data.batch_size=many"]],
    "value": [["--data.batch_size=many"], ["--trainer.max_epochs=many"]],
    "type": [["--data.batch_size=many"]],
    "choices": [["--trainer.precision=17"]],
    "class": [["--trainer.callbacks+=EarlyStoping"]],
    "no subclass": [["--trainer.callbacks+=torch.nn.Linear"], ["--trainer.callbacks=[EMA, torch.nn.Linear]"]],
    "import": [["--trainer.callbacks+=nowhere.Mine"]],
}

OF_CONSTRUCTORS = {"constructor", "other kind"}
"""These occur as a class is made, after the options were read: tests/test_trainer_options.py provokes them."""


@pytest.fixture
def files() -> None:
    Path("broken.yaml").write_text(BROKEN)
    Path("empty.yaml").write_text("7\n")
    Path("number.yaml").write_text("data: 3\n")
    Path("unknown.yaml").write_text("optimiser: SGD\n")


def test_every_message_is_provoked() -> None:
    assert {*PROVOKED, "no text", *OF_CONSTRUCTORS} == MESSAGES.keys()


@pytest.mark.parametrize(("kind", "args"), [(kind, args) for kind, each in PROVOKED.items() for args in each])
def test_jsonargparse_says_it_in_these_words(
    kind: str, args: Sequence[str], files: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []

    def error(self: ZooParser, message: str, ex: Exception | None = None) -> NoReturn:
        said.append(message)
        assert "\n" not in explain(message, self), f"jsonargparse {version('jsonargparse')} is not explained: {message}"
        raise SystemExit(2)

    monkeypatch.setattr(ZooParser, "error", error)
    with pytest.raises(SystemExit):
        parser("fit").parse_args(args)
    words = f"jsonargparse {version('jsonargparse')} does not say {MESSAGES[kind]!r} any more, but {said}"
    assert any(re.search(MESSAGES[kind], message) for message in said), words


def test_a_value_without_a_text_is_recognised_in_a_config() -> None:
    made = ZooParser(parser_mode="yaml")
    made.add_argument("--value", type=object, default=object())
    with pytest.warns(UserWarning, match="Unable to serialize"):
        text = made.dump(made.parse_args([]))
    with pytest.raises(ValueError, match="the option value is <object object at"):
        check_text(text)


def test_a_name_that_is_not_utf8_is_recognised_in_a_config() -> None:
    check_text(yaml.safe_dump({"root": r"C:\uDCFC"}))
    with pytest.raises(ValueError, match=r"the name 'im\\udcfc' is not UTF-8, so config.yaml cannot hold it; rename"):
        check_text(yaml.safe_dump({"root": "im\udcfc"}))


def test_a_message_that_is_not_known_stays() -> None:
    assert explain(" something new \n", parser("fit")) == "something new"


def test_an_option_is_suggested_only_where_it_exists_and_is_not_what_was_typed() -> None:
    assert "did you mean optimizer.lr" in explain("unrecognized arguments: --optimiser.lr=3", parser("fit"))
    assert "optimizer.lr or" not in explain("unrecognized arguments: --optimiser.lr=3", train_zoo.parser())
    for typed in ("--model = resnet20", "----model=resnet20"):
        said = explain(f"unrecognized arguments: {typed}", parser("fit"))
        assert said == "write --model=VALUE, without spaces or more dashes"


@pytest.mark.parametrize("program", ["cvcc-zoo", "__main__.py"])  # as the installed script, and by `python -m`
def test_an_option_that_a_chosen_class_lacks_is_named_with_its_flag(program: str) -> None:
    message = "the following arguments are required: save_dir"
    assert "also needs save_dir: --trainer.callbacks.save_dir=... or" in explain(message, ZooParser(prog=program))
    assert explain(message, parser("fit")) == message


def test_our_callbacks_that_are_suggested_exist() -> None:
    """Their names are written out, because their modules take seconds to import."""
    assert all(issubclass(getattr(runs, name), Callback) for name in OURS["callbacks"])
