"""A zoo is trained in pieces of time, and ends as if it had been trained in one."""

import dataclasses
import re
import shutil
from pathlib import Path

import pytest
import torch

from cvcc_zoo import create
from cvcc_zoo.__main__ import main
from cvcc_zoo.commands import train_zoo
from cvcc_zoo.runs import Deadline
from cvcc_zoo.runs.written import read_summary
from cvcc_zoo.weights.card import read_card, write_card
from tests.conftest import QUICK
from tests.test_weights import home  # noqa: F401  a fixture

RECIPE = """model: {}
data: {{batch_size: 8, validation: 0}}
optimizer: {{name: SGD, lr: 0.01}}
trainer: {{max_epochs: 2}}
"""
Words = list[str]


@pytest.fixture
def words(home: Path, colours: Path) -> Words:  # noqa: F811
    """The command, on recipes for two models."""
    recipes = Path("recipes/pets")
    recipes.mkdir(parents=True)
    for model, given in (("fcnn", "{class_path: FCNN, init_args: {hidden: [8]}}"), ("linear", "linear")):
        (recipes / f"{model}.yaml").write_text(RECIPE.format(given))
    data = ["--data.dataset=folder", f"--data.root={colours}", *QUICK[1:]]
    return ["train-zoo", "--recipes=recipes/pets", "--dataset=Pets", "--precision=32-true", *data]


class AfterAStep(Deadline):
    """The time limit is reached at the second step."""

    def __init__(self, at: float) -> None:
        super().__init__(at)
        self.asked = 0

    def reason(self) -> str:
        self.asked += 1
        return "the time limit is reached" if self.asked == 2 else ""


def test_a_zoo_that_runs_out_of_time_goes_on_with_the_same_bits(
    words: Words,
    home: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(train_zoo, "Deadline", AfterAStep)
        assert main([*words, "--minutes=5"]) == 0
    printed = capsys.readouterr().out
    assert "the time limit is reached: stopped after 1 step;" in printed and "begun" in printed and "waiting" in printed
    assert main([*words, "--minutes=5"]) == 0
    assert capsys.readouterr().out.count("published") == 2
    assert read_card(home / "fcnn.pets.json").dataset == "Pets"
    assert main([*words, "--minutes=5", "--runs=runs/whole", "--folder=whole"]) == 0
    for model in ("linear", "fcnn"):
        metrics = [Path(f"runs/{runs}/{model}-pets-0/metrics.csv").read_text() for runs in ("zoo", "whole")]
        assert metrics[0] == metrics[1]
        pieces = create(f"{model}.pets").state_dict()
        whole = create(model, pretrained=f"whole/{model}.pets.json").state_dict()
        assert all(torch.equal(pieces[name], whole[name]) for name in whole)


def test_what_is_published_is_not_trained_again(
    words: Words,
    home: Path,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
) -> None:
    for _ in range(2):
        assert main([*words, "--minutes=5", "--only=[linear]"]) == 0
    printed = capsys.readouterr().out
    assert len(re.findall(r"runs/zoo/linear-pets-0: 0:0[45]:\d\d of the time left", printed)) == 1
    assert re.search(r"published . [\d.]+ % \([\d.]+ to [\d.]+\)", printed)
    assert sorted(path.name for path in Path("runs/zoo").iterdir()) == ["linear-pets-0"]
    assert not (home / "fcnn.pets.json").exists()


def test_what_is_finished_needs_its_images_no_more(
    words: Words, colours: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, "--minutes=5", "--only=[linear]"]) == 0
    shutil.rmtree(colours)
    capsys.readouterr()
    assert main([*words, "--minutes=5", "--only=[linear]"]) == 0
    assert "published" in capsys.readouterr().out


