"""What a search is told wrongly is answered with advice; spaces and options come in several forms."""

from pathlib import Path

import pytest
from jsonargparse import get_loader

from cvcc_zoo.__main__ import main
from cvcc_zoo.cli.passing import split
from cvcc_zoo.commands import find_lr, train_zoo
from cvcc_zoo.search.record import read_trials
from cvcc_zoo.search.running import config_of
from cvcc_zoo.search.space import text_of
from tests.test_search import TINY, run


@pytest.mark.parametrize(
    ("space", "more", "advice"),
    [
        ("{}", [], "the space has no options"),
        ("{a: [", [], "the space is not valid YAML"),
        ("nowhere.yaml", [], "there is no file nowhere.yaml"),
        ("{optimizer.lr: []}", [], "optimizer.lr has an empty list"),
        ("{optimizer.lr: 0.1}", [], "optimizer.lr is searched over a list of values"),
        ("{data.batch_size: [64, 64]}", [], "data.batch_size has 64 twice"),
        ("{data.batchsize: [64]}", [], "no option named 'data.batchsize'; did you mean data.batch_size"),
        ("{optimizer.lrr: [0.1]}", [], "no option of optimizer AdamW named 'lrr'; did you mean lr?"),
        ("{model: [linear, liner]}", [], "no model named 'liner'; did you mean linear"),
        ("{optimizer.lr: {from: 1e-4, too: 1e-1}}", [], "optimizer.lr is searched over a list of values"),
        ("{optimizer.lr: {from: 0.1, to: 0.2, logs: true}}", [], "no key of the range optimizer.lr named 'logs'"),
        ("{optimizer.lr: {from: 0.2, to: 0.1}}", [], "`from` must be smaller than `to`, got 0.2 and 0.1"),
        ("{optimizer.lr: {from: a, to: 0.1}}", [], "the ends of a range must be numbers, got a"),
        ("{optimizer.lr: {from: 0, to: 0.1, log: true}}", [], "0 has no logarithm; start above 0"),
        ("{optimizer.lr: {from: 0.1, to: 0.2, steps: 1}}", [], "steps must be an integer of at least 2, got 1"),
        (
            "{data.batch_size: {from: 1, to: 3, steps: 4}}",
            [],
            "2 and at most 3, the number of integers in the range",
        ),
        ("{optimizer.lr: {from: 0.1, to: 0.2}}", ["--method=grid"], "a grid needs a number of values"),
        ("{optimizer.lr: [0.1]}", ["--method=grids"], "no method named 'grids'; did you mean grid?"),
        (
            "{optimizer.lr: [0.1]}",
            ["--method=grid", "--trials=2"],
            "at least 1, and at most 1 for this grid",
        ),
        ("{optimizer.lr: [0.1]}", ["--measure=test/loss"], "no measure named 'test/loss'; did you mean val/loss"),
        ("{optimizer.lr: [0.1]}", ["--minutes=0"], "give minutes above 0"),
        ("{optimizer.lr: [0.1]}", ["--data.validation=0"], "data.validation is 0: leave it out, or give a share"),
        ("{optimizer.lr: [0.1]}", ["--trainer.logger=false"], "leave out --trainer.logger"),
        ("{optimizer.lr: [0.1]}", ["--trainer.devices=2"], "trained by one process, not by 2"),
        (
            "{optimizer.lr: [0.1]}",
            ["--trainer.max_epochs=3", "--trainer.check_val_every_n_epoch=2", "--epoch=last"],
            "choose max_epochs as a multiple of check_val_every_n_epoch, or --epoch=best",
        ),
        ("{optimizer.lr: [0.1]}", ["--trainer.strategy=nonsense"], "You selected an invalid strategy name"),
        ("{optimizer.lr: [0.1]}", ["--run=mine"], "a search sets this option for each of its trials; leave --run out"),
        (
            "{optimizer: [SGD, {name: AdamW, lr: 0.001}]}",
            ["--optimizer.lr=0.1"],
            "a value of optimizer in the space has its own optimizer.lr; leave --optimizer.lr out",
        ),
        ("{optimizer: [{name: SGD, lr: 0.5}], optimizer.lr: [0.1]}", [], "leave --optimizer.lr out"),
        (
            "{model: [{class_path: ResNet, init_args: {depth: 14}}]}",
            ["--model.depth", "20"],
            "leave --model.depth out",
        ),
        (
            "{trainer.callbacks: [[{class_path: EMA, init_args: {decay: 0.9}}]]}",
            ["--trainer.callbacks.init_args.decay=0.99"],
            "leave --trainer.callbacks.decay out",
        ),
        ("{optimizer.lr: [0.1]}", ["--seed_everything=true"], "draw another seed; give a number: --seed_everything=1"),
        ("{seed_everything: [true]}", [], "give a number: --seed_everything=1"),
        ("{test: [true]}", [], "test cannot be searched"),
        ("{optimizer.lr: [0.1]}", ["--trails=3"], "no option named 'trails'; did you mean trials?"),
    ],
)
def test_wrong_input_is_answered_with_advice_before_anything_is_trained(
    space: str, more: list[str], advice: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code: object = run("wrong", space, *more)
    except SystemExit as stop:
        code = stop.code
    printed = capsys.readouterr().err
    assert code == 2 and advice in printed and len(printed.splitlines()) == 1
    assert not Path("wrong").exists()


def test_the_space_may_be_a_file_and_options_may_stand_apart_from_their_values() -> None:
    Path("space.yaml").write_text("optimizer: [SGD, {name: Adam, lr: 0.02}]\ndata.augmentations: [none, light]\n")
    assert main(["search", "--folder", "search", "--space", "space.yaml", "--method", "grid", "--trials=3", *TINY]) == 0
    configs = [Path(f"search/00{number}/config.yaml").read_text() for number in range(3)]
    assert "name: SGD" in configs[0] and "augmentations: none" in configs[0] and "augmentations: light" in configs[1]
    assert "name: Adam\n  lr: 0.02" in configs[2] and "test: false" in configs[2]


def test_options_beside_a_searched_value_are_kept() -> None:
    config = config_of([*TINY, "--optimizer.momentum=0.9"], {"optimizer": {"name": "SGD", "lr": 0.5}}, Path("search"))
    assert config["optimizer"] == {"name": "SGD", "lr": 0.5, "momentum": 0.9}


def test_a_model_may_stand_first_as_in_fit() -> None:
    assert main(["search", "linear", "--folder=search", "--space={optimizer.lr: [0.01]}", "--trials=1", *TINY[1:]]) == 0
    (trial,) = read_trials(Path("search"))
    assert not trial.message and trial.measure is not None


def test_words_of_any_characters_reach_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["--data.root=photos_📷", "--data.classes=[猫, '\x7f\u2028\u3000', \"\\\"]"]
    assert split(words, "find-lr", find_lr.find_lr, (), "") == ([], words)
    expected: tuple[list[str], list[str]] = [], [word[2:] for word in words]
    monkeypatch.setattr(train_zoo, "call_with", lambda made, function, own, passed: (own, passed) == expected)
    assert train_zoo.main(words) == 1  # they are the same
    assert get_loader("yaml")(text_of({"classes": ["📷", *words]})) == {"classes": ["📷", *words]}
