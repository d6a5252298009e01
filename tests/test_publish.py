"""From a run to published weights, and their card measured again."""

import json
from pathlib import Path

import pytest
import torch

from cvcc_zoo import ImageDataModule, create, load
from cvcc_zoo.__main__ import main
from cvcc_zoo.runs.measure import measure
from cvcc_zoo.weights import read_card
from tests.conftest import Fit, MakeFolder, message


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CVCC_ZOO_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def test_a_run_is_published_and_its_card_holds(
    fit: Fit, colours: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fit("--model=cnn_small", "--optimizer=Muon", "--trainer.max_epochs=2") == 0
    summary = json.loads(Path("runs/cnn_small-colours/summary.json").read_text())
    capsys.readouterr()
    assert main(["publish", "runs/cnn_small-colours", "--tag=pets", "--dataset=Pets (small copy)"]) == 0
    assert "cnn_small.pets: test accuracy" in capsys.readouterr().out
    card = read_card(home / "cnn_small.pets.json")
    assert card.measured["test_accuracy"] == pytest.approx(summary["test_accuracy"], abs=1 / 12)
    assert (card.measured["test_images"], card.classes, card.license) == (12, ["blue", "red"], "MIT")
    assert (card.name, card.dataset) == ("cnn_small.pets", "Pets (small copy)")
    assert sum(map(sum, card.measured["confusion"])) == 12
    assert card.training["recipe"]["optimizer"] == {"name": "Muon"} and card.training["images"] == 36
    assert str(colours) not in (home / "cnn_small.pets.json").read_text()  # no folder of this machine
    data = ["--data.dataset=folder", f"--data.root={colours}"]
    for size in ("5", "512"):  # the size of the batches does not matter
        assert main(["evaluate", "cnn_small.pets", *data, f"--data.batch_size={size}"]) == 0
        assert "the card holds: the same images, and as many correct" in capsys.readouterr().out
    assert main(["evaluate", str(home / "cnn_small.pets.json"), *data]) == 0
    capsys.readouterr()
    assert main(["evaluate", "cnn_small.pets", *data, "--test_time_flip=true"]) == 0
    assert "with test-time flip: " in capsys.readouterr().out
    images = torch.randint(0, 256, (3, 3, 8, 8), dtype=torch.uint8)
    assert torch.allclose(
        create("cnn_small.pets")(images), load("runs/cnn_small-colours")(images), rtol=1e-2, atol=1e-2
    )


def test_a_card_that_does_not_hold_is_told(
    fit: Fit, colours: Path, home: Path, make_folder: MakeFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    fit("--model=linear")
    assert main(["publish", "runs/linear-colours", f"--folder={home}"]) == 0
    path = home / "linear.colours.json"
    content = json.loads(path.read_text())
    content["measured"]["correct"] += 1
    path.write_text(json.dumps(content))
    capsys.readouterr()
    assert main(["evaluate", "linear.colours", "--data.dataset=folder", f"--data.root={colours}"]) == 1
    assert "the card does not hold: it has" in capsys.readouterr().out
    other = make_folder("others", size=9)
    (other / "test/red").rename(other / "test/rose")
    (other / "train/red").rename(other / "train/rose")
    again = ["--data.dataset=folder", f"--data.root={other}", "--data.image_size=8"]
    assert main(["evaluate", "linear.colours", *again]) == 0
    printed = capsys.readouterr().out
    assert "the classes differ: ['blue', 'red'] in the card, ['blue', 'rose'] in others" in printed
    assert "these are other images than the card's" in printed


def test_an_untested_run_is_published_with_numbers_of_its_own_file_but_is_no_repeat(
    fit: Fit, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fit("--model=linear", "--test=false", "--run=first") == 0
    assert fit("--model=linear", "--test=false", "--seed_everything=1", "--run=second") == 0
    capsys.readouterr()
    assert main(["publish", "first"]) == 0
    assert "first was trained with --test=false: its test images were tested only now" in capsys.readouterr().out
    assert 0 <= read_card(home / "linear.colours.json").measured["test_accuracy"] <= 1
    advice = "the runs of the seeds 0, 1 were trained with --test=false and have no test accuracy; test them"
    assert advice in message(capsys, ["publish", "first", "--repeats=[second]"])


def test_what_is_measured_is_exact(colours: Path) -> None:
    data = ImageDataModule("folder", str(colours), batch_size=5)
    model = create("linear", num_classes=2, image_size=8, whitening="none")
    with torch.no_grad():
        for p in model.parameters():
            p.zero_()
        model.network.get_parameter("fc.bias").copy_(torch.tensor([1.0, 0.0]))  # always blue
    found = measure(model, data)
    assert (found["correct"], found["test_images"], found["confusion"]) == (6, 12, [[6, 0], [6, 0]])
    likely = torch.tensor([1.0, 0.0]).log_softmax(0)
    assert found["test_loss"] == pytest.approx(float(-likely.mean()), abs=1e-6)
    assert found["calibration_error"] == pytest.approx(float(likely.exp()[0]) - 0.5, abs=1e-5)


@pytest.mark.parametrize(
    ("arguments", "advice"),
    [
        (["publish", "nowhere"], "nowhere is not the folder of a run that has ended: it has no config.yaml"),
        (["evaluate", "resnet20.cifar11"], "no published weight named 'resnet20.cifar11'"),
        (["evaluate"], "name"),
    ],
)
def test_wrong_input_is_answered_with_advice(
    arguments: list[str], advice: str, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert advice in message(capsys, arguments)
