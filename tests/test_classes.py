"""A model knows its classes: their names travel with the weights, and are compared wherever it meets images."""

import json
import shutil
import unicodedata
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Trainer
from PIL import Image

from cvcc_zoo import ImageDataModule, create, load
from cvcc_zoo.__main__ import main
from cvcc_zoo.classifier.training_images import see_images, training_data
from cvcc_zoo.data.classes import differences, matching, plain_name
from cvcc_zoo.weights.checkpoint import read_checkpoint
from cvcc_zoo.zoo.creation import use_weights
from cvcc_zoo.zoo.trained import find_trained
from tests.conftest import QUICK, Fit, MakeFolder, message

SILENT: dict[str, Any] = {
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "accelerator": "cpu",
}
DATA = ["--data.dataset=folder", "--data.root=colours", "--data.batch_size=16"]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CVCC_ZOO_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def rename(root: Path, **names: str) -> None:
    """Rename class folders, so that their order changes and the images stay."""
    for split in ("train", "test"):
        for old, new in names.items():
            (root / split / old).rename(root / split / new)


def turn_around(root: Path) -> None:
    """`blue` and `red` become `RED` and `Blue_`, in the same place: now the first class is red."""
    rename(root, blue="the blue", red="Red")
    rename(root, **{"the blue": "blue"})


def test_names_are_compared_without_what_people_write_differently() -> None:
    assert plain_name("Sea lion") == plain_name("sea_lion") == plain_name("SEA-LION")
    assert plain_name(unicodedata.normalize("NFD", "Löwe")) == plain_name(unicodedata.normalize("NFC", "löwe"))
    assert plain_name("T-shirt/top") == plain_name("t_shirt_top") != plain_name("shirt")
    assert len({plain_name(name) for name in ("猫", "犬", "+", "-", "c++", "c#")}) == 6 - 1  # c++ and c# are both "c"


def test_the_same_names_are_matched_and_others_are_not() -> None:
    assert matching(["cat", "dog", "cow"], ["Cow", "cat", "DOG"]) == [2, 0, 1]
    assert matching(["a b", "a_b"], ["a_b", "a b"]) == [1, 0]  # exact names first
    assert matching(["a b", "a_b"], ["A B", "A_B"]) is None  # no way to tell them apart
    assert matching(["cat", "dog"], ["cat", "hog"]) is matching(["cat", "dog"], ["cat"]) is None
    assert differences(["automobile", "cat"], ["car", "cat"]) == "'car' is unexpected and 'automobile' is missing"
    assert differences(["CD4+", "CD4-"], ["CD4+", "CD8"]) == "'CD8' is unexpected and 'CD4-' is missing"


def test_classes_can_be_numbered_in_another_order(colours: Path) -> None:
    data = ImageDataModule("folder", str(colours), validation=0.2)
    images, before, _ = data.training_images()
    data.order_as(["RED", "blue"])
    again, after, _ = data.training_images()
    assert torch.equal(images, again) and torch.equal(after, 1 - before) and data.classes == ("RED", "blue")
    assert data.val_dataloader().labels.tolist() == after.tolist()
    assert data.val_dataloader().labels is after  # one object, which a GPU needs only once
    data.setup("test")
    assert data.test_dataloader().labels.tolist() == [1] * 6 + [0] * 6  # loaded after it
    data.order_as(["blue", "red"])
    assert torch.equal(data.training_images()[1], before)
    with pytest.raises(ValueError, match="colours has other classes: 'blue' is unexpected and 'green' is missing"):
        data.order_as(["red", "green"])


def test_a_checkpoint_names_its_classes_and_images(fit: Fit, colours: Path) -> None:
    assert fit("--model=linear") == 0
    content = torch.load("runs/linear-colours/last.ckpt", weights_only=True)["cvcc_zoo"]
    assert content["classes"] == ["blue", "red"]
    assert content["data"]["title"] == "colours" and content["data"]["train"]["images"] == 40
    summary = json.loads(Path("runs/linear-colours/summary.json").read_text())
    assert content["data"]["train"] == summary["data"]["train"] and len(content["seen_images"]) == 40
    assert content["data"]["val"]["images"] == 4
    assert load("runs/linear-colours").classes == ("blue", "red")


