"""Published weights can be searched."""

import shutil
from pathlib import Path

import pytest

from cvcc_zoo.__main__ import main
from tests.test_weights import change, home, published, trained  # noqa: F401  home is a fixture


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("three")
    for name, accuracy in (("resnet20", 0.8), ("resnet32", 0.9), ("linear", 0.4)):
        change(published(folder, trained(name)), measured={"test_accuracy": accuracy})
    return folder


@pytest.fixture(autouse=True)
def three(written: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    shutil.copytree(written, home)
    monkeypatch.setattr("cvcc_zoo.weights.card.PUBLISHED", home)


def listed(capsys: pytest.CaptureFixture[str], *words: str) -> list[str]:
    assert main(["list", "--pretrained", *words]) == 0
    return [line.split()[0] for line in capsys.readouterr().out.splitlines() if ".pets" in line]


@pytest.mark.parametrize(
    ("words", "names"),
    [
        ([], ["linear", "resnet20", "resnet32"]),
        (["--sort=accuracy"], ["resnet32", "resnet20", "linear"]),
        (["--sort=parameters"], ["linear", "resnet20", "resnet32"]),
        (["--max-parameters=3e5"], ["linear", "resnet20"]),
        (["--min-accuracy=0.8"], ["resnet20", "resnet32"]),
        (["--dataset=pets", "--pattern=resnet*", "--max_parameters=400000"], ["resnet20"]),
        (["--min_accuracy=0.95"], []),
        (["ResNet-20"], ["resnet20"]),
        (["--sort", "Accuracy", "--dataset=PETS", "resnet*"], ["resnet32", "resnet20"]),
    ],
)
def test_weights_are_filtered_and_sorted(
    words: list[str], names: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert listed(capsys, *words) == [f"{name}.pets" for name in names]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--pretrained", "--dataset=pet"], "no data set of published weights named 'pet'; did you mean pets?"),
        (["--pretrained", "--sort=acuracy"], "no order named 'acuracy'; did you mean accuracy?"),
        (["--pretrained", "--min-accuracy=92"], "a fraction in [0, 1], like 0.92, not 92"),
        (["resnet21", "--pretrained"], "no published weight named 'resnet21'; did you mean resnet32.pets or"),
        (["--sort=accuracy"], "choose among published weights: --pretrained"),
    ],
)
def test_wrong_searches_are_told(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", *words]) == 2
    assert message in " ".join(capsys.readouterr().err.split())


def test_a_second_pattern_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["list", "cnn", "fcnn"])
    assert "'fcnn' belongs to no option" in capsys.readouterr().err


def test_a_model_is_listed_by_its_name_as_people_type_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "--image-size=8", "RESNET-20"]) == 0
    assert "resnet20" in capsys.readouterr().out


def test_published_weights_fit_a_terminal_of_80_columns(
    home: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    card = home / "resnet20.pets.json"
    change(
        card,
        dataset="my own photographs of cats and of dogs",
        parameters=68_155_210,
        macs=10_688_870_000,
        size=136_310_420,
    )
    assert main(["list", "--pretrained"]) == 0
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= 80 and "…" not in printed
    assert "68,155,210 10,688.87 M 136.31" in printed
