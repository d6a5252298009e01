"""Images as people have them: folders without splits, other names, transparency, 16 bits, photos."""

import json
import shutil
import unicodedata
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from PIL import Image

from cvcc_zoo import ImageDataModule, create
from cvcc_zoo.__main__ import main
from cvcc_zoo.classifier.training_images import tell_of_known_validation
from cvcc_zoo.data.classes import DIGITS, DIGITS_NOTE
from cvcc_zoo.data.decode import Decoding
from cvcc_zoo.data.folder import image_folder
from cvcc_zoo.data.identity import identity_of
from cvcc_zoo.data.sources import place_of
from cvcc_zoo.files.plain import load_plain
from tests.conftest import QUICK, MakeFolder, message, write_images


@pytest.fixture
def classes(tmp_path: Path) -> Path:
    """Twenty images of blue and of red, without splits."""
    for seed, colour in enumerate(("blue", "red")):
        write_images(tmp_path / "mine" / colour, 20, seed)
    return tmp_path / "mine"


def names(root: Path, split: Any, **options: Any) -> list[str]:
    return ["/".join(Path(path).parts[-2:]) for path, _ in image_folder(root, **options).files[split]]


def test_digits_are_not_mirrored_unless_asked(make_folder: MakeFolder) -> None:
    root = str(make_folder(classes=DIGITS))
    data = ImageDataModule(root=root)
    assert [type(each).__name__ for each in data.augmentations] == ["RandomCrop"]
    assert not data.dataset.mirror and data.dataset.notes == (DIGITS_NOTE,)
    asked = ImageDataModule(root=root, augmentations=["RandomCrop", "HorizontalFlip"])
    assert [type(each).__name__ for each in asked.augmentations] == ["RandomCrop", "HorizontalFlip"]
    others = ImageDataModule(root=str(make_folder("others")))
    assert others.dataset.mirror and others.dataset.notes == ()


