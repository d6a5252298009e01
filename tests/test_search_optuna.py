"""Searches by Optuna."""

import functools
import sys
from pathlib import Path

import optuna
import pytest

from cvcc_zoo.search.record import Trial
from cvcc_zoo.search.space import Range
from tests.test_search import RATES, KilledError, interrupt_trial, results, run


def test_a_search_by_optuna_goes_on_from_its_storage(monkeypatch: pytest.MonkeyPatch) -> None:
    # One random trial, so that the second one depends on it.
    sampler = functools.partial(optuna.samplers.TPESampler, n_startup_trials=1)
    monkeypatch.setattr(optuna.samplers, "TPESampler", sampler)
    space = RATES[:-1] + ", data.augmentations: [none, [HorizontalFlip]], seed_everything: {from: 0, to: 9}}"
    more = ["--method=optuna", "--trials=3", "--trainer.max_epochs=2"]
    assert run("whole", space, *more) == 0
    with monkeypatch.context() as patch, pytest.raises(KilledError):
        interrupt_trial(patch, "001")
        run("stopped", space, *more)
    storage = f"sqlite:///{Path('stopped').resolve()}/optuna.sqlite"
    states = [trial.state.name for trial in optuna.load_study(study_name="search", storage=storage).trials]
    assert states == ["COMPLETE", "RUNNING"]
    assert run("stopped", space, *more) == 0
    assert results("stopped") == results("whole") and len(results("whole")) == 3
    study = optuna.load_study(study_name="search", storage=storage)
    assert [trial.value for trial in study.trials] == [measure for _, _, measure, _ in results("whole")]
    assert study.direction.name == "MAXIMIZE"


def test_optuna_learns_where_values_are_good(tmp_path: Path) -> None:
    from cvcc_zoo.search.tpe import TPESearch

    method = TPESearch({"x": Range(-10.0, 10.0)}, 0, "minimize", tmp_path)
    found = []
    for number in range(30):
        values = method.values(number)
        assert values == method.values(number)  # the same again
        found.append(abs(values["x"] - 3))
        method.tell(Trial(number, values, found[-1]))
    assert sum(found[20:]) < 0.5 * sum(found[:10])


@pytest.mark.parametrize("name", ["lr?a", "a%2Fb", "a{b}"])
def test_a_study_is_in_the_folder_of_its_search_whatever_its_name(tmp_path: Path, name: str) -> None:
    from cvcc_zoo.search.tpe import TPESearch

    folder = tmp_path / name
    folder.mkdir()
    TPESearch({"x": Range(-10.0, 10.0)}, 0, "minimize", folder).values(0)
    assert [file.relative_to(tmp_path) for file in tmp_path.rglob("*.*")] == [Path(name, "optuna.sqlite")]


def test_without_optuna_one_is_told_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert run("wrong", RATES, "--method=optuna") == 2
    assert "pip install 'cvcc_zoo[search]'" in capsys.readouterr().err
