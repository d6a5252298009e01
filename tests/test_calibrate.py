"""A temperature is fitted to validation images, saved with the weights, and used wherever they are."""

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from cvcc_zoo import ImageDataModule, create, load
from cvcc_zoo.__main__ import main
from cvcc_zoo.classifier.quality import quality_of
from cvcc_zoo.classifier.training_images import check_held_out
from cvcc_zoo.commands.calibrate import save
from cvcc_zoo.data.identity import identity_of
from cvcc_zoo.data.loader import TensorLoader
from cvcc_zoo.report.reports import evaluate
from cvcc_zoo.runs.calibration import cross_fitted, fit_temperature
from cvcc_zoo.runs.measure import measure
from cvcc_zoo.runs.scores import scores
from cvcc_zoo.weights.card import read_card
from cvcc_zoo.zoo.trained import find_trained
from tests.conftest import QUICK, Fit, MakeFolder, message
from tests.test_choices import folder, linear, quick


@pytest.fixture(scope="module")
def svm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a linear SVM, whose scores are no log-probabilities."""
    run = tmp_path_factory.mktemp("trained") / "svm"
    assert main(["fit", "--model=linear", "--model.loss=hinge", "--test=false", *QUICK, f"--run={run}"]) == 0
    return run


@pytest.fixture
def run(svm: Path, tmp_path: Path) -> Path:
    shutil.copytree(svm, tmp_path / "svm")
    return Path("svm")


def numbers(text: str) -> list[float]:
    return [float(word) for word in re.findall(r"\d+\.\d+", text)]


def test_probabilities_of_16_bit_weights_have_32_bits_and_a_temperature_does_not_round_their_scores() -> None:
    model = create("linear", num_classes=10, image_size=8, whitening="none").eval().bfloat16()
    images = torch.rand(64, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    scores, labels = model(images), torch.zeros(64, dtype=torch.int64)
    assert scores.dtype == torch.bfloat16
    for temperature in (1.0, 1.7):
        model.temperature = temperature
        expected = (scores.double() / temperature).softmax(1).float()
        for shares in (model.predict_step(images, 0), model.predict_step((images, labels), 0)[0]):
            assert shares.dtype == torch.float32 and torch.allclose(shares, expected, rtol=1e-5)
        assert torch.allclose(model._step((images, labels), "test")[1], scores.float(), rtol=1e-6)


def test_an_svm_is_calibrated_and_keeps_its_accuracy_and_its_loss(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["test", f"--run={run}", "--trainer.enable_progress_bar=false"]) == 0
    tested = numbers(capsys.readouterr().out)
    assert main(["calibrate", str(run)]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    logits, labels = scores(load(run), ImageDataModule(), split="val")
    temperature = round(fit_temperature(logits, labels), 4)
    assert f"temperature {temperature:.4f}, fitted to 600 validation images" in printed
    before, after = quality_of(logits, labels), quality_of(cross_fitted(logits, labels), labels)
    assert f"log loss │ {before['log_loss']:.4f} │ {after['log_loss']:.4f}" in printed
    assert after["log_loss"] < before["log_loss"]
    assert load(run).temperature == temperature != 1
    assert main(["test", f"--run={run}", "--trainer.enable_progress_bar=false"]) == 0
    assert numbers(capsys.readouterr().out) == pytest.approx(tested, rel=1e-6)
    assert main(["evaluate", str(run)]) == 0
    found = measure(load(run), ImageDataModule())
    both = f"with its temperature log loss {found['test_loss_with_temperature']:.4f} and calibration error "
    assert both in " ".join(capsys.readouterr().out.split())
    assert found["test_loss_with_temperature"] < found["test_loss"]
    quality = evaluate(run, {"dataset": "fashion-mini"}).quality  # of a report, which shows the model as it is used
    assert quality["log_loss"] == pytest.approx(found["test_loss_with_temperature"], abs=2e-6)
    assert quality["calibration_error"] == pytest.approx(found["calibration_error_with_temperature"], abs=2e-6)


def test_a_temperature_is_saved_where_its_images_are_too_few_to_show_what_it_improves(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(*_: object) -> None:
        raise ValueError("no temperature fits best: the model knows no more than chance about all 16 images")

    monkeypatch.setattr("cvcc_zoo.commands.calibrate.cross_fitted", fails)
    assert main(["calibrate", str(run)]) == 0 and load(run).temperature != 1
    assert "these are too few images to show what it improves; give --test=true" in capsys.readouterr().out


@pytest.mark.parametrize("more", [[], ["--test=true"]])
def test_a_temperature_that_improves_nothing_is_not_saved(
    run: Path, more: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("cvcc_zoo.commands.calibrate.cross_fitted", lambda logits, labels: logits)
    assert main(["calibrate", str(run), *more]) == 0 and load(run).temperature == 1
    printed = capsys.readouterr().out
    assert "svm/best.ckpt stays as it is" in printed and "written to" not in printed


def test_the_probabilities_of_a_calibrated_model_are_those_of_its_divided_scores(run: Path) -> None:
    images = torch.randint(0, 256, (5, 1, 28, 28), dtype=torch.uint8)
    raw = load(run)(images)
    model = load(run)
    model.temperature = 2.5
    assert torch.allclose(model(images), raw / 2.5)
    assert torch.allclose(model.folded()(images), raw / 2.5)
    assert torch.allclose(model.forward_head(model.forward_features(images)), raw / 2.5)
    assert torch.allclose(model.predict_step(images, 0), (raw / 2.5).softmax(1))
    assert torch.allclose(model.train()(images), raw)


def test_a_program_of_a_calibrated_model_divides_too(run: Path) -> None:
    assert main(["calibrate", str(run)]) == 0
    assert main(["export", str(run), "--format=torch_export", "--data.dataset=fashion-mini"]) == 0
    about = {"output": ""}
    program = torch.export.load("svm.pt2", extra_files=about).module()
    images = torch.randint(0, 256, (5, 1, 28, 28), dtype=torch.uint8)
    model = load(run)
    temperature, model.temperature = model.temperature, 1.0
    assert torch.allclose(program(images), model(images) / temperature, atol=1e-5)
    assert about["output"].endswith(f"divided by the temperature {temperature:g}")


def test_training_that_goes_on_leaves_the_temperature_behind(run: Path) -> None:
    assert main(["calibrate", str(run / "last.ckpt")]) == 0
    assert load(run / "last.ckpt").temperature != 1
    more = ["--ckpt_path=last", "--trainer.max_epochs=2", "--allow_changes=true"]
    assert main(["fit", f"--config={run}/config.yaml", *more]) == 0
    assert load(run / "last.ckpt").temperature == 1


def test_a_training_step_without_a_trainer_leaves_the_temperature_behind(run: Path) -> None:
    model = load(run)
    model.temperature = 2.5
    batch = torch.zeros(4, 1, 28, 28, dtype=torch.uint8), torch.zeros(4, dtype=torch.long)
    model.validation_step(batch, 0)
    assert model.temperature == 2.5
    model.train().training_step(batch, 0)
    assert model.temperature == 1


def test_a_temperature_is_not_saved_with_weights_that_it_was_not_fitted_to(run: Path) -> None:
    checkpoint = run / "best.ckpt"
    before = checkpoint.read_bytes()
    with pytest.raises(ValueError, match=r"best\.ckpt was written anew in the meantime and is not changed"):
        save(checkpoint, "0" * 64, 2.0, "other images")
    assert checkpoint.read_bytes() == before


def test_published_weights_take_the_temperature_along(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CVCC_ZOO_HOME", str(tmp_path / "home"))
    assert main(["calibrate", str(run)]) == 0
    assert main(["publish", str(run), "--tag=clothes"]) == 0
    card = read_card(tmp_path / "home/linear.clothes.json")
    temperature = card.measured["calibration"]["temperature"]
    assert card.measured["calibration"]["fitted_on"] == "600 validation images of its own"
    assert card.measured["test_loss_with_temperature"] < card.measured["test_loss"]
    assert create("linear.clothes").temperature == temperature != 1
    assert create("linear.clothes", optimizer="SGD").temperature == temperature
    assert create("linear.clothes", num_classes=3).temperature == 1
    assert "divided by the temperature" in find_trained("linear.clothes").labels()["output"]
    model = create("linear.clothes")
    model.temperature = 1.0
    assert torch.equal(
        model(torch.zeros(1, 1, 28, 28)) / temperature, create("linear.clothes")(torch.zeros(1, 1, 28, 28))
    )


def test_only_images_held_out_in_training_are_used(run: Path, fit: Fit, capsys: pytest.CaptureFixture[str]) -> None:
    assert "leave it out, or give that of the training: --data.split_seed=0" in message(
        capsys, ["calibrate", str(run), "--data.split_seed=3"]
    )
    folder = ["--data.dataset=folder", "--data.root=colours", "--data.image_size=28", "--data.in_channels=1"]
    assert "the model's classes are not those of colours" in message(capsys, ["calibrate", str(run), *folder])
    fit("--model=linear", "--data.validation=0", "--run=all")
    assert "all was trained on all of its images" in message(capsys, ["calibrate", "all"])
    fit("--model=linear", "--run=few")
    assert "calibrate each of few+few by itself" in message(capsys, ["calibrate", "few+few"])
    assert "4 images are too few to fit a temperature" in message(capsys, ["calibrate", "few"])
    assert load("few").temperature == 1
    for image in Path("colours/train/red").iterdir():
        shutil.copy("colours/test/red/000.png", image)
    assert "colours does not have the images that few was trained on" in message(capsys, ["calibrate", "few"])


def test_each_fifth_of_the_images_has_the_temperature_of_the_others() -> None:
    generator = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(50, 3, generator=generator), torch.arange(50) % 3
    ratios = logits / cross_fitted(logits, labels)
    for fifth in range(5):
        others = torch.arange(50) % 5 != fifth
        expected = fit_temperature(logits[others], labels[others])
        assert torch.allclose(ratios[~others], torch.tensor(expected), rtol=1e-4)


def test_ten_images_are_enough_also_for_showing_what_the_temperature_improves() -> None:
    labels = torch.arange(10) % 3
    logits = torch.randn(10, 3, generator=torch.Generator().manual_seed(0)) + torch.nn.functional.one_hot(labels, 3)
    assert fit_temperature(logits, labels) > 0
    ratios = logits / cross_fitted(logits, labels)
    assert (ratios > 0).all() and len({round(float(ratio), 4) for ratio in ratios[:, 0]}) > 1
    with pytest.raises(ValueError, match="9 images are too few to fit a temperature"):
        fit_temperature(logits[:9], labels[:9])


def test_a_temperature_that_does_not_exist_is_told() -> None:
    labels = torch.arange(40) % 4
    right = torch.nn.functional.one_hot(labels).float()
    with pytest.raises(ValueError, match="the model is right on all 40 images; hold out more images"):
        fit_temperature(right, labels)
    with pytest.raises(ValueError, match="knows no more than chance about all 40 images; train it for longer"):
        fit_temperature(-right, labels)
    labels[0] = 1
    with pytest.raises(ValueError, match="the scores of the classes hardly differ on all 40 images; train it for long"):
        fit_temperature(1e-4 * right, labels)


@pytest.mark.parametrize("temperature", [0, -1, "2", None, float("nan"), float("inf"), True, [1]])
def test_a_checkpoint_with_an_impossible_temperature_is_refused(
    run: Path, temperature: object, capsys: pytest.CaptureFixture[str]
) -> None:
    content = torch.load(run / "best.ckpt", weights_only=True)
    content["cvcc_zoo"]["temperature"] = temperature
    torch.save(content, run / "best.ckpt")
    assert "without a valid temperature" in message(capsys, ["evaluate", str(run)])


def test_a_model_that_was_trained_in_python_is_calibrated_on_images_that_it_was_not_trained_on(
    colours: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["calibrate", "model.ckpt", f"--data.root={colours}", "--data.validation=0.5"]
    for options, problem in (
        ({"validation": 0}, "model was trained on all of its images"),
        ({"validation": 0.5, "split_seed": 1}, "colours holds out other images than the training of model did"),
        ({"validation": 0.5}, "no temperature fits best"),
    ):
        trainer = quick(max_epochs=5)
        trainer.fit(linear(), folder(colours, **options))
        trainer.save_checkpoint("model.ckpt")
        assert problem in message(capsys, command)
    assert "--data.validation=... and --data.split_seed=..." in message(capsys, [*command, "--data.split_seed=2"])
    trainer, images = quick(), TensorLoader(*folder(colours).training_images(), batch_size=8)
    trainer.fit(linear(whitening="none"), images, images)
    trainer.save_checkpoint("model.ckpt")
    assert "model.ckpt does not say which images its training held out" in message(capsys, command)


def test_validation_images_that_were_training_images_before_are_told_and_no_temperature_is_fitted_to_them(
    fit: Fit, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fit("--model=linear", "--data.validation=0", "--run=run", "--test=false") == 0
    assert fit("--model=linear", "--data.validation=0.5", "--run=all", "--test=false") == 0
    go_on = ["fit", "--config=run/config.yaml", "--ckpt_path=last", "--allow_changes=true"]
    told = "Some validation images of colours may have been training images before"
    assert main([*go_on, "--data.validation=0.5", "--trainer.max_epochs=2"]) == 0 and told in caplog.text
    caplog.clear()
    assert main([*go_on, "--trainer.max_epochs=3"]) == 0 and told not in caplog.text
    assert main(["validate", "--run=run"]) == 0
    assert "run may have been trained on some of its validation images" in caplog.text
    for file in ("run/best.ckpt", "run/last.ckpt"):
        refused = message(capsys, ["calibrate", file, "--data.root=colours", "--data.validation=0.5"])
        assert "may have been trained on some of its validation images" in refused


def turn_names_around(colour: Path) -> None:
    """Give the images names in the opposite order, so that others are held out."""
    for path in sorted(colour.iterdir()):
        path.rename(path.with_name(f"{99 - int(path.stem)}.png"))


def test_images_that_were_renamed_are_not_taken_for_those_held_out(
    fit: Fit, colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CVCC_ZOO_HOME", str(tmp_path / "home"))
    fit("--model=linear", "--run=all", "--data.validation=0")
    fit("--model=linear", "--run=pets")
    assert main(["publish", "pets"]) == 0
    turn_names_around(colours / "train/red")
    for name in ("pets", "linear.colours"):
        data = ["--data.dataset=folder", "--data.root=colours"]
        printed = message(capsys, ["calibrate", name, *data])
        assert f"colours holds out other images than the training of {name} did, which was on some of" in printed
    assert "colours holds out other images than the training of pets" in message(
        capsys, ["publish", "all", "--calibrate=pets"]
    )


def test_a_temperature_is_fitted_to_the_images_held_out_also_if_other_training_images_changed(
    make_folder: MakeFolder,
) -> None:
    root, place = make_folder(val=3), "red/000.png"
    images: Any = {split: identity_of(folder(root), split).plain() for split in ("train", "val")}
    shutil.copy(root / "train/red/001.png", root / "train" / place)
    check_held_out("pets", images, folder(root), "")
    with pytest.raises(ValueError, match="colours does not have the images that pets was trained on"):
        check_held_out("pets", {"train": images["train"]}, folder(root), "")
    shutil.copy(root / "test" / place, root / "val" / place)
    with pytest.raises(ValueError, match="colours does not have the images that pets was trained on"):
        check_held_out("pets", images, folder(root), "")


def test_a_checkpoint_of_a_training_on_other_data_does_not_say_what_it_held_out(
    fit: Fit, capsys: pytest.CaptureFixture[str]
) -> None:
    fit("--model=linear", "--run=run")
    content = torch.load("run/best.ckpt", weights_only=True)
    del content["cvcc_zoo"]["data"]
    torch.save(content, "run/best.ckpt")
    assert "run/best.ckpt does not say which images its training held out" in message(capsys, ["calibrate", "run"])
