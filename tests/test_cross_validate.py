"""A cross-validation predicts every training image by a model that was not trained on it, and reads no test image."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from cvcc_zoo import ImageDataModule, load
from cvcc_zoo.__main__ import main
from cvcc_zoo.commands.cross_validate import predict_fold
from cvcc_zoo.data.split import held_out, stratified_fold
from cvcc_zoo.plots import plot_calibration
from cvcc_zoo.runs import figures
from cvcc_zoo.runs.stopping import Deadline, StoppedError
from cvcc_zoo.search import running
from cvcc_zoo.search.record import Trial
from tests.conftest import QUICK, MakeFolder, message

FIT = ["--model=linear", "--data.dataset=folder", "--data.root=colours", "--data.batch_size=8", *QUICK]


def test_each_image_is_held_out_once_and_each_class_evenly() -> None:
    labels = torch.cat([torch.full((count,), label) for label, count in enumerate((7, 11, 5, 8))])
    labels = labels[torch.randperm(31, generator=torch.Generator().manual_seed(0))]
    splits = [stratified_fold(labels, fold, 5, seed=3) for fold in range(1, 6)]
    assert torch.cat([out for _, out in splits]).sort().values.tolist() == list(range(31))
    for kept, out in splits:
        assert torch.cat([kept, out]).sort().values.tolist() == list(range(31))
        assert len(out) in (6, 7)
        for label, count in enumerate((7, 11, 5, 8)):
            assert int((labels[out] == label).sum()) in (count // 5, -(-count // 5))
    assert torch.equal(splits[0][1], stratified_fold(labels, 1, 5, seed=3)[1])
    assert not torch.equal(splits[0][1], stratified_fold(labels, 1, 5, seed=4)[1])


@pytest.mark.parametrize(
    ("count", "problem"),
    [
        (1, "1 training image, too few for 5 folds; add images$"),
        (3, r"3 training images, .*; add images, or choose at most 3 folds: --folds=3, or --data.validation=1/3$"),
    ],
)
def test_a_class_with_fewer_images_than_folds_is_told_what_helps(count: int, problem: str) -> None:
    labels = torch.tensor([0] * 9 + [1] * count)
    with pytest.raises(ValueError, match=f"the class 'b' has {problem}"):
        held_out("2/5").split(labels, 0, "ab")
    if count > 1:
        assert len(held_out(f"1/{count}").split(labels, 0, "ab")[1])


def test_every_training_image_gets_the_prediction_of_the_model_that_did_not_see_it(
    make_folder: MakeFolder, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root, drawn = make_folder(val=3), list[Any]()

    def draw(*bins: Any) -> Any:
        drawn.append(bins)
        return plot_calibration(*bins)

    shutil.rmtree(root / "test")
    with monkeypatch.context() as patched:
        patched.setattr(figures, "plot_calibration", draw)
        assert main(["cross-validate", "--folder=cv", "--folds=3", *FIT, "--data.test=0"]) == 0
    printed = capsys.readouterr().out
    rows = list(csv.DictReader(Path("cv/predictions.csv").read_text().splitlines()))
    files = sorted(str(path.relative_to(root)) for path in (root / "train").glob("*/*.png"))
    assert [row["image"] for row in rows] == files
    summary = json.loads(Path("cv/summary.json").read_text())
    right = sum(row["label"] == row["predicted"] for row in rows)
    assert summary["accuracy"] == right / 40 and summary["confusion"][0][0] + summary["confusion"][1][1] == right
    images, accuracy, _, title = drawn[-1]  # the reliability diagram is that of the predictions of all folds
    assert title.startswith("cv: ") and Path("cv/calibration.png").is_file()
    sure = [min(14, int(15 * max(float(row["p_blue"]), float(row["p_red"])))) for row in rows]
    assert images.tolist() == [sure.count(place) for place in range(15)]
    assert (accuracy[images > 0] * images[images > 0]).sum() == pytest.approx(right)
    found = torch.tensor(summary["accuracy_of_folds"], dtype=torch.float64)
    assert f"{100 * found.mean():.2f} ± {100 * found.std():.2f} %" in printed
    assert "so give them the file: cv/000/last.ckpt" in printed
    for number in range(3):
        data = ImageDataModule("folder", "colours", validation=f"{number + 1}/3")
        data.prepare_data()
        data.setup("fit")
        samples = data.val_dataloader().samples
        with torch.no_grad():
            shares = load(f"cv/00{number}/last.ckpt")(data.training_images()[0][samples]).softmax(1)
        for position, share in zip(samples.tolist(), shares.tolist(), strict=True):
            row = rows[position]
            assert row["label"] == Path(row["image"]).parent.name and row["fold"] == str(number + 1)
            assert [float(row[f"p_{name}"]) for name in ("blue", "red")] == pytest.approx(share, abs=1e-5)
        last = json.loads(Path(f"cv/00{number}/summary.json").read_text())["last_epoch"]["val/accuracy"]
        assert summary["accuracy_of_folds"][number] == pytest.approx(last)


def test_a_cross_validation_that_was_stopped_is_resumed_by_the_same_command(
    colours: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["cross-validate", "--folds=2", *FIT, "--trainer.max_epochs=2"]
    assert main([*command, "--folder=whole"]) == 0
    steps = iter(range(100))
    with monkeypatch.context() as patched:
        patched.setattr(Deadline, "reason", lambda self: "enough" if next(steps) >= 4 else "")
        assert main([*command, "--folder=parts"]) == 0
    assert "the same `cvcc-zoo cross-validate` resumes" in capsys.readouterr().out
    assert not Path("parts/predictions.csv").exists()
    assert main([*command, "--folder=parts"]) == 0
    for name in ("predictions.csv", "summary.json"):
        assert Path("parts", name).read_bytes() == Path("whole", name).read_bytes()
    assert "data.batch_size was 8 and is 16" in message(capsys, [*command, "--folder=parts", "--data.batch_size=16"])


def test_a_fold_that_fails_ends_the_cross_validation(colours: Path, capsys: pytest.CaptureFixture[str]) -> None:
    diverging = ["--optimizer=SGD", "--optimizer.lr=1e300", "--lr_scheduler=null"]
    assert main(["cross-validate", "--folder=cv", "--folds=3", *FIT, *diverging]) == 1
    printed = capsys.readouterr().out
    assert "fold 1 failed, so there is no result: " in printed and "the same command tries it again" in printed
    assert not Path("cv/001").exists() and not Path("cv/predictions.csv").exists()


def test_a_fold_that_failed_is_tried_again_by_the_same_command(colours: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def fail(number: int, values: Any, *_: Any) -> Trial:
        tried.append(number)
        return Trial(number, values, None, message="no memory")

    monkeypatch.setattr(running, "attempt", fail)
    assert main(["cross-validate", "--folder=cv", "--folds=3", *FIT]) == 1
    assert main(["cross-validate", "--folder=cv", "--folds=3", *FIT]) == 1
    assert tried == [0, 0]


def test_the_reason_of_a_failed_fold_is_kept_while_it_is_tried_again(
    colours: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def end(number: int, values: Any, *_: Any) -> Trial:
        raise StoppedError("stopped by Ctrl-C", 130)

    command = ["cross-validate", "--folder=cv", "--folds=3", *FIT]
    monkeypatch.setattr(running, "attempt", lambda number, values, *_: Trial(number, values, None, message="no memory"))
    assert main(command) == 1
    monkeypatch.setattr(running, "attempt", end)
    assert main(command) == 130
    assert "fold 1 failed, so there is no result: no memory" in capsys.readouterr().out.partition("Ctrl-C")[2]


@pytest.mark.parametrize(
    ("options", "advice"),
    [
        (["--folds=1"], "at least 2 folds, not 1"),
        (["--folds=30"], "the class 'blue' has 20 training images, too few for 30 folds"),
        (["--data.validation=0.2"], "leave --data.validation out, and choose their number: --folds=5"),
        (["--run=x"], "a cross-validation sets this option for each of its folds; leave --run out"),
        (["--fold=3"], "did you mean folds"),
        (["--epoch=first"], "no epoch to judge by named 'first'"),
        (["--trainer.logger=false"], "leave out --trainer.logger"),
        (["--trainer.enable_checkpointing=false"], "leave out --trainer.enable_checkpointing=false"),
        (["--trainer.strategy=nonsense"], "You selected an invalid strategy name"),
    ],
)
def test_what_cannot_be_cross_validated_is_refused(
    options: list[str], advice: str, colours: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert advice in message(capsys, ["cross-validate", "--folder=cv", *FIT, *options])
    assert not Path("cv/000").exists()


@pytest.mark.parametrize("validation", ["0.2x", "0/5", "6/5", "1/1", "2 of 5", "-1/5", ""])
def test_what_is_neither_a_share_nor_a_fold_is_refused(validation: str) -> None:
    with pytest.raises(ValueError, match="or a fold such as 2/5, the second of five; got"):
        held_out(validation)


def test_a_cross_validation_does_not_go_on_with_other_images(colours: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["cross-validate", "--folds=2", *FIT, "--folder=cv"]
    assert main(command) == 0
    names = ("predictions.csv", "summary.json", "cross-validation.yaml")
    found = {name: Path("cv", name).read_bytes() for name in names}
    added = colours / "train/red/new.png"
    shutil.copy(colours / "train/blue/000.png", added)
    began = "the training images have changed since the cross-validation in cv began"
    fold = "have changed since cv/000 was trained, so it would be tested on images that it was trained on"
    assert began in message(capsys, command)
    with pytest.raises(ValueError, match=fold):
        predict_fold(Path("cv/000"), "last.ckpt")
    added.unlink()
    for path in sorted((colours / "train/red").iterdir()):
        path.rename(path.with_name(f"{99 - int(path.stem)}.png"))
    assert began in message(capsys, command)
    with pytest.raises(ValueError, match=fold):
        predict_fold(Path("cv/000"), "last.ckpt")
    for name, content in found.items():
        assert Path("cv", name).read_bytes() == content