def test_classes_without_splits_are_split_stratified_and_by_seed(
    classes: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    assert main(["fit", f"--data.root={classes}", "--data.test=0.2", "--model=linear", *QUICK]) == 0
    printed = caplog.text
    assert "28 training and 4 validation images of 2 classes, 8x8 pixels, colour" in printed
    assert "no train and test folders: 8 of 40 images are held out for testing (--data.test=0.2)" in printed
    assert "of 8 images" in capsys.readouterr().out and "test: 0.2" in Path("runs/linear-mine/config.yaml").read_text()
    train, test = (names(classes, split, test=0.2) for split in ("train", "test"))
    assert len(train) == 32 and not set(train) & set(test)
    assert sum(name.startswith("blue/") for name in test) == 4 and test == names(classes, "test", test=0.2)
    assert test != names(classes, "test", test=0.2, split_seed=1)


def test_a_test_of_images_that_were_held_out_says_once_how_many(
    classes: Path, make_folder: MakeFolder, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    note = "no train and test folders: 8 of 40 images are held out for testing (--data.test=0.2)"
    for stages in (("test",), ("predict", "fit"), ("fit", "test")):
        caplog.clear()
        data = ImageDataModule(root=str(classes), test=0.2)
        for stage in stages:
            data.setup(stage)
        assert caplog.text.count(note) == 1
    data = ImageDataModule(root=str(make_folder(classes=DIGITS)))
    for stage, told in (("test", 0), ("fit", 1)):
        data.setup(stage)
        assert caplog.text.count(DIGITS_NOTE) == told


def test_an_evaluation_after_images_were_added_warns_of_a_test_that_was_trained_on(
    classes: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    assert main(["fit", f"--data.root={classes}", "--model=linear", "--run=mine-run", *QUICK]) == 0
    words = " test images of mine were training or validation images of mine-run, so the accuracy is too high"
    Path("x").mkdir()
    assert main(["evaluate", "mine-run"]) == 0 and words not in capsys.readouterr().out
    assert main(["test", "--run=mine-run"]) == 0 and words not in caplog.text
    write_images(classes / "blue" / "new", 10, 5)
    assert main(["evaluate", "mine-run"]) == 0 and words in capsys.readouterr().out
    assert main(["test", "--run=mine-run"]) == 0 and caplog.text.count(words) == 1
    assert main(["predict", "--ckpt_path=mine-run/best.ckpt", f"--data.root={classes}"]) == 0
    assert caplog.text.count(words) == 2
    for spelt in (["--data.root=mine/"], ["--data.root=./x/../mine", "--data.dataset=folder"]):
        assert main(["evaluate", "mine-run", *spelt]) == 0 and words in capsys.readouterr().out


def test_fine_tuning_tells_of_test_images_on_which_its_first_weights_were_trained(
    classes: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fit", f"--data.root={classes}", "--model=linear", "--run=first", *QUICK]) == 0
    words = " test images of mine were training or validation images of first, so the accuracy is too high"
    others = "--data.split_seed=1"
    for options, told in ((["--seed_everything=7"], 0), ([others, "--test=false"], 0), ([others], 1)):
        caplog.clear()
        assert main(["fit", "--model=first", f"--data.root={classes}", *QUICK, *options, "--run=second"]) == 0
        assert caplog.text.count(words) == told
        if not told:
            shutil.rmtree("second")
    capsys.readouterr()
    assert main(["evaluate", "second"]) == 0  # whose own training images are not among them
    assert words.replace("first", "second") in capsys.readouterr().out


def test_trainings_that_test_nothing_start_from_weights_without_test_images(make_folder: MakeFolder) -> None:
    root = make_folder(val=3)
    shutil.rmtree(root / "test")
    own = [f"--data.root={root}", "--model=linear", *QUICK]
    assert main(["fit", *own, "--test=false", "--run=first"]) == 0
    assert main(["fit", *own, "--weights=first", "--trainer.fast_dev_run=true"]) == 0
    assert main(["cross-validate", *own, "--weights=first", "--folds=2", "--folder=folds"]) == 0


def test_photos_of_a_folder_for_validation_are_not_new_to_a_run(
    make_folder: MakeFolder, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    root = make_folder(val=3)
    shutil.copy(root / "val/red/000.png", root / "test/red/x.png")
    assert main(["fit", f"--data.root={root}", "--model=linear", "--run=pets", *QUICK]) == 0
    assert "1 of 13 test images are also training or validation images" in caplog.text
    shutil.copytree(root, "again")
    shutil.rmtree("again/test")
    Path("again/val").rename("again/test")
    (root / "val/blue/000.png").rename(root / "test/blue/y.png")
    for place, told in (("again", "6 of 6 test images of again"), (root, "2 of 14 test images of colours")):
        capsys.readouterr()
        assert main(["evaluate", "pets", f"--data.root={place}", "--data.validation=0"]) == 0
        assert f"{told} were training or validation images of pets" in capsys.readouterr().out


def test_an_evaluation_counts_the_test_images_that_were_trained_on_before_a_new_split(
    colours: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    assert main(["fit", f"--data.root={colours}", "--model=linear", "--run=pets", *QUICK]) == 0
    shutil.copytree(colours, "again")
    for number in range(3):
        Path(f"again/train/red/00{number}.png").rename(f"again/test/red/x{number}.png")
    words = "3 of 15 test images of again were training or validation images of pets, so the accuracy is too high"
    for root, told in (("colours", False), ("again", True)):
        assert main(["evaluate", "pets", f"--data.root={root}"]) == 0
        assert (words in (printed := capsys.readouterr().out)) is told and ("images of pets" in printed) is told
    assert main(["test", "--run=pets", "--data.root=again"]) == 0 and words in caplog.text
    shutil.copytree(colours, "before")
    write_images(colours / "train" / "red" / "new", 1, 5)  # a photo more to train on, and none to test on
    assert main(["evaluate", "pets"]) == 0 and "pets was trained on other images" not in capsys.readouterr().out
    shutil.rmtree(colours)
    Path("before").rename(colours)
    content = torch.load("pets/best.ckpt", weights_only=True)
    del content["cvcc_zoo"]["seen_images"]  # as for public images, of which only changes in place are known
    torch.save(content, "pets/best.ckpt")
    assert main(["evaluate", "pets", "--data.root=again"]) == 0 and words not in capsys.readouterr().out
    (colours / "train/red/000.png").unlink()
    old = "pets was trained on other images than colours has now; if its test images are held out of the same folder"
    assert main(["evaluate", "pets"]) == 0 and old in capsys.readouterr().out


def test_a_training_says_which_of_its_validation_images_its_first_weights_knew(
    colours: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    words = "validation images of colours were training or validation images of pets, so val/accuracy is too high"
    assert main(["fit", f"--data.root={colours}", "--model=linear", "--run=pets", *QUICK]) == 0
    assert words not in caplog.text
    again = ["fit", f"--data.root={colours}", "--model=pets", "--run=more", "--data.split_seed=1", "--test=false"]
    assert main([*again, *QUICK]) == 0 and words in caplog.text
    assert "the weights that it started from knew some of them" in message(capsys, ["calibrate", "more"])
    for run, told in (("pets", False), ("more", True)):
        assert json.loads(Path(run, "summary.json").read_text())["divided_anew"] is told
    assert main(["publish", "more", "--folder=."]) == 0
    card = ["calibrate", "linear.colours.json", "--data.dataset=folder", f"--data.root={colours}"]
    assert "the weights that it started from knew some of them" in message(capsys, [*card, "--data.split_seed=1"])


def test_a_training_says_so_if_it_cannot_recognise_the_images_of_its_first_weights(
    colours: Path, caplog: pytest.LogCaptureFixture
) -> None:
    words = "Whether images of colours were images of small is not known, because these had image_size=8, not 16; if"
    quick = ["fit", f"--data.root={colours}", *QUICK, "--test=false"]
    assert main([*quick, "--model=cnn_small", "--model.global_pool=max", "--run=small"]) == 0
    for size, told in ((8, False), (16, True)):
        assert main([*quick, "--model=small", f"--data.image_size={size}", f"--run=of_{size}"]) == 0
        assert (words in caplog.text) is told


def test_public_images_in_another_shape_are_perhaps_those_of_the_first_weights_if_they_are_as_many(
    colours: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    before, now = ImageDataModule(), ImageDataModule(image_size=16)
    model, shape = create("linear", num_classes=10, in_channels=1, image_size=16), {"image_size": 28, "in_channels": 1}
    for data, told in ((ImageDataModule(root=str(colours)), False), (before, True)):
        images: Any = {"train": identity_of(data, "train").plain()}
        tell_of_known_validation(model, "first", images, shape | model.shaping, now)
        assert ("Whether images of fashion-mini were images of first is not known" in caplog.text) is told


def test_the_weights_that_a_training_starts_from_are_read_once(colours: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quick = ["fit", f"--data.root={colours}", *QUICK, "--test=false"]
    assert main([*quick, "--model=linear", "--run=first"]) == 0
    reading = Mock(wraps=load_plain)
    monkeypatch.setattr("cvcc_zoo.weights.checkpoint.load_plain", reading)
    assert main([*quick, "--model=linear", "--weights=first", "--trainer.fast_dev_run=true"]) == 0
    reading.assert_called_once()


def test_a_training_says_so_if_published_weights_knew_its_validation_images(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("CVCC_ZOO_HOME", str(tmp_path / "home"))
    quick = [*QUICK, "--test=false"]
    for name, share, told in (("whole", 0, True), ("held", 0.1, False)):
        caplog.clear()
        assert main(["fit", "--model=linear", f"--run={name}", *quick, f"--data.validation={share}"]) == 0
        assert main(["publish", name, f"--tag={name}"]) == 0
        again = ["fit", f"--model=linear.{name}", f"--run=from_{name}", *quick, "--data.validation=0.1"]
        assert main(again) == 0
        assert ("600 of 600 validation images of fashion-mini were training or validation" in caplog.text) is told


@pytest.mark.parametrize("public", [False, True])
def test_images_that_were_held_out_before_are_held_out_again_without_a_word_unless_earlier_weights_knew_them(
    public: bool, colours: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = [] if public else [f"--data.root={colours}"]
    fit = ["fit", *data, *QUICK, "--test=false", "--data.validation=0.5"]
    words = "training or validation images of"
    assert main([*fit, "--model=linear", "--run=head"]) == 0
    assert main([*fit, "--model=head", "--run=all"]) == 0 and words not in caplog.text
    assert json.loads(Path("all/summary.json").read_text())["divided_anew"] is False
    other = ["--data.split_seed=1"]
    assert main([*fit, *other, "--model=all", "--run=other"]) == 0 and words in caplog.text
    caplog.clear()
    assert main([*fit, *other, "--model=other", "--run=still"]) == 0 and words in caplog.text
    assert json.loads(Path("still/summary.json").read_text())["divided_anew"] is True


def test_a_validation_folder_was_no_training_images_of_published_weights(
    make_folder: MakeFolder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("CVCC_ZOO_HOME", str(tmp_path / "home"))
    root = make_folder("pics")
    shutil.copytree(root / "test", root / "val")
    fit = ["fit", f"--data.root={root}", *QUICK, "--test=false"]
    assert main([*fit, "--model=linear", "--run=whole", "--data.validation=0"]) == 0
    assert main(["publish", "whole", "--tag=own"]) == 0
    assert main([*fit, "--model=linear.own", "--run=more"]) == 0
    assert "training or validation images of" not in caplog.text


def test_weights_are_put_without_a_word_into_a_training_that_does_not_validate(
    colours: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fit = ["fit", f"--data.root={colours}", *QUICK, "--test=false"]
    assert main([*fit, "--model=linear", "--run=first"]) == 0
    other = [*fit, "--model=first", "--data.split_seed=1"]
    assert main([*other, "--trainer.limit_val_batches=0", "--run=more"]) == 0 and "too high" not in caplog.text
    assert main(["find-lr", *other[1:2], "--model=linear", "--weights=first", "--data.split_seed=1", "--steps=30"]) == 0
    assert "too high" not in caplog.text


def test_what_a_command_writes_never_becomes_a_class(
    classes: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(classes)
    quick = ["--data.root=.", "--model=linear", *QUICK]
    assert "runs/linear-mine would be in ., where every folder is a class; choose one elsewhere: --run=" in message(
        capsys, ["fit", *quick]
    )
    assert "--run" in message(capsys, ["fit", *quick, f"--run={classes}/red/mine"])
    assert "::`; rename it, or choose another --run" in message(
        capsys, ["fit", "--model=linear", *QUICK, "--run=../u::v"]
    )
    for command in (["cross-validate"], ["search", "--space={optimizer.lr: [0.1, 0.2]}", "--method=grid"]):
        for folder in ("found", "found/deep"):
            words = message(capsys, [*command, f"--folder={folder}", *quick])
            assert "./found is the folder of a command, and would be a class here; give that command" in words
        words = message(capsys, [*command, "--folder=red/found", *quick])
        assert "red/found would be in ., where every folder is a class; choose one elsewhere: --folder=" in words
    assert sorted(path.name for path in classes.iterdir()) == ["blue", "red"] and not Path("red/found").exists()
    assert main(["fit", *quick, "--run=../good"]) == 0
    (classes / "old").mkdir()
    shutil.move("../good", "old/good")
    words = message(capsys, ["fit", *quick, "--run=../other"])
    assert "./old has old/good/config.yaml, like a training run, but each folder here is a class; move it" in words


def test_a_run_may_be_beside_the_folders_of_splits(colours: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(colours)
    assert main(["fit", "--data.root=.", "--model=linear", *QUICK]) == 0
    assert Path("runs/linear-colours/summary.json").is_file()


def test_a_file_in_place_of_a_folder_is_called_a_file() -> None:
    Path("photos.zip").write_bytes(b"PK")
    with pytest.raises(ValueError, match=r"photos\.zip is a file, not a folder of images: unpack an archive"):
        image_folder(Path("photos.zip"))


def test_a_list_of_images_in_place_of_a_folder_is_answered_alike_wherever_it_is_given() -> None:
    Path("labels.csv").touch()
    places: list[dict[str, Any]] = [{"root": "labels.csv"}, {"dataset": "labels.csv"}]
    for place in places:
        with pytest.raises(ValueError, match=r"labels\.csv is a file.* such as a \.csv, copy the images into a folder"):
            ImageDataModule(**place)


def test_a_place_is_the_same_in_every_spelling() -> None:
    here = place_of({"root": "mine"})
    for root in ("mine/", "./mine", str(Path("mine").absolute())):
        assert place_of({"dataset": "folder", "root": root}) == here
    assert here != place_of({"root": "other"}) and here != place_of({"dataset": "cifar10", "root": "mine"})
    assert place_of({"dataset": "./a.npz"}) == place_of({"dataset": str(Path("a.npz").absolute()), "root": None})
    assert place_of({"dataset": "a.npz"}) != place_of({"dataset": "b.npz"}) != place_of({}) == (None, None)


def test_a_class_too_small_for_the_test_is_named(classes: Path) -> None:
    write_images(classes / "green", 1, 0)
    with pytest.raises(ValueError, match=r"class 'green' has 1 training image, too few .* the test; .*data\.test=0"):
        ImageDataModule(root=str(classes))


def test_what_is_advised_for_a_class_of_one_image_can_be_run(classes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_images(classes / "green", 1, 0)
    fit = ["fit", "--model=linear", f"--data.root={classes}", *QUICK]
    said = message(capsys, [*fit, "--data.test=0"])
    assert "add images to the classes of one, and hold out a share of each class: --data.test=0.1" in said
    options = message(capsys, fit).partition("train without a test: ")[2].split()
    assert options == ["--data.test=0", "--test=false", "--data.validation=0"]
    assert main([*fit, *options]) == 0


def test_without_test_images_a_training_needs_to_know_that_none_are_tested(
    colours: Path, classes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (colours / "test").rename(colours.with_name("elsewhere"))
    held_out = "hold out a share of each class: --data.test=0.1"
    for root, more, advice in ((colours, [], "add test/<class>/<image>"), (classes, ["--data.test=0"], held_out)):
        arguments = ["fit", "--model=linear", f"--data.root={root}", *QUICK, *more]
        assert f"has no test images; {advice}; `fit --test=false`" in message(capsys, arguments)
        with pytest.raises(ValueError, match="has no test images"):
            ImageDataModule(root=str(root), test=0).setup("test")
    for root, more in ((colours, []), (classes, ["--data.test=0"])):
        assert main(["fit", "--model=linear", f"--data.root={root}", *QUICK, *more, "--test=false"]) == 0


@pytest.mark.parametrize("name", ["valid", "validation", "dev", "Val", "VALID"])
def test_validation_has_several_names(name: str, make_folder: MakeFolder) -> None:
    root = make_folder(val=4)
    (root / "val").rename(root / name)
    assert len(names(root, "val")) == 8 and len(names(root, "train")) == 40
    (root / "train").rename(root / "Train")
    assert len(names(root, "train")) == 40
    write_images(root / "dev2" / "blue", 1, 0)
    assert "dev2" in image_folder(root).notes[0]
    (root / "dev2").rename(root / "val")
    with pytest.raises(ValueError, match="are the same split; keep one of them"):
        image_folder(root)


def test_train_may_be_the_name_of_a_class(classes: Path) -> None:
    (classes / "red").rename(classes / "train")
    assert image_folder(classes).classes == ("blue", "train")
    for path in classes.iterdir():
        path.rename(path.with_name({"blue": "test"}.get(path.name, path.name)))
    with pytest.raises(ValueError, match="is a file, where only class folders belong"):
        image_folder(classes)


def test_what_systems_leave_behind_is_no_image(colours: Path, classes: Path) -> None:
    for root, place in ((colours, colours / "train"), (classes, classes)):
        for where in (root, place, place / "red"):
            for name in ("Thumbs.db", "desktop.ini", ".DS_Store"):
                (where / name).write_text("no image")
            (where / "__MACOSX").mkdir(exist_ok=True)
            (where / "__MACOSX" / "._000.png").write_text("no image")
        assert image_folder(root).classes == ("blue", "red")
        image_folder(root).prepare()


def test_a_class_is_the_same_in_every_form_of_unicode(colours: Path) -> None:
    for split, form in (("train", "NFC"), ("test", "NFD")):
        (colours / split / "red").rename(colours / split / unicodedata.normalize(form, "é"))  # type: ignore[arg-type]
    write_images(colours / "train" / unicodedata.normalize("NFD", "é"), 3, 0)
    found = image_folder(colours)
    assert found.classes == ("blue", unicodedata.normalize("NFC", "é"))
    assert [label for _, label in found.files["train"]].count(1) == 23


def test_the_same_photos_are_held_out_in_every_form_of_unicode(tmp_path: Path) -> None:
    held_out = []
    for form in ("NFC", "NFD"):
        for name in ("blue", "red"):
            write_images(tmp_path / form / name, 12, 0)
            for path in sorted((tmp_path / form / name).iterdir())[::2]:
                path.rename(path.with_name(unicodedata.normalize(form, f"é{path.name}")))
        found = image_folder(tmp_path / form, test=0.25).files["test"]
        held_out.append([unicodedata.normalize("NFC", Path(path).name) for path, _ in found])
    assert held_out[0] == held_out[1] and any("é" in name for name in held_out[0])


def test_every_broken_image_is_named_at_once(colours: Path, tmp_path: Path) -> None:
    broken = ["train/blue/000.png", "train/red/003.png", "test/red/001.png"]
    for name in broken:
        (colours / name).write_text("no image")
    with pytest.raises(ValueError, match="3 images cannot be read") as caught:
        image_folder(colours).prepare()
    assert all(name in str(caught.value) for name in broken) and str(caught.value).count("\n") == 3
    assert not list((tmp_path / "data-home" / "decoded").glob(".*"))


def test_an_outdated_copy_that_cannot_be_removed_does_no_harm(colours: Path, tmp_path: Path) -> None:
    image_folder(colours).prepare()
    (copy,) = (tmp_path / "data-home" / "decoded").glob("*-train-*")
    copy.unlink()
    copy.mkdir()  # which cannot be removed like a file
    (colours / "train" / "red" / "000.png").rename(colours / "train" / "red" / "100.png")
    image_folder(colours).prepare()
    assert copy.is_dir() and len(list(copy.parent.glob("*-train-*"))) == 2


def grey_palette() -> Image.Image:
    image = Image.new("P", (8, 8), 3)
    image.putpalette([value for value in (0, 50, 100, 77) for _ in range(3)])
    return image


@pytest.mark.parametrize("image", [grey_palette(), Image.new("RGB", (8, 8), (77, 77, 77))])
def test_an_image_without_colour_among_grey_ones_is_grey(image: Image.Image, make_folder: MakeFolder) -> None:
    root = make_folder(mode="L")
    image.save(root / "train/red/zz.png")
    images = image_folder(root).load("train")
    assert images is not None and images.images.shape[1] == 1 and set(images.images[-1].flatten().tolist()) == {77}
    grey_palette().save(root / "train/blue/!first.png")
    assert image_folder(root).in_channels == 1


def drawing(path: Path) -> None:
    """Black on transparency: a bar in the left half."""
    pixels = np.zeros((8, 8, 4), dtype=np.uint8)
    pixels[:, :4, 3] = 255
    Image.fromarray(pixels).save(path)


def test_a_drawing_on_transparency_is_seen_on_its_background(colours: Path, caplog: pytest.LogCaptureFixture) -> None:
    drawing(colours / "train/red/zz.png")
    for background, value in (("white", 255), ("#808080", 128)):
        images = ImageDataModule(root=str(colours), background=background, validation=0).training_images()[0]
        assert images[-1, :, 0].tolist() == [4 * [0] + 4 * [value]] * 3
    caplog.clear()
    Image.new("RGBA", (8, 8), "red").save(colours / "train/red/opaque.png")
    ImageDataModule(root=str(colours), background="black").training_images()
    assert "2 of 42 images have a single colour, for example " in caplog.text
    assert "1 of 42 images have transparent pixels, which show the background (--data.background)" in caplog.text
    with pytest.raises(ValueError, match="background is a colour such as white"):
        ImageDataModule(root=str(colours), background="whiite")


def test_16_bits_of_grey_become_8_and_that_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    values = (np.arange(64, dtype=np.uint16) * 65).reshape(8, 8)
    for split in ("train", "test"):
        for name in ("blue", "red"):
            (tmp_path / "deep" / split / name).mkdir(parents=True)
            Image.fromarray(values).save(tmp_path / "deep" / split / name / "a.png")
    images = ImageDataModule(root=str(tmp_path / "deep"), validation=0).training_images()[0]
    assert images.shape == (2, 1, 8, 8)
    assert torch.equal(images[0, 0], torch.from_numpy((values / 257).round().astype(np.uint8)))
    said = (
        "2 of 2 images have 16 bits of grey, scaled to 8: 65535 becomes 255, and their brightest pixel has 4095, so at "
        "most 17 of the 256 grey values are used: multiply the values by 16 before, the same factor for all images"
    )
    assert said in caplog.text
    caplog.clear()
    ImageDataModule(root=str(tmp_path / "deep"), validation=0).training_images()
    assert said in caplog.text  # although nothing is decoded again


def test_pages_that_are_not_read_are_told(colours: Path, caplog: pytest.LogCaptureFixture) -> None:
    pages = [Image.fromarray(photo(colours / "a.png", 8, 8)), Image.new("RGB", (8, 8))]
    (colours / "a.png").unlink()
    pages[0].save(colours / "train/red/stack.tif", save_all=True, append_images=pages[1:])
    pages[0].save(colours / "train/red/page.tif")
    ImageDataModule(root=str(colours)).training_images()
    assert "1 of 42 images have several frames or pages; only the first is read" in caplog.text


def photo(path: Path, width: int = 24, height: int = 12) -> np.ndarray:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return pixels


def test_photos_are_squashed_cropped_or_padded(tmp_path: Path) -> None:
    pixels = photo(tmp_path / "a.png")
    decoded = {
        resize: Decoding(12, 3, same_size=False, grey_only=False, resize=resize, background="red")(tmp_path / "a.png")
        for resize in ("squash", "crop", "pad")
    }
    small = np.asarray(Image.fromarray(pixels).resize((12, 12), Image.Resampling.BICUBIC)).transpose(2, 0, 1)
    assert np.array_equal(decoded["squash"], small)
    assert np.array_equal(decoded["crop"], pixels[:, 6:18].transpose(2, 0, 1))
    assert (decoded["pad"][0, :3] == 255).all() and (decoded["pad"][1:, -3:] == 0).all()
    assert (decoded["pad"][1, 3:9] != 0).any()


def test_photos_that_are_squashed_by_more_than_a_fifth_are_told(
    colours: Path, caplog: pytest.LogCaptureFixture
) -> None:
    photo(colours / "train/red/zz.png")
    photo(colours / "train/red/zzz.png", 12, 10)
    for resize, told in (("squash", True), ("crop", False), ("pad", False)):
        caplog.clear()
        ImageDataModule(root=str(colours), image_size=8, resize=resize).training_images()
        said = "1 of 42 images are distorted by more than a fifth to make them square; --data.resize=crop keeps"
        assert (said in caplog.text) is told
    with pytest.raises(ValueError, match="no way to resize named 'stretch'"):
        ImageDataModule(root=str(colours), resize="stretch")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_photos_are_turned_upright_everywhere_alike(orientation: int, colours: Path) -> None:
    pytest.importorskip("gradio")
    from cvcc_zoo.demo.app import to_image

    exif = Image.Exif()
    exif[0x0112] = orientation
    place = colours / "train/red/zz.png"
    Image.fromarray(photo(place, 8, 8)).save(place, exif=exif)
    trained = ImageDataModule(root=str(colours), validation=0).training_images()[0][-1]
    decoding = Decoding(8, 3, same_size=False, grey_only=False)
    assert np.array_equal(decoding(place), trained.numpy())
    assert torch.equal(to_image(str(place), decoding)[0], trained)
    assert torch.equal(trained, torch.from_numpy(photo(place, 8, 8)).permute(2, 0, 1)) is (orientation == 1)


def test_one_chosen_pixel_of_a_turned_photo_is_where_a_viewer_shows_it(colours: Path) -> None:
    image = Image.new("RGB", (8, 8))
    image.putpixel((0, 7), (255, 254, 253))  # the lower left corner
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    image.save(colours / "train/red/zz.png", exif=exif)
    assert ImageDataModule(root=str(colours), validation=0).training_images()[0][-1, :, 0, 0].tolist() == [
        255,
        254,
        253,
    ]
