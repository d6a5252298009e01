"""From a run to published weights, and their card measured again."""

import dataclasses
import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from filelock import FileLock, Timeout
from PIL import Image
from torchmetrics.functional.classification import multiclass_calibration_error

from cvcc_zoo import ImageDataModule, create, load
from cvcc_zoo.__main__ import main
from cvcc_zoo.classifier.arguments import OF_WEIGHTS
from cvcc_zoo.classifier.compatibility import complete
from cvcc_zoo.data.identity import identity_of
from cvcc_zoo.data.known import Known
from cvcc_zoo.report.page import page
from cvcc_zoo.report.reports import read_run
from cvcc_zoo.runs.calibration import fit_temperature
from cvcc_zoo.runs.changes import ELSEWHERE, changed_recipe
from cvcc_zoo.runs.measure import measure, unlike_summary
from cvcc_zoo.runs.repeats import OF_SEEDS, difference, recipe
from cvcc_zoo.runs.scores import scores
from cvcc_zoo.runs.written import read_config
from cvcc_zoo.weights.card import PUBLISHED, read, read_card, write, write_card
from cvcc_zoo.zoo.published import check_place
from tests.conftest import QUICK, Fit, MakeFolder, message, on, write_folder


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CVCC_ZOO_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with coloured images and a finished run of a linear classifier on them."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["fit", "--model=linear", *on(write_folder(folder / "colours"))]) == 0
    return folder


@pytest.fixture
def linear(trained: Path, colours: Path) -> Path:
    """A copy of that run in the folder of a test, on the images of the test, which are the same."""
    run = Path("runs/linear-colours")
    shutil.copytree(trained / run, run)
    config = (run / "config.yaml").read_text()
    assert str(trained) in config
    (run / "config.yaml").write_text(config.replace(str(trained), str(colours.parent)))
    return run


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


