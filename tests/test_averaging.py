"""Models are averaged by their probabilities, and may look at mirror images too."""

import csv
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from cvcc_zoo import create
from cvcc_zoo.__main__ import main
from cvcc_zoo.classifier import ImageClassifier
from cvcc_zoo.classifier.flipping import Flipped
from cvcc_zoo.data.classes import DIGITS
from cvcc_zoo.runs.measure import correct
from cvcc_zoo.weights.card import write
from cvcc_zoo.zoo.averaging import find_average, names_in
from cvcc_zoo.zoo.published import make_card
from tests.conftest import MakeFolder, message

IMAGES = torch.randint(0, 256, (9, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def publish(name: str, classes: tuple[str, ...], seed: int = 0, size: int = 8) -> ImageClassifier:
    torch.manual_seed(seed)
    model = create("linear", num_classes=len(classes), image_size=size)
    model.whitening.fit(torch.randint(0, 256, (20, 3, size, size), dtype=torch.uint8))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    made: dict[str, dict[str, object]] = {"measured": {}, "training": {}}
    card = make_card(model, name, classes, dataset=name, license="MIT", **made)
    write(Path("home"), card, model.state_dict())
    return model.eval()


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CVCC_ZOO_HOME", "home")


def mean(one: ImageClassifier, other: ImageClassifier, images: Tensor) -> Tensor:
    """Of two models, the second of which has the classes in the opposite order."""
    with torch.no_grad():
        both: Tensor = (one(images).softmax(1) + other(images).softmax(1).flip(1)) / 2
        return both


def test_the_probabilities_of_models_are_averaged_class_by_class() -> None:
    one, other = publish("one", ("blue", "red")), publish("other", ("Red", "Blue"), seed=1)
    average = find_average("linear.one+linear.other")
    assert average.classes == ["blue", "red"] and average.name == "linear.one+linear.other"
    with torch.no_grad():
        assert torch.allclose(average.probabilities(IMAGES), mean(one, other, IMAGES), atol=1e-3)


def test_a_plus_sign_in_a_name_or_path_joins_no_models() -> None:
    for name in ("cats+dogs", "other"):
        publish(name, ("cat", "dog"))
    Path("home").rename("a+b")
    publish("cats+dogs", ("cat", "dog"))
    both = ["linear.cats+dogs", "a+b/linear.other.json"]
    for names in (both[:1], both[1:], both, both[::-1]):
        assert names_in("+".join(names)) == names
    assert [member.name for member in find_average("+".join(both)).members] == ["linear.cats+dogs", "linear.other"]


def test_models_of_the_same_name_are_named_as_they_are_given(
    make_folder: MakeFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed, folder in enumerate(("a", "b")):
        publish("one", ("blue", "red"), seed=seed)
        Path("home").rename(folder)
    names = ["a/linear.one.json", "b/linear.one.json"]
    assert [member.name for member in find_average("+".join(names)).members] == names
    assert main(["evaluate", "+".join(names), "--data.dataset=folder", f"--data.root={make_folder()}"]) == 0
    assert re.search(r"alone: a/linear.one.json [\d.]+ %, b/linear.one.json [\d.]+ %", capsys.readouterr().out)


def test_a_name_that_no_path_can_have_is_answered_in_words() -> None:
    with pytest.raises(ValueError, match="no model named 'aaa"):
        find_average("a" * 5000)


def test_a_flip_averages_the_logits_of_both_images() -> None:
    model = publish("one", ("blue", "red"))
    flipped = find_average("linear.one", flip=True).probabilities(IMAGES)
    with torch.no_grad():
        expected = ((model(IMAGES) + model(IMAGES.flip(-1))) / 2).softmax(1)
        assert torch.allclose(flipped, expected, atol=1e-3)
        assert not torch.allclose(flipped, model(IMAGES).softmax(1), atol=1e-2)
    assert torch.allclose(flipped, find_average("linear.one", flip=True).probabilities(IMAGES.flip(-1)))


def test_images_are_predicted_and_tested_by_several_models(
    make_folder: MakeFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    one, other = publish("one", ("blue", "red")), publish("other", ("red", "blue"), seed=1)
    root = make_folder()
    data = ["--data.dataset=folder", f"--data.root={root}"]
    assert main(["evaluate", "linear.one+linear.other", *data, "--test_time_flip=true"]) == 0
    printed = capsys.readouterr().out
    files = sorted((root / "test").glob("*/*.png"))
    images = torch.stack([torch.from_numpy(_pixels(file)).permute(2, 0, 1) for file in files])
    labels = torch.tensor([int(file.parent.name == "red") for file in files])
    right = correct(mean(one, other, images), labels)
    assert f"linear.one+linear.other, on colours: {right} of 12 images correct" in printed
    alone = (correct(one(images), labels), correct(other(images), 1 - labels))
    assert f"alone: linear.one {alone[0] / 0.12:.2f} %, linear.other {alone[1] / 0.12:.2f} %" in printed
    assert "with test-time flip: " in printed
    assert main(["predict", "linear.one+linear.other", str(root / "test"), "--output=out.csv"]) == 0
    rows = {row["file"]: row for row in csv.DictReader(Path("out.csv").read_text().splitlines())}
    shares = mean(one, other, images)
    for file, expected in zip(files, shares.tolist(), strict=True):
        row = rows[str(file)]
        assert row["class_1"] == ("blue", "red")[expected[1] > expected[0]]
        assert float(row["probability_1"]) == pytest.approx(max(expected), abs=1e-3)


def _pixels(file: Path) -> np.ndarray:
    return np.array(Image.open(file))


def test_a_program_with_a_flip_gives_the_mean_of_both_logits() -> None:
    publish("one", ("blue", "red"))
    arguments = ["export", "linear.one", "--format=torch_export", "--test_time_flip=true"]
    assert main([*arguments, "--data.dataset=fashion-mini"]) == 0
    about = {"output": ""}
    program = torch.export.load("linear.one.pt2", extra_files=about).module()
    assert torch.allclose(program(IMAGES), Flipped(create("linear.one"))(IMAGES), atol=1e-5)
    assert about["output"].endswith("the mean of those of the image and of its mirror image")


def test_models_that_cannot_be_averaged_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    publish("one", ("blue", "red"))
    publish("green", ("blue", "green"))
    publish("large", ("blue", "red"), size=10)
    publish("mnist", DIGITS)
    publish("emnist_letters", ("a", "b"))
    Image.new("RGB", (8, 8)).save("a.png")
    for arguments, advice in {
        ("predict", "linear.one+linear.green", "a.png"): "linear.green has other classes than linear.one: 'green' is",
        ("predict", "linear.one+linear.large", "a.png"): "linear.large takes 3x10x10 images resized by squash on white",
        ("predict", "linear.one+", "a.png"): "linear.one+ lacks a name beside a plus sign",
        ("predict", "linear.one+linear.two", "a.png"): "did you mean linear.one",
        ("predict", "linear.mnist", "a.png", "--test_time_flip=true"): "mirrored digits, letters and traffic",
        ("export", "linear.mnist", "--test_time_flip=true"): "mirrored digits, letters and traffic",
        ("predict", "linear.emnist_letters", "a.png", "--test_time_flip=true"): "mirrored digits, letters and traffic",
        ("export", "linear.one+linear.green"): "a program holds one model",
        ("evaluate", "linear.one+linear.green"): "linear.green has other classes than linear.one",
        ("evaluate", "linear.one+linear.one", "--update_card=true"): "has no card",
    }.items():
        assert advice in message(capsys, list(arguments)), arguments


def test_classes_that_are_only_numbered_may_be_flipped() -> None:
    publish("animals", DIGITS)
    flipped = find_average("linear.animals", flip=True).probabilities(IMAGES)
    assert torch.allclose(flipped, find_average("linear.animals", flip=True).probabilities(IMAGES.flip(-1)))