def test_a_checkpoint_keeps_the_images_of_the_trainings_before(fit: Fit, make_folder: MakeFolder) -> None:
    assert fit("--model=linear", "--run=first") == 0
    seen = torch.load("first/best.ckpt", weights_only=True)["cvcc_zoo"]["seen_images"]
    public = ImageDataModule(image_size=8, in_channels=3)
    other = ImageDataModule(root=str(make_folder("other", classes=("cat", "dog"))))
    started = create("linear", num_classes=2, image_size=8)
    assert use_weights(started, read_checkpoint("first"), ["blue", "red"]) is None
    resumed = type(started).load_from_checkpoint("first/best.ckpt")
    for model in (load("first"), create("first", num_classes=5), started, resumed):
        see_images(model, public)
        assert torch.equal(training_data(model, public)["seen_images"], seen) and len(seen) == 40
        for _ in range(2):
            see_images(model, other)
            assert len(training_data(model, other)["seen_images"]) == 80


def test_images_of_an_evaluation_are_no_images_of_a_training(fit: Fit, make_folder: MakeFolder) -> None:
    assert fit("--model=linear", "--run=first") == 0
    model, trainer = load("first"), Trainer(**SILENT)
    trainer.test(model, ImageDataModule(root=str(make_folder("more", val=3)), batch_size=16))
    trainer.save_checkpoint("tested.ckpt")
    assert torch.load("tested.ckpt", weights_only=True)["cvcc_zoo"]["seen_images"].shape == (40,)


