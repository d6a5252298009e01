"""The command line as a user types it: what it makes, and what it says when something is wrong."""

import csv
import json
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lightning.fabric.utilities.rank_zero import rank_zero_only
from PIL import Image

from cvcc_zoo import ImageClassifier, ImageDataModule, load
from cvcc_zoo.__main__ import main
from cvcc_zoo.cli.expansion import dump_yaml, load_yaml
from cvcc_zoo.cli.lightning import ZooCLI, build
from cvcc_zoo.cli.options import parser
from cvcc_zoo.data.datasets import FashionMini
from cvcc_zoo.runs import HEADER, RunFolder, folder_to_resume, new_folder
from cvcc_zoo.runs.run_folder import _make, how_to_resume
from cvcc_zoo.runs.written import read_summary
from cvcc_zoo.search.record import own_folder
from cvcc_zoo.zoo.catalogue import Complexity, complexity
from tests.conftest import QUICK, Fit, MakeFolder, message


@pytest.mark.draws
def test_a_run_leaves_a_whole_folder(fit: Fit, capsys: pytest.CaptureFixture[str]) -> None:
    assert fit("--model=cnn_small", "--trainer.max_epochs=3", "--optimizer.lr=0.01") == 0
    folder = Path("runs/cnn_small-colours")
    names = {path.name for path in folder.iterdir()}
    figures = ("curves.png", "confusion.png", "calibration.png")
    assert names == {"config.yaml", "metrics.csv", "best.ckpt", "last.ckpt", "summary.json", *figures}
    for name in figures:
        with Image.open(folder / name) as figure:
            assert len(figure.convert("L").getcolors() or ()) > 10
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["test_accuracy"] == 1.0  # blue and red are easy
    assert summary["images"] == {"train": 36, "test": 12}
    assert (summary["epochs"], summary["steps"], summary["seed"]) == (3, 6, 0)
    assert summary["parameters"] == sum(p.numel() for p in load(folder).parameters())
    with (folder / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {"train/loss", "train/accuracy", "val/loss", "val/accuracy", "test/accuracy"} <= set(rows[0])
    printed = capsys.readouterr().out
    assert "100.00 % (75.75 to 100.00) of 12 images" in printed and "runs/cnn_small-colours" in printed


def test_the_test_images_are_read_only_by_a_run_that_tests_them(
    fit: Fit, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[str] = []
    load_split = ImageDataModule._load

    def ask(data: ImageDataModule, split: str) -> object:
        asked.append(split)
        return load_split(data, split)

    monkeypatch.setattr(ImageDataModule, "_load", ask)
    assert fit("--model=linear", "--test=false", "--run=run") == 0
    assert asked == ["train", "val"] and not Path("run/confusion.png").exists()
    untested = json.loads(Path("run/summary.json").read_text())
    assert [untested[key] for key in ("test_accuracy", "test_loss", "tested")] == [None] * 3
    assert untested["images"] == {"train": 36, "test": 0} and 0 <= untested["val_accuracy"] <= 1
    assert "not tested" in capsys.readouterr().out
    assert main(["fit", "--config=run/config.yaml", "--ckpt_path=last", "--test=true"]) == 0
    tested = json.loads(Path("run/summary.json").read_text())
    assert asked[-1] == "test" and tested["images"]["test"] == 12 and tested["steps"] == untested["steps"]


def test_a_second_run_gets_a_number_and_the_first_is_not_touched(fit: Fit) -> None:
    fit("--model=linear")
    before = Path("runs/linear-colours/summary.json").read_text()
    fit("--model=linear")
    assert Path("runs/linear-colours-2/summary.json").is_file()
    assert Path("runs/linear-colours/summary.json").read_text() == before


def weights(run: str) -> dict[str, torch.Tensor]:
    return load(Path("runs", run, "last.ckpt")).state_dict()


def test_fit_with_the_config_of_a_run_repeats_it_bit_for_bit(fit: Fit) -> None:
    fit("--model=resnet20", "--optimizer=SGD", "--optimizer.lr=0.1", "--lr_scheduler=StepLR",
        "--lr_scheduler.step_size=1", "--model.loss=hinge", "--seed_everything=3")  # fmt: skip
    assert main(["fit", "--config", "runs/resnet20-colours/config.yaml"]) == 0
    first, second = weights("resnet20-colours"), weights("resnet20-colours-2")
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_the_schedule_with_milestones_of_torch_is_saved_and_read(fit: Fit) -> None:
    schedule = ["--lr_scheduler=MultiStepLR", "--lr_scheduler.milestones=[1]"]
    assert fit("--model=linear", "--optimizer=SGD", *schedule) == 0
    assert weights("linear-colours")


def test_a_text_that_looks_like_a_number_is_a_text_again_when_its_config_is_read() -> None:
    for text in ("1e-3", "12e4567", "-1E5", "1.5e3", "1_0e2", "._1", ".5", "1.5", "7", "1:30.5", "no", "2026-01-01"):
        assert load_yaml(dump_yaml({text: [text, 1e-7, 0.5, 3]})) == {text: [text, 1e-7, 0.5, 3]}
    words = ["--run=1e-3", "--data.root=12e4567", '--data.classes=["1e5", "b"]']
    words += ["--data.whitening={name: zca, eps: 1e-3}", "--model=cvcc_zoo.models.timm.Timm"]
    words += ["--model.network=1e5", '--model.network_options={"a": "2e3"}']
    config = parser("fit").parse_args(words)
    Path("config.yaml").write_text(parser("fit").dump(config))
    again = parser("fit").parse_args(["--config=config.yaml"])
    assert again.run == "1e-3" and again.data == config.data and again.model == config.model


def test_the_seed_changes_the_run(fit: Fit) -> None:
    fit("--model=cnn_small")
    fit("--model=cnn_small", "--seed_everything=1")
    first, second = weights("cnn_small-colours"), weights("cnn_small-colours-2")
    assert not torch.equal(first["network.fc.weight"], second["network.fc.weight"])


def built(colours: Path, *more: str) -> ZooCLI:
    """What `fit` would train."""
    return build(["--data.dataset=folder", f"--data.root={colours}", *QUICK, *more])


@pytest.mark.parametrize(
    ("arguments", "family", "expected"),
    [
        (["--model=resnext29"], "ResNeXt", {"depth": 29, "cardinality": 32, "base_width": 4}),
        (["--model", "resnet56"], "ResNet", {"depth": 56, "shortcut": "B"}),
        (["--model=ResNeXt", "--model.depth=11", "--model.cardinality=8"], "ResNeXt", {"depth": 11, "cardinality": 8}),
        (["--model=resnet20", "--model.shortcut=A"], "ResNet", {"depth": 20, "shortcut": "A"}),
        (["--model=CNN"], "CNN", {"channels": [64, 128, 256], "convolutions": 3}),
        ([], "CNN", {"channels": [32, 64, 128], "convolutions": 2}),
    ],
)
def test_a_model_is_chosen_by_name_or_by_family(
    colours: Path, arguments: list[str], family: str, expected: dict[str, object]
) -> None:
    config = yaml.safe_load(built(colours, *arguments).config_text())
    assert config["model"]["class_path"].endswith(f".{family}")
    assert expected.items() <= config["model"]["init_args"].items()


@pytest.mark.parametrize(
    ("arguments", "optimizer", "schedule"),
    [
        ([], {"name": "AdamW", "lr": 0.004, "weight_decay": 0.05}, {"name": "OneCycleLR"}),
        (["--optimizer.lr=0.1"], {"name": "AdamW", "lr": 0.1, "weight_decay": 0.05}, {"name": "OneCycleLR"}),
        (["--optimizer=SGD", "--optimizer.lr=1e-2"], {"name": "SGD", "lr": 0.01}, {"name": "OneCycleLR"}),
        (["--lr_scheduler=null"], {"name": "AdamW", "lr": 0.004, "weight_decay": 0.05}, None),
        (
            ["--optimizer", "RMSprop", "--lr_scheduler=CosineAnnealingLR", "--lr_scheduler.eta_min=0.001"],
            {"name": "RMSprop"},
            {"name": "CosineAnnealingLR", "eta_min": 0.001},
        ),
    ],
)
def test_optimizer_and_schedule_are_chosen_by_name(
    colours: Path, arguments: list[str], optimizer: dict[str, object], schedule: dict[str, object] | None
) -> None:
    hparams = built(colours, "--model=linear", *arguments).model.hparams
    assert hparams["optimizer"] == optimizer and hparams["lr_scheduler"] == schedule


def test_yaml_takes_the_same_short_names_and_flags_win(fit: Fit, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(
        "model: {class_path: resnext20_16x4d, init_args: {depth: 11, cardinality: 2}}\n"
        "optimizer: {class_path: SGD, init_args: {lr: 0.1, momentum: 0.9}}\nlr_scheduler: CosineAnnealingLR\n"
    )
    fit("--config=recipe.yaml", "--optimizer.lr=0.07", "--model.cardinality=4")
    hparams = load("runs/resnext-colours").hparams
    assert (hparams["depth"], hparams["cardinality"], hparams["base_width"]) == (11, 4, 4)
    assert hparams["optimizer"] == {"name": "SGD", "lr": 0.07, "momentum": 0.9}
    assert hparams["lr_scheduler"] == {"name": "CosineAnnealingLR"}


def test_the_length_of_the_schedule_is_that_of_the_training(fit: Fit) -> None:
    fit("--model=linear", "--trainer.max_epochs=4", "--lr_scheduler=CosineAnnealingLR", "--trainer.log_every_n_steps=1")
    with Path("runs/linear-colours/metrics.csv").open() as file:
        rates = [float(row["lr-AdamW/decay"]) for row in csv.DictReader(file) if row["lr-AdamW/decay"]]
    assert len(rates) == 8 and rates[4] == pytest.approx(0.002)  # half of the rate after half of the 8 steps


def test_the_logged_loss_is_that_of_the_logged_step(fit: Fit) -> None:
    fit("--model=linear", "--trainer.log_every_n_steps=1", "--trainer.max_epochs=3", "--run=every")
    fit("--model=linear", "--trainer.log_every_n_steps=2", "--trainer.max_epochs=3", "--run=second")

    def losses(run: str) -> dict[str, str]:
        with Path(run, "metrics.csv").open() as file:
            return {row["step"]: row["train/batch_loss"] for row in csv.DictReader(file) if row["train/batch_loss"]}

    every = losses("every")
    assert len(every) == 6 and len(losses("second")) == 3
    assert losses("every").items() >= losses("second").items()


def test_training_on_everything_tests_the_last_weights(fit: Fit) -> None:
    fit("--model=linear", "--data.validation=0")
    summary = json.loads(Path("runs/linear-colours/summary.json").read_text())
    assert summary["images"]["train"] == 40 and summary["val_accuracy"] is None
    assert summary["tested"] == "the weights of the last step"
    assert {path.name for path in Path("runs/linear-colours").glob("*.ckpt")} == {"last.ckpt"}


def test_without_a_logger_the_run_has_everything_but_metrics(fit: Fit) -> None:
    assert fit("--model=linear", "--trainer.logger=false") == 0
    files = {path.name for path in Path("runs/linear-colours").iterdir() if path.name[0] != "."}
    assert files == {"config.yaml", "best.ckpt", "last.ckpt", "summary.json", "confusion.png", "calibration.png"}
    assert fit("--model=linear") == 0
    one, other = (json.loads(Path(f"runs/linear-colours{n}/summary.json").read_text()) for n in ("", "-2"))
    same = ("test_accuracy", "val_accuracy", "test_loss", "epochs", "images")
    assert [one[name] for name in same] == [other[name] for name in same]


@pytest.mark.parametrize("run", ["colours/train/red/000.png/x", "/proc/x"])
def test_a_run_folder_that_cannot_be_made_is_one_line(fit: Fit, run: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert fit("--model=linear", f"--run={run}") == 2
    printed = capsys.readouterr().err
    assert f"the run folder {run} cannot be made: " in printed and "choose another --run=..." in printed


def test_a_link_that_leads_nowhere_is_no_folder_of_runs() -> None:
    Path("runs").symlink_to("nowhere")
    with pytest.raises(OSError, match=r"the run folder runs/x cannot be made: .*; choose another --run=\.\.\."):
        _make(Path("runs/x"))
    with pytest.raises(OSError, match="runs is a file, or a link to a folder that is not there"):
        own_folder(Path("runs/x"), "search").__enter__()


def test_runs_go_below_the_root_folder_of_the_trainer(fit: Fit, tmp_path: Path) -> None:
    assert fit("--model=linear", "--trainer.default_root_dir=results") == 0
    assert (tmp_path / "results" / "linear-colours" / "summary.json").is_file() and not Path("runs").exists()


def test_a_users_own_model_is_found_by_its_import_path(
    fit: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = """
        from torch import nn
        from cvcc_zoo import ImageClassifier
        class Mine(ImageClassifier):
            def __init__(self, width: int = 4, **options):
                super().__init__(**options)
                inputs = self.in_channels * self.image_size**2
                self.network = nn.Sequential(nn.Flatten(), nn.Linear(inputs, width), nn.Linear(width, self.num_classes))
        """
    (tmp_path / "own_models.py").write_text(textwrap.dedent(code))
    monkeypatch.syspath_prepend(tmp_path)
    assert fit("--model=own_models.Mine", "--model.width=5") == 0
    assert load("runs/mine-colours").hparams["width"] == 5


def test_a_run_whose_own_test_counts_nothing_ends_untested_and_says_how_to_test_it(
    fit: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    code = """
        from cvcc_zoo import Linear
        class Uncounted(Linear):
            def test_step(self, batch, batch_idx):
                self.log("test/mean", self(batch[0]).mean())
        class Unfinished(Linear):
            def on_test_epoch_end(self):
                pass
        def count(model, batch, batch_idx):
            Linear.test_step(model, batch, batch_idx)
        class Elsewhere(Linear):
            def test_step(self, batch, batch_idx):
                [count(self, each, batch_idx) for each in [batch]]
        """
    (tmp_path / "own_tests.py").write_text(textwrap.dedent(code))
    monkeypatch.syspath_prepend(tmp_path)
    assert fit("--model=own_tests.Uncounted", "--run=Uncounted") == 0
    summary = json.loads(Path("Uncounted/summary.json").read_text())
    assert "Uncounted counted no test image in its confusion matrix" in caplog.text
    assert "`cvcc-zoo fit --config=Uncounted/config.yaml --ckpt_path=last`" in caplog.text
    assert summary["images"]["test"] == 0 and summary["test_accuracy"] is summary["tested"] is None
    assert summary["val_accuracy"] is not None and not Path("Uncounted/confusion.png").exists()
    assert fit("--model=own_tests.Unfinished", "--run=Unfinished") == 0
    assert json.loads(Path("Unfinished/summary.json").read_text())["test_accuracy"] is not None
    own: Any = sys.modules["own_tests"]
    monkeypatch.setattr(own.Uncounted, "test_step", own.Elsewhere.test_step)
    assert main(["fit", "--config=Uncounted/config.yaml", "--ckpt_path=last"]) == 0
    tested = json.loads(Path("Uncounted/summary.json").read_text())
    assert tested["images"]["test"] == 12 and 0 <= tested["test_accuracy"] <= 1


@pytest.mark.parametrize("command", ["validate", "test"])
def test_a_run_is_measured_again_by_its_folder(fit: Fit, command: str, capsys: pytest.CaptureFixture[str]) -> None:
    fit("--model=fcnn", "--model.hidden=[16]")
    summary = json.loads(Path("runs/fcnn-colours/summary.json").read_text())
    capsys.readouterr()
    assert main([command, "--run=runs/fcnn-colours"]) == 0
    name = "test_accuracy" if command == "test" else "val_accuracy"
    assert str(summary[name])[:8] in capsys.readouterr().out


def test_a_checkpoint_says_itself_which_model_it_holds(fit: Fit, colours: Path) -> None:
    fit("--model=resnet20")
    data = ["--data.dataset=folder", f"--data.root={colours}"]
    assert main(["test", *data, "--ckpt_path=runs/resnet20-colours/best.ckpt"]) == 0


def test_predict_writes_a_line_for_each_test_image(fit: Fit) -> None:
    fit("--model=linear", "--trainer.max_epochs=5")
    assert main(["predict", "--run=runs/linear-colours"]) == 0
    with Path("runs/linear-colours/predictions-colours.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert all(row["image"].startswith(f"test/{row['label']}/") for row in rows)
    assert all(Path("colours", row["image"]).is_file() for row in rows)
    summary = json.loads(Path("runs/linear-colours/summary.json").read_text())
    right = sum(row["label"] == row["predicted"] for row in rows)
    assert len(rows) == 12 and right / 12 == pytest.approx(summary["test_accuracy"])
    assert all(0.5 <= float(row["probability"]) <= 1 for row in rows)


def test_predict_refuses_a_folder_that_it_cannot_write_into_before_it_predicts(
    fit: Fit, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fit("--model=linear")
    access, folder = os.access, "runs/linear-colours"
    monkeypatch.setattr("os.access", lambda path, mode: (str(path), mode) != (folder, os.W_OK) and access(path, mode))
    monkeypatch.setattr("cvcc_zoo.classifier.ImageClassifier.predict_step", lambda *_: pytest.fail("it predicts"))
    assert main(["predict", f"--run={folder}"]) == 2
    assert f"cannot write into this folder: '{folder}'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["fit", "--model=resnet21"], "no model named 'resnet21'; did you mean"),
        (["fit", "--model=ResNett"], "did you mean ResNet"),
        (["fit", "--model=resnet20", "--model.shortcutt=A"], "no option named 'shortcutt'; did you mean shortcut"),
        (["fit", "--model=resnet20", "--model.depth=21"], "a ResNet has depth 6n + 2"),
        (["fit", "--optimizer=AdmW"], "no optimizer named 'AdmW'; did you mean AdamW"),
        (["fit", "--optimizer.lrr=1"], "no option of optimizer AdamW named 'lrr'; did you mean lr"),
        (["fit", "--lr_scheduler=Cosin"], "no lr_scheduler named 'Cosin'; did you mean Cosine"),
        (["fit", "--lr_scheduler=StepLR"], "lr_scheduler StepLR needs the option step_size"),
        (["fit", "--model.loss=hing"], "no loss named 'hing'; did you mean hinge"),
        (["fit", "--data.dataset=cifar11"], "no dataset named 'cifar11'; did you mean cifar10"),
        (["fit", "--data.rot=x"], "no option named 'data.rot'; did you mean data.root"),
        (["fit", "--trainer.max_epoch=3"], "did you mean trainer.max_epochs"),
        (["fit", "--modle=cnn"], "no option named 'modle'; did you mean"),
        (["fit", "--data.batch_size=many"], "data.batch_size"),
        (["fit", "--data.dataset=folder", "--data.root=nowhere"], "the image folder nowhere does not exist"),
        (["fit", "--data.dataset=folder"], "needs the folder of the images"),
        (["fit", "--data.image_size=7"], "image_size must be at least 8 pixels"),
        (["fit", "--config=nowhere.yaml"], "nowhere.yaml, which --config names"),
        (["fit", "--config=."], "is a folder; the options of a run are in its config.yaml"),
        (["fit", "--trainer.precision=fp16"], "no precision named 'fp16'; did you mean bf16 or 16? (--trainer.precis"),
        (["fit", "--trainer.logger=WandB"], "no logger named 'WandB'; did you mean WandbLogger?"),
        (["fit", "--trainer.callbacks+=EarlyStop"], "no callback named 'EarlyStop'; did you mean EarlyStopping?"),
        (["fit", "--trainer.callbacks+=stepgraph"], "no callback named 'stepgraph'; did you mean StepGraph?"),
        (
            ["fit", "--trainer.callbacks+=my.Mine"],
            "--trainer.callbacks cannot be my.Mine: No module named 'my'; start "
            "the command in the folder of the module, or name that folder in PYTHONPATH, or leave it out: "
            "--trainer.callbacks=null",
        ),
        (
            ["fit", "--trainer.callbacks+=EarlyStopping"],
            "the class that was chosen also needs monitor: --trainer.callbacks.mon",
        ),
        (["test"], "no trained weights are given"),
        (["test", "--ckpt_path=nowhere.ckpt"], "there is no checkpoint nowhere.ckpt"),
        (["fit", "--ckpt_path=last"], "--ckpt_path=last resumes the run whose config is given"),
        (["test", "--run=nowhere"], "nowhere is not a run folder"),
        (["predict"], "required: name, images"),
        (["predict", "--run", "runs/x", "cat.png"], "cat.png: with --run, --ckpt_path, --config the test images"),
        (["train"], "no command named 'train'"),
        (["list", "nothing*"], "no model named 'nothing*'"),
    ],
)
def test_wrong_input_is_answered_with_advice_and_code_2(
    arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert expected in message(capsys, arguments)


def test_a_broken_yaml_is_an_error_of_one_message(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "broken.yaml").write_text("model: {a\n")
    assert "while parsing a flow mapping" in message(capsys, ["fit", "--config=broken.yaml"])
    (tmp_path / "unknown.yaml").write_text("model: resnet21\n")
    assert "no model named 'resnet21'" in message(capsys, ["fit", "--config=unknown.yaml"])
    (tmp_path / "option.yaml").write_text("model: resnet20\ndatas: {a: 1}\n")
    assert "datas" in message(capsys, ["fit", "--config=option.yaml"])


def test_a_run_folder_that_exists_is_not_touched(fit: Fit, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "precious.txt").write_text("keep me")
    assert fit("--run=mine") == 2
    assert "the run folder mine exists, and none of it will be overwritten" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["precious.txt"]


def test_a_command_in_a_message_quotes_a_path_with_spaces(
    fit: Fit, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "my runs").mkdir()
    (tmp_path / "my runs" / "config.yaml").touch()
    assert fit("--run=my runs") == 2
    assert "to resume it: --config='my runs/config.yaml' --ckpt_path=last" in capsys.readouterr().err
    (tmp_path / "my runs" / "last.ckpt").touch()
    resume = "`cvcc-zoo fit --config='my runs/config.yaml' --ckpt_path=last`"
    assert how_to_resume(tmp_path / "my runs") == f"{resume} resumes it"
    (tmp_path / "my runs" / "summary.json").write_text("{")
    with pytest.raises(ValueError, match=re.escape(f"--config='{tmp_path}/my runs/config.yaml' --ckpt_path=last")):
        read_summary(tmp_path / "my runs")


def test_every_process_finds_the_run_folder_below_the_home_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    assert new_folder("~/runs/mine", Path("runs"), "linear", FashionMini()) == tmp_path / "runs" / "mine"


def test_a_process_that_does_not_know_the_number_of_the_run_folder_checks_no_other_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / f"linear-{FashionMini().title}"
    folder.mkdir()
    (folder / "last.ckpt").touch()
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    run = RunFolder(new_folder(None, tmp_path, "linear", FashionMini()), "")
    assert run.callbacks(validation=True, checkpoints=False, minutes=1, monitor="val/accuracy", logs=False) == [run]


def test_a_run_folder_can_be_named(fit: Fit, tmp_path: Path) -> None:
    assert fit("--model=linear", "--run=results/first") == 0
    assert (tmp_path / "results" / "first" / "summary.json").is_file() and not Path("runs").exists()


def test_a_run_is_not_resumed_in_a_folder_where_lightning_cannot_write_checkpoints(tmp_path: Path) -> None:
    config = tmp_path / "u::v" / "config.yaml"
    config.parent.mkdir()
    config.write_text(HEADER)
    for asked, configs in ((str(config.parent), []), (None, [config])):
        with pytest.raises(ValueError, match="because of the `::`; rename it"):
            folder_to_resume(asked, configs)


def test_a_checkpoint_of_another_model_is_refused(fit: Fit, colours: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fit("--model=linear", "--run=one")
    data = ["--data.dataset=folder", f"--data.root={colours}"]
    assert main(["test", *data, "--model=fcnn", "--ckpt_path=one/best.ckpt"]) == 2
    assert "the checkpoint contains a different model: it has family='Linear'" in capsys.readouterr().err
    assert main(["fit", *data, *QUICK, "--model=resnet20", "--ckpt_path=one/last.ckpt"]) == 2
    assert "the checkpoint contains a different model" in capsys.readouterr().err
    assert not Path("runs").exists() or not list(Path("runs").iterdir())


def test_a_checkpoint_for_other_images_is_refused(fit: Fit, capsys: pytest.CaptureFixture[str]) -> None:
    fit("--model=linear", "--run=one")
    assert main(["test", "--ckpt_path=one/best.ckpt"]) == 2  # fashion-mini: 10 classes of grey 28x28 images
    assert "num_classes=2" in capsys.readouterr().err


@pytest.mark.draws
def test_a_loss_of_nan_stops_and_the_folder_keeps_what_was_measured(
    fit: Fit, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fit("--model=cnn_small", "--optimizer=SGD", "--optimizer.lr=1e38", "--lr_scheduler=null") == 2
    printed = capsys.readouterr().err
    assert "the loss is nan at step" in printed and "lr 1e+38" in printed and "Lower the learning rate" in printed
    assert not Path("runs/cnn_small-colours/summary.json").exists()
    assert {path.name for path in Path("runs/cnn_small-colours").iterdir()} == {
        "config.yaml",
        "metrics.csv",
        "curves.png",
        "last.ckpt",
    }


def test_a_truncated_image_stops_before_a_run_is_made(
    make_folder: MakeFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    root = make_folder()
    broken = root / "train" / "red" / "004.png"
    broken.write_bytes(broken.read_bytes()[:50])
    assert str(broken) in message(capsys, ["fit", "--data.dataset=folder", f"--data.root={root}", *QUICK])


def test_list_prints_parameters_and_macs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "resnext29*"]) == 0
    printed = capsys.readouterr().out
    assert "resnext29_32x4d" in printed and "4,775,754" in printed and "774.06 M" in printed


def test_list_makes_models_without_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bool] = []

    def noted(model: ImageClassifier) -> Complexity:
        seen.extend(p.is_meta for p in model.parameters())
        return complexity(model)

    monkeypatch.setattr("cvcc_zoo.commands.list.complexity", noted)
    assert main(["list", "cnn"]) == 0
    assert seen and all(seen)


def test_a_reader_that_stops_reading_is_no_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([sys.executable, "-m", "cvcc_zoo", "--help"], stdout=writing, stderr=subprocess.PIPE)
    os.close(writing)
    assert (done.returncode, done.stderr) == (128 + 13, b"")


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    printed = capsys.readouterr().out
    assert all(f"  {command} " in printed for command in ("fit", "validate", "test", "predict", "list"))


def test_the_package_runs_as_a_module() -> None:
    done = subprocess.run([sys.executable, "-m", "cvcc_zoo", "--help"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("cvcc-zoo: a PyTorch Lightning model zoo")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("trainer:\n  max_epochs: 1\ntrainer:\n  max_epochs: 2\n", "the YAML cannot be read: trainer occurs twice"),
        (
            "trainer: {max_epochs: 1, max_epochs: 2}\n",
            "the YAML cannot be read: max_epochs occurs twice; remove one",
        ),
        ("optimizer: SGD\n\tlr: 0.1\n", "line 2: while scanning for the next token, found character"),
        ("a: &a [1]\nb: &b [*a, *a]\ntrainer: 3\ntrainer: 4\n", "trainer occurs twice"),
    ],
)
def test_yaml_in_which_something_would_be_lost_is_refused_in_one_line(
    text: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("my.yaml").write_text(text)
    printed = message(capsys, ["fit", "--config=my.yaml"])
    assert said in printed and len(printed.strip().splitlines()) == 1


@pytest.mark.parametrize(("option", "meant"), [("lr", "optimizer.lr"), ("seed", "seed_everything")])
def test_an_option_without_its_owner_is_answered_with_the_whole_name(
    option: str, meant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    printed = message(capsys, ["fit", f"--{option}=1"])
    assert meant in printed and "-->" not in printed