def test_what_has_begun_needs_the_weights_that_it_started_from_no_more(
    words: Words, colours: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = ["--data.dataset=folder", f"--data.root={colours}", *QUICK]
    assert main(["fit", "--model=linear", *data, "--run=start"]) == 0
    more = ["--minutes=5", "--only=[linear]", "--options=[weights=start/last.ckpt]"]
    with monkeypatch.context() as patch:
        patch.setattr(train_zoo, "Deadline", AfterAStep)
        assert main([*words, *more]) == 0
    shutil.rmtree("start")
    assert main([*words, *more]) == 0
    assert read_summary(Path("runs/zoo/linear-pets-0"))["epochs"] == 2


def test_the_card_has_the_accuracies_of_all_seeds_and_the_weights_of_the_first(
    words: Words,
    home: Path,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main([*words, "--minutes=5", "--only=[fcnn]", "--seeds=2"]) == 0
    training = read_card(home / "fcnn.pets.json").training
    assert training["seed"] == 0 and list(training["test_accuracy_of_seeds"]) == ["0", "1"]
    assert "±" in capsys.readouterr().out


def test_another_seed_is_added_to_a_card_that_keeps_the_rest(
    words: Words,
    home: Path,  # noqa: F811
) -> None:
    asked = [*words, "--minutes=5", "--only=[linear]"]
    assert main(asked) == 0
    path = home / "linear.pets.json"
    card = read_card(path)
    calibration = {"temperature": 2.0, "fitted_on": "images"}
    added = dataclasses.replace(card, url="https://x.org/f", measured=card.measured | {"calibration": calibration})
    write_card(path, added)
    assert main([*asked, "--seeds=2"]) == 0
    now = read_card(path)
    assert list(now.training["test_accuracy_of_seeds"]) == ["0", "1"]
    assert dataclasses.replace(now, training=card.training) == added


def test_images_that_were_moved_after_the_training_are_found_for_the_card(
    words: Words,
    home: Path,  # noqa: F811
    colours: Path,
) -> None:
    asked = [*words, "--minutes=5", "--only=[linear]"]
    assert main(asked) == 0
    path = home / "linear.pets.json"
    before = read_card(path)
    path.unlink()
    moved = colours.rename(colours.with_name("moved"))
    assert main([*asked, f"--data.root={moved}", "--allow_changes=true"]) == 0
    assert read_card(path).sha256 == before.sha256


def test_weights_of_a_run_that_was_not_tested_are_published_with_their_own_numbers(
    words: Words,
    home: Path,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main([*words, "--minutes=5", "--only=[linear]", "--options=[test=false]", "--trainer.max_epochs=1"]) == 0
    assert "not tested" in capsys.readouterr().out
    assert 0 <= read_card(home / "linear.pets.json").measured["test_accuracy"] <= 1


def test_a_folder_of_recipes_named_by_a_dot_gives_the_weights_its_own_name(
    words: Words,
    home: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir("recipes/pets")
    for _ in range(2):
        assert main([*words, "--minutes=5", "--only=[linear]", "--recipes=."]) == 0
    assert [path.name for path in Path("runs/zoo").iterdir()] == ["linear-pets-0"]
    assert read_card(home / "linear.pets.json").name == "linear.pets"


def test_the_table_has_the_epochs_that_were_trained_wherever_a_recipe_says_them(
    words: Words,
    home: Path,  # noqa: F811
) -> None:
    recipe = Path("recipes/pets/linear.yaml")
    Path("recipes/length.yaml").write_text("max_epochs: 3")
    recipe.write_text(RECIPE.format("linear").replace("{max_epochs: 2}", "../length.yaml"))
    assert main([*words, "--minutes=5", "--only=[linear]", "--trainer.max_epochs=1"]) == 0
    jobs = [train_zoo.Job(recipe, "linear", "pets", seed, Path(f"runs/zoo/linear-pets-{seed}")) for seed in (0, 1)]
    for mine in (jobs[:1], jobs):  # the second seed is not trained
        assert list(train_zoo.overview({"linear": mine}, home).columns[4].cells) == ["1"]


def test_a_run_that_has_begun_or_is_finished_refuses_other_options_by_name(
    words: Words,
    home: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    more = ["--minutes=5", "--only=[linear]", "--trainer.callbacks+=EMA"]
    with monkeypatch.context() as patch:
        patch.setattr(train_zoo, "Deadline", AfterAStep)
        assert main([*words, *more]) == 0
    longer = [*words, *more, "--trainer.max_epochs=3"]
    assert main(longer) == 2
    assert "trainer.max_epochs was 2 and is 3; restore them" in capsys.readouterr().err
    assert main([*longer, "--allow_changes=true"]) == 0
    assert read_summary(Path("runs/zoo/linear-pets-0"))["epochs"] == 3
    assert main([*longer, "--data.batch_size=4"]) == 2
    assert "data.batch_size was 8 and is 4; restore them" in capsys.readouterr().err
    assert main(longer) == 0  # the same as before: nothing is left to do
    assert "published" in capsys.readouterr().out


def test_a_run_keeps_its_precision_unless_another_one_is_given(
    words: Words,
    home: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(train_zoo, "fast_precision", lambda: "bf16-mixed")
    quick = [*(word for word in words if not word.startswith("--precision")), "--only=[linear]"]
    assert main([*quick, "--trainer.precision=32-true"]) == 0
    assert read_summary(Path("runs/zoo/linear-pets-0"))["precision"] == "32-true"
    assert main(quick) == 0
    assert main([*quick, "--precision=bf16-mixed"]) == 2
    assert "trainer.precision was '32-true' and is 'bf16-mixed'" in capsys.readouterr().err


def test_the_card_of_an_earlier_round_is_replaced_and_its_accuracy_is_not_shown(
    words: Words,
    home: Path,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main([*words, "--minutes=5", "--only=[linear]"]) == 0
    path, mine = home / "linear.pets.json", read_card(home / "linear.pets.json")
    earlier = mine.training | {"finished": "2026-01-01T00:00:00+00:00"}
    write_card(path, dataclasses.replace(mine, training=earlier, dataset="Birds"))
    job = train_zoo.Job(Path("recipes/pets/linear.yaml"), "linear", "pets", 0, Path("runs/zoo/linear-pets-0"))
    columns = train_zoo.overview({"linear": [job]}, home).columns
    assert [list(column.cells) for column in columns[1:3]] == [["trained"], ["-"]]
    capsys.readouterr()
    assert main([*words, "--minutes=5", "--only=[linear]"]) == 0
    assert "published" in capsys.readouterr().out
    assert read_card(path).training["finished"] == mine.training["finished"] and read_card(path).dataset == "Pets"


def test_recipes_with_another_name_than_their_model_are_refused_before_any_is_trained(
    words: Words, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("recipes/pets/hinge.yaml").write_text(RECIPE.format("linear"))
    for more in (["--only=[linear,hinge]"], []):
        assert main([*words, *more]) == 2
        assert "recipes/pets/hinge.yaml trains the model linear, and" in capsys.readouterr().err
    assert not Path("runs").exists()


def test_the_options_that_shape_a_model_count_for_its_name(words: Words, capsys: pytest.CaptureFixture[str]) -> None:
    Path("recipes/pets/resnet20.yaml").write_text(RECIPE.format("{class_path: ResNet, init_args: {depth: 20}}"))
    assert list(train_zoo.models(Path("recipes/pets"), None, [])) == ["fcnn", "linear", "resnet20"]
    assert main([*words, "--only=[resnet20]", "--options=[model.depth=26]"]) == 2
    assert "trains the model resnet, and its weights would be named so" in capsys.readouterr().err


def test_recipes_for_networks_of_ones_own_are_ordered_by_their_operations(
    words: Words, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = "from torch.nn import *\n\nclass {}(Sequential):\n    def __init__(self):\n        super().__init__({})\n"
    nets = {"Wide": "Flatten(), Linear(3072, 50), Linear(50, 10)", "Other": "Flatten(), Linear(3, 10)"}
    Path("zoo_nets.py").write_text("\n".join(code.format(*net) for net in nets.items()))
    monkeypatch.syspath_prepend(Path.cwd())
    for name in nets:
        Path(f"recipes/pets/{name.lower()}.yaml").write_text(RECIPE.format(f"zoo_nets.{name}"))
    assert list(train_zoo.models(Path("recipes/pets"), None, [])) == ["fcnn", "linear", "wide", "other"]


def test_a_recipe_is_trained_with_the_precision_that_it_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train_zoo, "fast_precision", lambda: "bf16-mixed")
    found = []
    for number, given in enumerate(("trainer: {precision: 64-true}", "trainer.precision: 32", "trainer: {}")):
        recipe = Path(f"{number}.yaml")
        recipe.write_text(given)
        found.append(train_zoo.Job(recipe, "linear", "pets", 0, Path("run")).precision())
    assert found == ["64-true", "32", "bf16-mixed"]


def test_a_folder_without_recipes_is_refused(words: Words, capsys: pytest.CaptureFixture[str]) -> None:
    for name, advice in (("cifar10", "those of the package are --recipes=configs/cifar10"), ("x", "choose another")):
        Path(name, "train").mkdir(parents=True)
        assert main([*words, f"--recipes={name}"]) == 2
        assert f"the folder {name} has no recipes (*.yaml); {advice}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--minutes=0"], "minutes above 0"),
        (["--minutes=1", "--seeds=0"], "at least one seed"),
        (["--minutes=1", "--only=[fcn]"], "no recipe in recipes/pets named 'fcn'; did you mean fcnn?"),
        (["--minutes=1", "--recipes=nowhere"], "there is no folder nowhere"),
        (["--minutes=1", "--trainer.devices=2"], "trained by one process, not by 2: --trainer.devices=1"),
        (["--minutes=1", "--trainer.strategy=nonsense"], "You selected an invalid strategy name"),
    ],
)
def test_wrong_input_is_told(words: Words, more: Words, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*words, *more]) == 2
    assert message in capsys.readouterr().err


def test_the_table_fits_a_terminal_of_80_columns(
    words: Words,
    home: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(train_zoo, "with_interval", lambda correct, images: "92.15 % (91.60 to 92.66)")
    assert main([*words, "--minutes=5", "--only=[linear]", "--seeds=2"]) == 0
    printed = capsys.readouterr().out
    assert "…" not in printed and "min" in printed and "91.60" in printed


def test_options_of_fit_may_stand_apart_from_their_values(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[list[str]] = []

    def call(parser: object, function: object, own: list[str], passed: list[str]) -> int:
        given.extend([own, passed])
        return 0

    monkeypatch.setattr(train_zoo, "call_with", call)
    words = ["--minutes", "5", "--allow_changes", "true", "--trainer.max_epochs", "3", "--data.root=here"]
    assert train_zoo.main(words) == 0
    assert given == [["--minutes", "5"], ["allow_changes=true", "trainer.max_epochs=3", "data.root=here"]]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # from the compiler itself
def test_a_compiled_training_learns_the_same(
    words: Words,
    home: Path,  # noqa: F811
) -> None:
    assert main([*words, "--minutes=5", "--only=[linear]", "--compile=true"]) == 0
    assert main([*words, "--minutes=5", "--only=[linear]", "--runs=runs/eager", "--folder=eager"]) == 0
    eager = create("linear", pretrained="eager/linear.pets.json").state_dict()
    compiled = create("linear.pets").state_dict()
    assert all(torch.allclose(compiled[name], eager[name], atol=1e-3) for name in eager)