def test_a_run_is_used_without_its_data_and_publishes_where_they_are_now(
    fit: Fit, colours: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fit("--model=linear")
    run = "runs/linear-colours"
    before = load(run)
    shutil.copytree(colours, "elsewhere")
    rename(colours, blue="cat", red="dog")
    assert find_trained(run).classes == ["blue", "red"]  # not those that are at the place now
    shutil.rmtree(colours)
    Image.new("RGB", (8, 8), (250, 20, 20)).save("a.png")
    capsys.readouterr()
    assert main(["predict", run, "a.png"]) == 0
    assert "red" in capsys.readouterr().out
    assert main(["publish", run, "--root=elsewhere"]) == 0
    assert create("linear.colours").classes == before.classes == ("blue", "red")


def test_classes_in_another_order_are_matched_by_name(
    fit: Fit, colours: Path, home: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    fit("--model=linear", "--trainer.max_epochs=5")
    assert main(["publish", "runs/linear-colours"]) == 0
    turn_around(colours)
    assert ImageDataModule("folder", str(colours)).classes == ("Red", "blue")
    capsys.readouterr()
    assert main(["evaluate", "linear.colours", *DATA]) == 0
    printed = capsys.readouterr()
    assert "the card holds: the same images, and as many correct" in printed.out
    assert (
        "colours are matched with the model's by name:\n    0 Red  ->   1 red\n    1 blue ->   0 blue\n" in caplog.text
    )
    summary = json.loads(Path("runs/linear-colours/summary.json").read_text())
    assert main(["test", "--run=runs/linear-colours", *DATA]) == 0
    accuracy = next(line for line in capsys.readouterr().out.splitlines() if "test/accuracy" in line)
    assert float(accuracy.split("│")[2]) == pytest.approx(summary["test_accuracy"])
    assert main(["predict", "--run=runs/linear-colours", *DATA]) == 0
    rows = Path("runs/linear-colours/predictions-colours.csv").read_text().splitlines()[1:]
    right = sum(row.split(",")[1] == row.split(",")[2] for row in rows)
    assert right / len(rows) == summary["test_accuracy"] > 0.8


@pytest.mark.filterwarnings("ignore:Be aware that when using")  # Lightning's, of the run's callbacks
def test_a_training_goes_on_with_its_own_order_of_the_classes(fit: Fit, colours: Path) -> None:
    fit("--model=linear", "--trainer.max_epochs=2", "--data.validation=0", "--run=whole")
    fit("--model=linear", "--trainer.max_epochs=2", "--data.validation=0", "--run=half", "--trainer.max_steps=2")
    weights = load("half").state_dict()
    rename(colours, blue="the blue", red="Red")
    rename(colours, **{"the blue": "blue"})
    data = ImageDataModule("folder", str(colours), batch_size=16, validation=0)
    model = create("linear", num_classes=2, image_size=8)
    Trainer(max_epochs=2, **SILENT).fit(model, data, ckpt_path="half/last.ckpt", weights_only=True)
    assert model.classes == data.classes == ("blue", "red")
    assert any(not torch.equal(weights[name], value) for name, value in model.state_dict().items())


def test_other_training_images_are_refused_when_a_training_goes_on(
    fit: Fit, colours: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fit("--model=linear", "--data.validation=0", "--run=first")
    content = torch.load("first/last.ckpt", weights_only=True)
    content["callbacks"]["RunFolder"]["ended"] = False  # as if it were to go on
    torch.save(content, "first/last.ckpt")
    again = ["fit", "--config=first/config.yaml", "--ckpt_path=first/last.ckpt", "--trainer.max_epochs=3"]
    (colours / "train/red/000.png").unlink()
    before = Path("first/last.ckpt").read_bytes()
    assert main([*again, "--run=second"]) == 2
    printed = capsys.readouterr().err
    assert "with other options: trainer.max_epochs was 1 and is 3" in printed
    again = ["fit", "--config=first/config.yaml", "--ckpt_path=first/last.ckpt"]
    assert main([*again, "--run=second"]) == 2
    printed = capsys.readouterr().err
    assert "the training images are not those of the checkpoint: 40 images then" in printed and "39 now" in printed
    assert not Path("second").exists() and Path("first/last.ckpt").read_bytes() == before
    assert main([*again, "--run=second", "--allow_changes=true", "--trainer.max_epochs=2"]) == 0


@pytest.mark.filterwarnings("ignore:Be aware that when using")  # Lightning's, of the run's callbacks
def test_a_training_does_not_go_on_when_others_of_the_same_images_are_held_out(
    fit: Fit, colours: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    fit("--model=linear", "--run=first", "--data.validation=0.25")
    content = torch.load("first/last.ckpt", weights_only=True)
    content["callbacks"]["RunFolder"]["ended"] = False  # as if it were to go on
    torch.save(content, "first/last.ckpt")
    assert main(["validate", "--run=first"]) == 0 and "held out other images" not in caplog.text
    for path in sorted((colours / "train/red").iterdir()):
        path.rename(path.with_name(f"{99 - int(path.stem)}.png"))
    again = ["fit", "--config=first/config.yaml"]
    assert main([*again, "--ckpt_path=first/last.ckpt", "--run=second"]) == 2
    printed = capsys.readouterr().err
    assert "the validation images are not those of the checkpoint: 10 images then" in printed
    assert "restore what chooses them (the names of folders and files, validation and split_seed)" in printed
    assert not Path("second").exists()
    for command, told in (("test", 0), ("validate", 1)):
        assert main([command, "--run=first"]) == 0
        assert caplog.text.count("first held out other images for validation than colours does now") == told
    assert main([*again, "--ckpt_path=first/last.ckpt", "--run=second", "--allow_changes=true"]) == 0


def test_other_classes_are_refused_where_a_model_is_used(
    fit: Fit, home: Path, colours: Path, make_folder: MakeFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    fit("--model=linear")
    assert main(["publish", "runs/linear-colours"]) == 0
    runs = Path("runs").rename("kept")
    make_folder("others", classes=("azure", "red"))
    other = ["--data.dataset=folder", "--data.root=others"]
    for command in (
        ["evaluate", "linear.colours"],
        ["scores", "linear.colours"],
        ["test", f"--run={runs}/linear-colours"],
        ["predict", f"--run={runs}/linear-colours"],
    ):
        printed = message(capsys, [*command, *other])
        assert "the model's classes are not those of others: 'azure' is unexpected and 'blue' is missing" in printed
        assert "rename the class folders if they are the same, or train a new classifier" in printed


def test_weights_of_other_classes_get_a_new_classifier_and_of_the_same_in_any_order_keep_theirs(
    fit: Fit, colours: Path, make_folder: MakeFolder, caplog: pytest.LogCaptureFixture
) -> None:
    fit("--model=linear", "--run=first", "--trainer.max_epochs=5")
    make_folder("others", classes=("azure", "red"))
    still = ["--model=linear", "--optimizer=SGD", "--optimizer.lr=0", *QUICK]
    caplog.set_level("INFO")
    other = ["--data.dataset=folder", "--data.root=others", *still]
    assert main(["fit", *other, "--weights=first", "--run=second"]) == 0
    assert "with a new classifier" in caplog.text
    assert "a new classifier that keeps what they know of 'red'" in caplog.text
    assert load("second").classes == ("azure", "red")
    (new_azure, new_red), (_, red) = (load(run).state_dict()["network.fc.weight"] for run in ("second", "first"))
    assert torch.equal(new_red, red) and not new_azure.any()  # as in a new linear classifier
    turn_around(colours)
    assert main(["fit", *DATA, *still, "--weights=first", "--run=third"]) == 0
    assert "with their classifier" in caplog.text
    assert load("third").classes == ("blue", "red")
    assert json.loads(Path("third/summary.json").read_text())["test_accuracy"] > 0.8


def test_a_model_with_names_is_not_trained_further_on_others_in_silence(colours: Path, make_folder: MakeFolder) -> None:
    model = create("linear", num_classes=2, image_size=8)
    Trainer(max_epochs=1, **SILENT).fit(model, ImageDataModule("folder", str(colours)))
    assert model.classes == ("blue", "red")
    others = ImageDataModule("folder", str(make_folder("others", classes=("azure", "red"))))
    with pytest.raises(ValueError, match=r"the model's classes are not those .* create\(..., new_head=True\)"):
        Trainer(max_epochs=1, **SILENT).fit(model, others)
    with pytest.raises(ValueError, match="the model's classes are not those"):
        Trainer(**SILENT).test(model, others)


def test_images_of_other_classes_are_predicted_without_their_classes(make_folder: MakeFolder) -> None:
    model = create("linear", num_classes=2, image_size=8, whitening="none")
    model.classes = ("blue", "red")
    others = ImageDataModule("folder", str(make_folder("others", classes=("azure", "grey", "red"))))
    with pytest.raises(ValueError, match=r"to predict them anyway, in Python: Trainer\(\).predict"):
        Trainer(**SILENT).predict(model, others)
    found: Any = Trainer(**SILENT).predict(model, dataloaders=others.test_dataloader())
    probabilities, labels = found[0]
    assert probabilities.shape == (len(labels), 2)


def test_weights_of_ten_classes_are_refused_for_a_hundred(
    make_folder: MakeFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    make_folder("three", classes=("a", "b", "c"), size=32)
    printed = message(capsys, ["evaluate", "linear.cifar100", "--data.dataset=folder", "--data.root=three"])
    assert "the model's classes are not those of three: 'a', 'b', 'c' are unexpected and 'apple'" in printed


def test_a_checkpoint_with_wrong_names_is_refused(fit: Fit) -> None:
    fit("--model=linear")
    path = Path("runs/linear-colours/last.ckpt")
    content = torch.load(path, weights_only=True)
    wrong: list[object] = [["blue"], "blue", [1, 2], ["blue", "x" * 2000]]
    for names in wrong:
        content["cvcc_zoo"]["classes"] = names
        torch.save(content, path)
        with pytest.raises(ValueError, match="does not name the 2 classes of its model; get it again"):
            load(path)


def test_a_training_does_not_go_on_from_what_names_no_images(fit: Fit, capsys: pytest.CaptureFixture[str]) -> None:
    fit("--model=linear", "--data.validation=0", "--run=first")
    path = Path("first/last.ckpt")
    content = torch.load(path, weights_only=True)
    content["callbacks"]["RunFolder"]["ended"] = False  # as if it were to go on
    wrong: list[object] = [[], {}, {"train": 1}, {"train": {"sha256": 5, "images": 40}}]
    for data in wrong:
        content["cvcc_zoo"]["data"] = data
        torch.save(content, path)
        assert main(["fit", "--config=first/config.yaml", "--ckpt_path=first/last.ckpt", "--run=second"]) == 2
        assert "record of its training images is incomplete" in capsys.readouterr().err and not Path("second").exists()


def test_the_same_images_are_held_out_whenever_the_classes_are_ordered(colours: Path) -> None:
    positions = []
    for early in (True, False):
        data = ImageDataModule("folder", str(colours), validation=0.25)
        if early:
            data.order_as(["red", "blue"])
        positions.append(data.training_images()[2].tolist())
        if not early:
            data.order_as(["red", "blue"])
        assert data.training_images()[1].tolist() == [1] * 20 + [0] * 20
    assert positions[0] == positions[1]