def test_who_publishes_under_a_name_of_the_package_is_told_that_it_comes_first(
    linear: Path, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("cvcc_zoo.weights.card.PUBLISHED", Path("package").absolute())
    linear.rename("mine")
    told = f"the name linear.colours means {Path('package').absolute()}/linear.colours.json; use the new weights"
    for more, hidden in ((["--folder=package"], False), ([], True), (["--folder=home"], True), (["--tag=x"], False)):
        capsys.readouterr()
        assert main(["publish", "mine", *more]) == 0
        assert (told in capsys.readouterr().out) is hidden


def test_a_card_that_does_not_hold_is_told(
    linear: Path, colours: Path, home: Path, make_folder: MakeFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["publish", "runs/linear-colours", f"--folder={home}"]) == 0
    path = home / "linear.colours.json"
    content = json.loads(path.read_text())
    content["measured"]["correct"] += 1
    path.write_text(json.dumps(content))
    capsys.readouterr()
    assert main(["evaluate", "linear.colours", "--data.dataset=folder", f"--data.root={colours}"]) == 1
    assert "the card does not hold: it has" in capsys.readouterr().out
    other = make_folder("others", size=9)
    again = ["--data.dataset=folder", f"--data.root={other}", "--data.image_size=8"]
    assert main(["evaluate", "linear.colours", *again]) == 0
    printed = capsys.readouterr().out
    assert "other images than the card's, where" in printed and printed.rstrip().endswith("0 of 12 are the same")


DATA = ["--data.dataset=folder", "--data.root=colours"]


def without_splits(colours: Path) -> None:
    """Leave class folders alone, 40 images in all."""
    for each in sorted((colours / "train").iterdir()):
        each.rename(colours / each.name)
    for name in ("train", "test"):
        shutil.rmtree(colours / name)


def test_no_training_images_are_counted_for_a_card(
    fit: Fit, colours: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    without_splits(colours)
    fit("--model=linear", "--data.test=0.5")
    assert main(["publish", "runs/linear-colours"]) == 0
    shutil.rmtree("runs")
    path = home / "linear.colours.json"
    evaluate, warned = ["evaluate", "linear.colours", *DATA, "--data.test=0.5"], "perhaps also on its test images; then"
    capsys.readouterr()
    assert main(evaluate) == 0 and main([*evaluate, "--update_card=true"]) == 0
    assert warned not in capsys.readouterr().out
    before = path.read_bytes()
    evaluate.append("--data.split_seed=1")
    assert main(evaluate) == 0
    assert warned in " ".join(capsys.readouterr().out.split())
    refused = message(capsys, [*evaluate, "--update_card=true"])
    assert "the card is not changed: linear.colours was trained on other images" in refused and warned in refused
    assert path.read_bytes() == before


def test_a_part_of_the_test_images_of_a_card_has_no_training_images(
    linear: Path, colours: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["publish", "runs/linear-colours"]) == 0
    first, *_ = sorted((colours / "train").rglob("*.png"))
    next((colours / "test").rglob("*.png")).unlink()
    first.unlink()
    capsys.readouterr()
    assert main(["evaluate", "linear.colours", *DATA]) == 0
    assert "11 of 12 are the same" in (out := capsys.readouterr().out) and "trained on other images" not in out


def test_what_others_add_to_a_card_while_it_is_measured_stays(
    linear: Path, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    linear.rename("first")
    assert main(["publish", "first"]) == 0
    path, calibration = home / "linear.colours.json", {"temperature": 2.0, "fitted_on": "others"}
    changes: list[dict[str, Any]] = []

    def meanwhile(*arguments: Any, **options: Any) -> Any:
        write_card(path, dataclasses.replace(read_card(path), **changes.pop()))
        return measure(*arguments, **options) if options else calibration

    for name in ("evaluate.measure", "publish.temperature_of"):
        monkeypatch.setattr(f"cvcc_zoo.commands.{name}", meanwhile)
    before = read_card(path)
    seeds = before.training | {"test_accuracy_of_seeds": {"0": 0.5, "1": 0.75}}
    changes.append({"training": seeds, "measured": before.measured | {"calibration": calibration}})
    assert main(["evaluate", "linear.colours", *DATA, "--update_card=true"]) == 0
    assert (found := read_card(path)).training == seeds and found.measured["calibration"] == calibration
    assert found.measured.keys() == before.measured.keys() | {"calibration"}
    write_card(path, before)
    changes.append({"training": seeds})
    assert main(["publish", "linear.colours", "--calibrate=first"]) == 0
    assert (found := read_card(path)).training == seeds and found.measured["calibration"] == calibration
    write_card(path, before)
    changes.append({"sha256": "0" * 64})
    refused = message(capsys, ["evaluate", "linear.colours", *DATA, "--update_card=true"])
    assert "linear.colours.json has become the card of other weights and is not changed" in refused
    assert read_card(path) == dataclasses.replace(before, sha256="0" * 64)


def test_accuracies_of_seeds_on_other_test_images_are_not_mixed(
    fit: Fit, linear: Path, colours: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    linear.rename("seed0")
    fit("--model=linear", "--seed_everything=1", "--run=seed1", "--trainer.precision=bf16-mixed")
    assert main(["publish", "seed0", "--repeats=[seed1]"]) == 0
    path = home / "linear.colours.json"
    update = ["evaluate", "linear.colours", *DATA, "--update_card=true"]
    assert main(update) == 0 and set(OF_SEEDS) < read_card(path).training.keys()
    Image.new("RGB", (8, 8), (1, 2, 3)).save(colours / "test/red/001.png")
    assert main(update) == 0 and not read_card(path).training.keys() & OF_SEEDS
    refused = message(capsys, ["publish", "linear.colours", "--repeats=[seed1]"])
    assert "seed1 does not repeat the training with another seed: it was tested on other images" in refused
    refused = message(capsys, ["publish", "seed0", "--repeats=[seed1]"])
    assert "seed0 was tested on other images than colours has now, so its accuracy is not compared with" in refused


def test_how_many_test_images_are_the_same_is_counted(
    linear: Path, colours: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["publish", "runs/linear-colours"]) == 0
    for name in ("001", "004"):
        Image.new("RGB", (8, 8), (1, 2, 3)).save(colours / f"test/red/{name}.png")
    capsys.readouterr()
    assert main(["evaluate", "linear.colours", *DATA]) == 0
    assert "other images than the card's, where" in (printed := capsys.readouterr().out)
    assert printed.rstrip().endswith("10 of 12 are the same")


def test_weights_are_measured_and_calibrated_on_images_prepared_as_in_training(
    fit: Fit, colours: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    generator = np.random.default_rng(0)
    for path in colours.rglob("*.png"):
        Image.fromarray(generator.integers(0, 256, (9, 18, 3), dtype=np.uint8)).save(path)
    assert fit("--model=linear", "--data.resize=crop", "--data.image_size=8") == 0
    assert main(["publish", "runs/linear-colours"]) == 0
    capsys.readouterr()
    assert main(["evaluate", "linear.colours", *DATA]) == 0
    assert "the card holds: the same images, and as many correct" in capsys.readouterr().out
    assert main(["evaluate", "linear.colours", *DATA, "--data.resize=pad"]) == 0
    assert "other images than the card's" in capsys.readouterr().out
    assert main(["calibrate", "linear.colours", *DATA]) == 2
    assert "4 images are too few to fit a temperature" in capsys.readouterr().err  # and they are those of the training


def test_the_order_of_the_images_does_not_matter_to_a_card(
    linear: Path, colours: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["publish", "runs/linear-colours"]) == 0
    for path in sorted((colours / "test").glob("*/*.png")):
        path.rename(path.with_name(f"{(int(path.stem) * 5 + 3) % 6}.png"))
    capsys.readouterr()
    assert main(["evaluate", "linear.colours", *DATA]) == 0
    assert "the card holds: the same images, and as many correct" in capsys.readouterr().out


def test_a_card_without_test_images_says_which_command_measures_it_again(
    linear: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["publish", "runs/linear-colours"]) == 0
    path = home / "linear.colours.json"
    content = json.loads(path.read_text())
    measured = content["measured"]
    content["measured"] = {"test_accuracy": 0.0, "correct": 0}
    path.write_text(json.dumps(content))
    capsys.readouterr()
    assert main(["--import=colorsys", "evaluate", "linear.colours", *DATA]) == 1
    advice = f"measure it again: cvcc-zoo --import=colorsys evaluate {path} --data... --update_card=true"
    assert f"does not say how many of which test images were correct; {advice}" in capsys.readouterr().out
    assert main(["evaluate", str(path), *DATA, "--update_card=true"]) == 0
    again = read_card(path).measured
    assert {**again, "images_per_second": 0} == {**measured, "images_per_second": 0}


def test_images_that_are_not_cifar10_cannot_be_named_so(
    linear: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    linear.rename("first")
    capsys.readouterr()
    asked = ["publish", "first", "--tag=cifar10", "--dataset=cifar-10"]
    assert "these are not the images of CIFAR-10; choose another --dataset" in message(capsys, asked)
    assert main(["publish", "first", "--tag=cifar10"]) == 0
    assert read_card(home / "linear.cifar10.json").dataset == "cifar10 (other images than CIFAR-10)"


def test_other_weights_of_the_same_name_are_not_replaced(
    fit: Fit, linear: Path, make_folder: MakeFolder, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_folder("other/colours")
    Image.new("RGB", (8, 8)).save("other/colours/train/red/000.png")
    make_folder("named/colours", classes=("cyan", "red"))
    linear.rename("first")
    fit("--model=linear", "--run=again", "--optimizer.lr=0.1")
    for name in ("other", "named"):
        fit("--model=linear", f"--data.root={name}/colours", f"--run=run_{name}")
    assert main(["publish", "first"]) == 0 and main(["publish", "first"]) == 0 and main(["publish", "again"]) == 0
    path = home / "linear.colours.json"
    before = [file.read_bytes() for file in (path, path.with_suffix(".safetensors"))]
    fit("--model=linear", "--data.whitening=none", "--model.features=[{name: PCA, components: 2}]", "--run=run_hog")
    for name in ("other", "named", "hog"):
        refused = message(capsys, ["publish", f"run_{name}"])
        assert "linear.colours.json describes weights of another network, or for other images or classes" in refused
    assert before == [file.read_bytes() for file in (path, path.with_suffix(".safetensors"))]
    assert main(["publish", "run_other", "--tag=others"]) == 0
    assert main(["publish", "run_named", "--folder=new"]) == 0


def test_weights_of_another_network_are_not_replaced_and_those_of_another_training_are(tmp_path: Path) -> None:
    card = read_card(PUBLISHED / "cnn.cifar10.json")
    path = tmp_path / f"{card.name}.json"
    write_card(path, card)
    assert check_place(path, card) == card
    assert check_place(path, dataclasses.replace(card, hparams=card.hparams | {"dropout": 0.1, "optimizer": "SGD"}))
    wrapped = {name: card.hparams[name] for name in OF_WEIGHTS} | {"network": "nets.Small", "network_options": {"a": 1}}
    for family, before, now in (
        (card.family, card.hparams, card.hparams | {"activation": "gelu"}),
        ("Wrapped", wrapped, wrapped | {"network_options": {"a": 2}}),
        ("Wrapped", wrapped, wrapped | {"network": "more.Small"}),
    ):
        write_card(path, dataclasses.replace(card, family=family, hparams=before))
        with pytest.raises(ValueError, match="describes weights of another network"):
            check_place(path, dataclasses.replace(card, family=family, hparams=now))


def test_a_run_that_is_published_again_keeps_what_was_added_to_its_card(
    linear: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    publish = ["publish", str(linear)]
    assert main([*publish, "--dtype=float32"]) == 0
    path = home / "linear.colours.json"
    card = read_card(path)
    more = {"corruptions": {"mean": 0.5}}
    seeds = {"test_accuracy_of_seeds": {"0": 1.0, "1": 0.5}}
    write_card(path, dataclasses.replace(card, measured=card.measured | more, training=card.training | seeds))
    assert main([*publish, "--dtype=float32"]) == 0
    again = read_card(path)
    assert again.training == card.training | seeds and again.measured.items() >= more.items()
    assert "this replaces" not in capsys.readouterr().out
    assert main([*publish, "--dtype=float16"]) == 0
    assert "this replaces the accuracy under corruption\n" in capsys.readouterr().out
    earlier, fitted = again.training | {"finished": "2020"}, {"calibration": {"temperature": 2.0}}
    write_card(path, dataclasses.replace(again, training=earlier, measured=again.measured | fitted))
    assert main(publish) == 0 and "test_accuracy_of_seeds" not in read_card(path).training
    lost = "the weights of the training that ended 2020, the accuracies of 2 seeds, the temperature, the accuracy under"
    assert f"this replaces {lost}" in capsys.readouterr().out


def test_what_others_add_to_a_card_while_its_run_is_published_again_stays(
    linear: Path, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    publish = ["publish", str(linear), "--dtype=float32"]
    assert main(publish) == 0
    path = home / "linear.colours.json"
    card = read_card(path)
    card = dataclasses.replace(card, measured=card.measured | {"corruptions": {"mean": 0.5}})
    added = dataclasses.replace(card, training=card.training | {"test_accuracy_of_seeds": {"0": 1.0, "1": 0.5}})
    other = dataclasses.replace(card, training=card.training | {"finished": "2020"}, sha256="0" * 64)
    changes = [other, added]

    def meanwhile(*arguments: Any, **options: Any) -> Any:
        write_card(path, changes.pop())
        return measure(*arguments, **options)

    monkeypatch.setattr("cvcc_zoo.commands.publish.measure", meanwhile)
    assert main(publish) == 0
    assert (again := read_card(path)).training == added.training and again.measured["corruptions"] == {"mean": 0.5}
    assert "this replaces" not in capsys.readouterr().out
    assert main(publish) == 0
    assert "this replaces the weights of the training that ended 2020, the accuracy under" in capsys.readouterr().out
    assert read(path)[0].training == card.training


def test_weights_and_card_are_written_while_no_other_process_writes_them(
    linear: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = []

    def alone(folder: Path, *arguments: Any, **options: Any) -> Path:
        if folder == home:
            with pytest.raises(Timeout):
                FileLock(home / ".linear.colours.json.lock").acquire(timeout=0)
        written.append(folder)
        return write(folder, *arguments, **options)

    monkeypatch.setattr("cvcc_zoo.commands.publish.write", alone)
    assert main(["publish", str(linear)]) == 0
    assert home in written and len(list(home.iterdir())) == 2


def test_new_weights_beside_the_card_of_earlier_ones_are_mended_by_publishing_again(linear: Path, home: Path) -> None:
    """As after a loss of power between writing the one and the other."""
    assert main(["publish", str(linear)]) == 0
    weights = home / "linear.colours.safetensors"
    content = weights.read_bytes()
    for other in (content[:-4], content[:-4] + b"new!"):
        weights.write_bytes(other)
        with pytest.raises(ValueError, match=r"is not the file that its card describes: .* or publish its run again"):
            load("linear.colours")
        assert main(["publish", str(linear)]) == 0 and weights.read_bytes() == content


def test_a_run_whose_weights_give_other_results_than_its_summary_says_so(
    linear: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    summary = json.loads((linear / "summary.json").read_text())
    right = round(12 * summary["test_accuracy"])
    said = right - 2
    (linear / "summary.json").write_text(json.dumps(summary | {"test_accuracy": said / 12}))
    told = f"its summary says that {said} of 12 test images were correct, and now {right} are; has the code"
    assert main(["evaluate", str(linear)]) == 0 and told in capsys.readouterr().out
    assert told in read_run(linear).remark and told in page([read_run(linear)], "Runs")
    capsys.readouterr()
    assert main(["report", str(linear)]) == 0 and told in capsys.readouterr().out
    assert main(["publish", str(linear)]) == 2 and told in capsys.readouterr().err and not home.exists()
    assert not unlike_summary(summary, right - 1, 12, summary["data"]["test"]["sha256"])
    assert not unlike_summary(summary, 0, 12, "of other images")
    mixed = summary | {"precision": "bf16-mixed; then 32-true", "test_accuracy": 0.5, "images": {"test": 1000}}
    assert not unlike_summary(mixed, 511, 1000, summary["data"]["test"]["sha256"])


def test_a_run_that_has_not_ended_says_so_with_what_its_weights_give(
    linear: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    commands = [["evaluate", str(linear)], ["predict", str(linear), "colours/test"]]
    commands.append(["export", str(linear), "--format=torch_export", f"--output={tmp_path}/a.pt2"])
    for ended in (True, False):
        for command in commands:
            capsys.readouterr()
            assert main(command) == 0
            told = "the run runs/linear-colours has not ended: these are its weights so far" in capsys.readouterr().out
            assert told is not ended
        (linear / "summary.json").unlink(missing_ok=True)


def test_a_run_with_a_limited_test_says_so_and_is_published_with_a_test_of_all_images(
    fit: Fit, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    limited, told = ["--data.batch_size=4", "--trainer.limit_test_batches=1"], "its summary is of 4 of 12 test images"
    assert fit("--model=linear", *limited, "--run=seed0") == 0
    assert main(["evaluate", "seed0"]) == 0 and told in capsys.readouterr().out
    content = page([read_run(Path("seed0"))], "Run")
    assert told in content and "of 4 images</td>" in content
    assert main(["publish", "seed0"]) == 0
    assert read_card(home / "linear.colours.json").measured["test_images"] == 12
    assert "seed0 was tested on 4 of 12 test images" in message(capsys, ["publish", "seed0", "--repeats=[seed0]"])


def test_a_folder_of_a_known_data_set_is_called_by_its_name(
    fit: Fit, colours: Path, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = ImageDataModule("folder", str(colours))
    pair = Known("Two Colours", "two", train=identity_of(data, "train").sha256, test=identity_of(data, "test").sha256)
    monkeypatch.setattr("cvcc_zoo.data.identity.KNOWN", (pair,))
    assert fit("--model=linear") == 0
    assert "linear on Two Colours" in capsys.readouterr().out
    summary = json.loads(Path("runs/linear-colours/summary.json").read_text())
    assert summary["known_as"] == "Two Colours"
    known = {"name": "Two Colours", "images": 12, "sha256": pair.test}
    assert summary["data"]["test"] == {**known, "in_training": 0}
    assert main(["publish", "runs/linear-colours"]) == 0
    card = read_card(home / "linear.two.json")
    assert card.dataset == card.training["train_set"]["name"] == "Two Colours"
    path = colours / "test/red/000.png"
    Image.new("RGB", (8, 8)).save(path)
    assert fit("--model=linear") == 0
    assert "linear on colours" in capsys.readouterr().out


def test_a_run_whose_training_images_changed_is_not_published(
    linear: Path, colours: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    linear.rename("first")
    Image.new("RGB", (8, 8)).save(colours / "train/red/000.png")
    assert "colours does not have the images that first was trained on" in message(capsys, ["publish", "first"])
    assert not home.exists()


def test_a_temperature_is_fitted_on_validation_images_of_another_run(
    fit: Fit, colours: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with_wrong_labels(colours)
    fit("--model=linear", "--data.validation=0", "--run=first")
    fit("--model=linear", "--data.validation=0.25", "--run=second", "--trainer.max_epochs=2")
    fit("--model=linear", "--run=third", "--optimizer=SGD")
    assert main(["publish", "first", "--calibrate=second"]) == 0
    measured = read_card(home / "linear.colours.json").measured
    assert measured["calibration"]["fitted_on"] == "10 validation images of a training of 2 epochs, seed 0"
    logits, labels = scores(load("second"), ImageDataModule("folder", "colours", validation=0.25), split="val")
    assert measured["calibration"]["temperature"] == round(fit_temperature(logits, labels), 4)
    logits, labels = scores(load(home / "linear.colours.json"), ImageDataModule("folder", "colours"))
    error = multiclass_calibration_error((logits / measured["calibration"]["temperature"]).softmax(1), labels, 2)
    assert measured["calibration_error_with_temperature"] == pytest.approx(float(error), abs=1e-6)
    capsys.readouterr()
    assert main(["evaluate", "linear.colours", *DATA]) == 0
    assert "with its temperature" in capsys.readouterr().out
    before = read_card(home / "linear.colours.json")
    assert main(["publish", "first"]) == 0 and "calibration" not in read_card(home / "linear.colours.json").measured
    assert main(["publish", "linear.colours", "--calibrate=second"]) == 0  # the same, by the name of the weights
    after = read_card(home / "linear.colours.json").measured
    assert {name for name in after if after[name] != before.measured[name]} <= {"images_per_second"}
    assert after.keys() == before.measured.keys()
    no_images = message(capsys, ["publish", "second", "--calibrate=first"])
    assert "first has no validation images; train the recipe with --data.validation=0.1" in no_images
    other = message(capsys, ["publish", "first", "--calibrate=third"])
    assert "third has another recipe than the published run: its optimizer.name" in other


def test_the_fitted_temperature_undoes_one_that_was_put_in() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(20_000, 5, generator=generator)
    labels = torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]
    assert fit_temperature(3 * logits, labels) == pytest.approx(3, rel=0.05)


def test_an_untested_run_is_published_with_numbers_of_its_own_file_but_is_no_repeat(
    fit: Fit, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fit("--model=linear", "--test=false", "--run=first") == 0
    assert fit("--model=linear", "--test=false", "--seed_everything=1", "--run=second") == 0
    capsys.readouterr()
    assert main(["publish", "first"]) == 0
    assert "first was trained with --test=false: the test images were first used now" in capsys.readouterr().out
    assert 0 <= read_card(home / "linear.colours.json").measured["test_accuracy"] <= 1
    advice = "the runs of the seeds 0, 1 were trained with --test=false and have no test accuracy; test them"
    assert advice in message(capsys, ["publish", "first", "--repeats=[second]"])


def test_seeds_are_added_to_a_card_whose_run_is_gone(
    fit: Fit, linear: Path, home: Path, make_folder: MakeFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    linear.rename("seed0")
    for seed, more in enumerate([[], ["--trainer.precision=bf16-mixed"]], start=1):
        assert fit("--model=linear", f"--seed_everything={seed}", f"--run=seed{seed}", *more) == 0
    reached = {str(n): json.loads(Path(f"seed{n}/summary.json").read_text())["test_accuracy"] for n in range(3)}
    assert main(["publish", "seed0", "--repeats=[seed1, seed2]"]) == 0
    whole = read_card(home / "linear.colours.json").training
    assert whole["test_accuracy_of_seeds"] == reached
    assert whole["precision_of_seeds"] == {"0": "32-true", "1": "32-true", "2": "bf16-mixed"}
    assert main(["publish", "seed0", "--repeats=[seed1]"]) == 0
    assert "this replaces the accuracies of 3 seeds" in capsys.readouterr().out
    Path(home / "linear.colours.json").unlink()
    assert main(["publish", "seed0"]) == 0
    shutil.rmtree("seed0")
    for number in (1, 2):
        assert main(["publish", "linear.colours", f"--repeats=[seed{number}]"]) == 0
    assert read_card(home / "linear.colours.json").training == whole
    assert "linear.colours: 3 seeds, test accuracy " in capsys.readouterr().out
    publish = ["publish", "linear.colours"]
    assert "the accuracy of seed 1 is known already" in message(capsys, [*publish, "--repeats=[seed1]"])
    assert "--tag belongs to new weights" in message(capsys, [*publish, "--tag=x", "--repeats=[seed1]"])
    assert "linear.colours is published; give a run folder, or add to its card" in message(capsys, publish)
    fit("--model=linear", "--seed_everything=3", "--data.batch_size=7", "--run=other")
    fewer = message(capsys, [*publish, "--repeats=[other]"])
    assert "other does not repeat the training with another seed: its recipe has another data.batch_size" in fewer
    Image.new("RGB", (8, 8)).save(make_folder("others") / "train/red/000.png")
    fit("--model=linear", "--seed_everything=3", "--data.root=others", "--run=elsewhere")
    assert "it was trained on other images" in message(capsys, [*publish, "--repeats=[elsewhere]"])
    assert read_card(home / "linear.colours.json").training == whole


def test_a_run_that_was_resumed_with_another_recipe_says_so_and_repeats_none(
    fit: Fit, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed in (0, 1):
        assert fit("--model=linear", f"--seed_everything={seed}", f"--run=seed{seed}", "--optimizer.lr=0.1") == 0
    again = ["fit", "--config=seed0/config.yaml", "--ckpt_path=last", "--allow_changes=true"]
    assert main([*again, "--trainer.max_epochs=2", "--trainer.log_every_n_steps=1"]) == 0
    assert main([*again, "--trainer.max_epochs=3", "--optimizer.lr=0.01"]) == 0
    changed = json.loads(Path("seed0/summary.json").read_text())["changed"]
    assert changed.startswith("trainer.max_epochs was 1 and is 2; then trainer.max_epochs was 2 and is 3, ")
    assert changed.endswith(", optimizer.lr was 0.1 and is 0.01")
    assert main(["publish", "seed0"]) == 0
    assert read_card(home / "linear.colours.json").training["changed"] == changed
    for name in ("seed0", "linear.colours"):
        for added in ("--repeats=[seed1]", "--calibrate=seed1"):
            refused = message(capsys, ["publish", name, added])
            assert "the published run was resumed with other options (trainer.max_epochs was 1 and" in refused
    for added in ("--repeats=[seed0]", "--calibrate=seed0"):
        refused = message(capsys, ["publish", "seed1", added])
        assert "seed0 was resumed with other options (trainer.max_epochs was 1 and is 2; then" in refused


def test_a_run_whose_images_and_logs_are_elsewhere_is_resumed_with_its_recipe() -> None:
    before = "{data: {root: a, batch_size: 8}, trainer: {logger: {class_path: CSVLogger}, precision: 32-true}}"
    now = "{data: {root: b, batch_size: 8}, trainer: {logger: false, precision: bf16-mixed}}"
    assert changed_recipe(before, now) == "" and changed_recipe(before, now, "x was 1 and is 2") == "x was 1 and is 2"
    larger = changed_recipe(before, now.replace("8", "9"), "x was 1 and is 2")
    assert larger == "x was 1 and is 2; then data.batch_size was 8 and is 9"
    assert changed_recipe(before, now.replace("root: b", "root: b, follow_links: true, max_pixels: 9")) == ""


def test_the_option_for_images_that_were_moved_is_told(
    linear: Path, colours: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    linear.rename("first")
    colours.rename("moved")
    refused = message(capsys, ["publish", "first"])
    assert "Set it with --root=..." in refused and "--data.root" not in refused
    assert main(["publish", "first", "--root=moved", "--tag=colours"]) == 0


def with_wrong_labels(folder: Path) -> None:
    """Exchange some images of the classes, because no temperature fits a model that is always right."""
    for number in range(6):
        blue, red = (folder / f"train/{colour}/{number:03}.png" for colour in ("blue", "red"))
        pixels = blue.read_bytes()
        blue.write_bytes(red.read_bytes())
        red.write_bytes(pixels)


def test_a_temperature_is_of_a_run_on_the_same_images_wherever_they_are_now(
    fit: Fit, colours: Path, home: Path, make_folder: MakeFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    with_wrong_labels(colours)
    fit("--model=linear", "--data.validation=0", "--run=first")
    fit("--model=linear", "--data.validation=0.5", "--run=second", "--trainer.max_epochs=20")
    fit("--model=linear", "--data.validation=0.5", f"--data.root={make_folder('others')}", "--run=elsewhere")
    colours.rename("moved")
    assert main(["publish", "first", "--calibrate=second", "--root=moved", "--tag=colours"]) == 0
    for name in ("first", "linear.colours"):
        refused = message(capsys, ["publish", name, "--calibrate=elsewhere", "--root=moved"])
        assert "elsewhere was trained on other images than the published run" in refused


def test_a_temperature_is_fitted_to_weights_with_the_classes_in_another_order(
    fit: Fit,
    colours: Path,
    home: Path,
    make_folder: MakeFolder,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with_wrong_labels(colours)
    fit("--model=linear", f"--data.root={make_folder('others', classes=('Red', 'blue'))}", "--run=others0")
    fit("--model=linear", "--weights=others0", "--data.validation=0", "--run=first")
    fit("--model=linear", "--weights=others0", "--data.validation=0.5", "--run=second")
    assert load("second").classes == ("Red", "blue")
    accuracy = json.loads(Path("second/summary.json").read_text())["val_accuracy"]
    logits, labels = scores(load("second"), ImageDataModule("folder", str(colours), validation=0.5), split="val")
    assert float((logits.argmax(1) == labels).float().mean()) == pytest.approx(accuracy)  # the images of the training
    monkeypatch.setattr("cvcc_zoo.runs.repeats.fit_temperature", lambda *_: 2.0)
    assert main(["publish", "first"]) == 0
    assert main(["publish", "linear.colours", "--calibrate=second"]) == 0
    assert read_card(home / "linear.colours.json").measured["calibration"]["temperature"] == 2.0
    capsys.readouterr()
    assert main(["evaluate", "second"]) == 0
    assert "was trained on other images" not in capsys.readouterr().out


def train_another_seed_and_publish_the_first(fit: Fit, linear: Path) -> None:
    linear.rename("seed0")
    assert fit("--model=linear", "--seed_everything=1", "--run=seed1") == 0
    assert main(["publish", "seed0"]) == 0


def test_a_card_that_does_not_tell_its_training_gets_no_seeds(
    fit: Fit, linear: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train_another_seed_and_publish_the_first(fit, linear)
    path = home / "linear.colours.json"
    whole = path.read_text()
    changes: list[tuple[str, object]] = [
        ("train_set", {}),
        ("seed", None),
        ("recipe", "resnet20"),
        ("test_accuracy_of_seeds", [0.5]),
    ]
    for name, value in changes:
        content = json.loads(whole)
        content["training"][name] = value
        path.write_text(json.dumps(content))
        refused = message(capsys, ["publish", "linear.colours", "--repeats=[seed1]"])
        assert "does not say how and on which images its weights were trained; publish the run again" in refused


def test_published_weights_are_found_in_their_folder_and_users_who_do_not_exist_have_no_runs(
    fit: Fit, linear: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train_another_seed_and_publish_the_first(fit, linear)
    for added in ("--repeats=[~nobody-here/x]", "--calibrate=~nobody-here/x"):
        assert "~nobody-here/x is not the folder of a finished run" in message(capsys, ["publish", "home", added])
    assert "~nobody-here/x is not the folder of a finished run" in message(capsys, ["publish", "~nobody-here/x"])
    assert main(["publish", "home", "--repeats=[seed1]"]) == 0
    assert read_card(home / "linear.colours.json").training["test_accuracy_of_seeds"].keys() == {"0", "1"}


def test_options_that_are_younger_than_a_card_have_their_defaults_there(fit: Fit) -> None:
    fit("--model=fcnn", "--model.hidden=[8]")
    now = recipe(read_config(Path("runs/fcnn-colours")))
    before = json.loads(json.dumps(now))
    for options, name in ((before["model"]["init_args"], "init"), (before["data"], "resize")):
        del options[name]
    before["data"]["whitening"] = "standardize"  # the default had a name
    assert difference(now, before, ()) is None
    before["model"]["init_args"]["init"] = "xavier"
    assert difference(now, before, ()) == "model.init_args.init"
    before["data"] |= {"resize": "crop", "whitening": "zca"}
    assert difference(now, before | {"model": now["model"]}, ()) == "data.whitening, data.resize"


def test_runs_of_today_repeat_the_recipe_of_every_published_card() -> None:
    """Some cards lack options that are younger, and have options of records that are left out today."""
    for card in map(read_card, PUBLISHED.glob("*.json")):
        older = card.training["recipe"]
        model, data = older["model"], {"resize": "squash", "follow_links": False, **older["data"], "whitening": None}
        options = complete(model["class_path"].rpartition(".")[2], model["init_args"])
        now = older | {"model": model | {"init_args": options}, "data": data}
        assert difference(now, older, ELSEWHERE) is None and difference(older, now, ELSEWHERE) is None, card.name
        assert difference(now | {"data": data | {"batch_size": 7}}, older, ELSEWHERE) == "data.batch_size", card.name


def test_what_is_logged_where_is_no_part_of_a_recipe(fit: Fit, home: Path) -> None:
    for seed in (0, 1):
        logs = ["--trainer.logger=CSVLogger", f"--trainer.logger.save_dir=secret{seed}"]
        checks = f"--trainer.num_sanity_val_steps={seed}"
        fit("--model=linear", f"--seed_everything={seed}", f"--run=seed{seed}", *logs, checks)
    assert main(["publish", "seed0", "--repeats=[seed1]"]) == 0
    assert "secret" not in (home / "linear.colours.json").read_text()
    now = recipe(read_config(Path("seed0")))
    logger = {"class_path": "WandbLogger", "init_args": {"name": "seed0"}}
    older = now | {"trainer": now["trainer"] | {"logger": logger, "enable_progress_bar": False}}
    assert difference(now, older, ELSEWHERE) is None
    longer = older | {"trainer": older["trainer"] | {"max_epochs": 2}}
    assert difference(now, longer, ELSEWHERE) == "trainer.max_epochs"


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
    assert [found["per_class"][name]["recall"] for name in ("blue", "red")] == [1.0, 0.0]
    assert "top5_accuracy" not in found
    assert "mirrored_accuracy" not in found and found["images_per_second"] > 0
    assert measure(model, data, mirrored=True)["mirrored_accuracy"] == 0.5


def test_the_speed_is_that_of_the_network_without_the_reading_of_the_images(
    colours: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, counts = ImageDataModule("folder", str(colours)), list[int]()

    def clock() -> float:
        counts.append(data.count("test"))  # raises KeyError unless they are read
        return float(len(counts))

    monkeypatch.setattr("cvcc_zoo.runs.measure.time", SimpleNamespace(perf_counter=clock))
    model = create("linear", num_classes=2, image_size=8, whitening="none")
    assert measure(model, data)["images_per_second"] == 12 and counts == [12, 12]


def test_from_twenty_classes_on_the_top_five_are_counted(
    make_folder: MakeFolder, capsys: pytest.CaptureFixture[str], home: Path
) -> None:
    make_folder("many", classes=[f"c{number:02}" for number in range(20)], size=8)
    arguments = ["--data.dataset=folder", "--data.root=many", "--model=linear", *QUICK]
    assert main(["fit", *arguments]) == 0
    assert "top-5 accuracy" in capsys.readouterr().out
    summary = json.loads(Path("runs/linear-many/summary.json").read_text())
    logits, labels = scores(load("runs/linear-many"), ImageDataModule("folder", "many"))
    expected = sum(label in row for row, label in zip(logits.topk(5).indices.tolist(), labels.tolist(), strict=True))
    assert summary["test_top5_accuracy"] == pytest.approx(expected / 120)
    header = Path("runs/linear-many/metrics.csv").read_text().splitlines()[0].split(",")
    assert {"val/top5_accuracy", "test/top5_accuracy"} <= set(header) and "train/top5_accuracy" not in header
    assert main(["publish", "runs/linear-many"]) == 0
    assert read_card(home / "linear.many.json").measured["top5_accuracy"] == expected / 120
    assert main(["evaluate", "linear.many", "--data.dataset=folder", "--data.root=many"]) == 0
    assert f"{100 * expected / 120:.2f} % among the first five" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "advice"),
    [
        (["publish", "nowhere"], "nowhere is not the folder of a finished run: it has no config.yaml"),
        (["publish", "x", "--repeats=s1,s2"], "repeats takes a list or null, not s1,s2; write repeats=[s1,s2]"),
        (["train-zoo", "--only=linear"], "only takes a list or null, not linear; write only=[linear]"),
        (["fit", "--model=fcnn", "--model.hidden=64"], "hidden takes a list, not 64; write hidden=[64]"),
        (["evaluate", "resnet20.cifar11"], "no published weight named 'resnet20.cifar11'"),
        (["evaluate"], "name"),
    ],
)
def test_wrong_input_is_answered_with_advice(
    arguments: list[str], advice: str, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert advice in message(capsys, arguments)
