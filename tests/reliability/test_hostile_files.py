"""A checkpoint, a card or a file of weights cannot run code, import a module, fill the memory or write elsewhere.

The config.yaml of a run folder is another thing: it is the user's own file, like the words of a command, and may name
classes (callbacks, augmentations, an optimizer) that `fit`, `test --run` and `publish` then import.
"""

import json
import shutil
from functools import partial
from pathlib import Path

import pytest
import torch
import yaml
from lightning import Trainer
from PIL import Image

from cvcc_zoo import ImageDataModule, create, load
from cvcc_zoo.__main__ import main
from cvcc_zoo.classifier import ImageClassifier
from cvcc_zoo.cli.expansion import dump_yaml
from cvcc_zoo.cli.starting import start_from
from cvcc_zoo.export.program import export
from cvcc_zoo.files.plain import load_plain
from cvcc_zoo.runs import WholeCheckpoints
from cvcc_zoo.zoo.trained import find_trained
from tests.conftest import QUICK, Fit
from tests.reliability.hostile_helpers import (  # noqa: F401  nothing_acts acts by itself
    BOMBS,
    CHECKPOINTS,
    PATH,
    aliases,
    answer,
    nothing_acts,
    options,
    png,
    write_checkpoint,
)
from tests.reliability.processes import ran


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_a_hostile_checkpoint_is_refused_in_words_wherever_it_is_given(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.ckpt"
    write_checkpoint(path, name)
    message = CHECKPOINTS[name][1]
    model = create("linear", num_classes=3, in_channels=1, image_size=8)
    started = partial(start_from, model=model, data=ImageDataModule(), command="fit", run=None)
    ways = (load, lambda file: find_trained(str(file)), lambda file: started(str(file)))
    for way in ways:
        with pytest.raises(ValueError, match=r"a\.ckpt|family") as caught:
            way(path)
        assert message in str(caught.value)
    Image.new("L", (8, 8)).save("a.png")
    for command in (["predict", str(path), "a.png"], ["export", str(path)]):
        assert message in answer(capsys, *command)


@pytest.mark.parametrize("name", ["object", "loss", "whitening", "shape", "billion laughs", "empty"])
def test_the_commands_of_lightning_refuse_it_too(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    write_checkpoint(Path("a.ckpt"), name)
    arguments = ["--data.image_size=8", *QUICK]
    for command in (["test", "--ckpt_path=a.ckpt"], ["fit", "--ckpt_path=a.ckpt"]):
        assert CHECKPOINTS[name][1] in answer(capsys, *command, *arguments)


def test_a_checkpoint_that_is_right_is_none_of_these(tmp_path: Path) -> None:
    torch.save(options(), tmp_path / "a.ckpt")
    assert load(tmp_path / "a.ckpt")(torch.zeros(2, 1, 8, 8)).shape == (2, 3)


def test_a_config_that_refers_to_its_own_parts_is_not_followed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(aliases(), "a.ckpt")
    Image.new("L", (8, 8)).save("a.png")
    assert "contains YAML aliases" in answer(capsys, "predict", "a.ckpt", "a.png")
    assert "contains YAML aliases" in answer(capsys, "fit", "--ckpt_path=a.ckpt", "--seed_everything=true")
    twice = ["x"]
    assert "&" not in dump_yaml({"a": twice, "b": twice})  # what we write has no such parts


def test_memory_and_time_are_bounded_whatever_a_checkpoint_claims(tmp_path: Path) -> None:
    for number, name in enumerate(BOMBS):
        write_checkpoint(tmp_path / f"{number}.ckpt", name)
    (tmp_path / "large.json").write_text("[" * 33_000_000)
    (tmp_path / "bomb.png").write_bytes(png(10_000, 8_000))
    code = """
import resource, sys, time
from pathlib import Path
from cvcc_zoo import load
from cvcc_zoo.data.decode import Decoding
from cvcc_zoo.weights.card import read_card
def megabytes():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
load(sys.argv[1])
before, start = megabytes(), time.monotonic()
for path in sorted(Path(sys.argv[2]).glob("[!r]*.*")):
    way = {".ckpt": load, ".json": read_card, ".png": Decoding(8, 1, same_size=False, grey_only=False)}[path.suffix]
    try:
        way(path)
    except ValueError:
        continue
    raise SystemExit(f"{path} was taken")
print(megabytes() - before, time.monotonic() - start)
"""
    torch.save(options(), tmp_path / "right.pt")
    # Forked, so that the peak is its own: a new program begins with that of pytest. The largest takes 66 MB: 33 MB as
    # bytes and as text.
    megabytes, seconds = map(float, ran(code, str(tmp_path / "right.pt"), str(tmp_path)).split())
    assert megabytes < 80 and seconds < 20, f"{megabytes:.0f} MB, {seconds:.1f} s"


# Import paths: a user may give one, a file may not


@pytest.mark.parametrize("name", [PATH, "timm.evil.Optimizer", "evil_module..Optimizer"])
def test_an_import_path_in_a_checkpoint_is_a_text_that_a_training_does_not_follow(name: str, tmp_path: Path) -> None:
    spec = {"name": name}
    torch.save(options(optimizer={**spec, "lr": 0.1}, lr_scheduler=spec, loss=spec), tmp_path / "a.ckpt")
    model = load(tmp_path / "a.ckpt")
    assert model.hparams["optimizer"]["name"] == model.hparams["loss"]["name"] == name
    with pytest.raises(ValueError, match=r"no loss at the import path .* in the modules imported so far"):
        model.checked_loss()
    module = name.rpartition(".")[0]
    with pytest.raises(ValueError, match=f"in the modules imported so far.*`import {module}` first"):
        model.configure_optimizers()
    model = create("linear", in_channels=1, image_size=8, lr_scheduler=model.hparams["lr_scheduler"])
    trainer = Trainer(max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
                      enable_model_summary=False, accelerator="cpu")  # fmt: skip
    with pytest.raises(ValueError, match=r"no lr_scheduler at the import path .* in the modules imported so far"):
        trainer.fit(model, ImageDataModule(image_size=8))


def test_what_reads_a_checkpoint_does_not_follow_its_import_path(
    fit: Fit, colours: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fit("--model=linear") == 0
    run = Path("runs/linear-colours")
    for file in run.glob("*.ckpt"):
        content = torch.load(file, weights_only=True)
        content["hyper_parameters"] |= {"optimizer": {"name": PATH}, "lr_scheduler": {"name": PATH}}
        torch.save(content, file)
    data = ["--data.dataset=folder", f"--data.root={colours}", *QUICK]
    image = str(colours / "test/red/000.png")
    assert main(["test", f"--ckpt_path={run / 'best.ckpt'}", *data]) == 0
    assert main(["predict", f"--ckpt_path={run / 'best.ckpt'}", *data]) == 0
    assert main(["predict", str(run), image]) == 0
    assert fit("--model=linear", f"--weights={run}", "--trainer.logger=false") == 0
    found = export(find_trained(str(run)), Path("a.pt2"), "torch_export", torch.zeros(64, 3, 8, 8, dtype=torch.uint8))
    assert found.difference >= 0
    assert main(["publish", str(run), "--tag=colours", "--folder=published"]) == 0
    card = Path("published/linear.colours.json")
    assert json.loads(card.read_text())["hparams"]["optimizer"] == {"name": PATH}
    assert main(["evaluate", str(card), *data[:2]]) == 0
    with pytest.raises(ValueError, match="in the modules imported so far"):
        create("linear", pretrained=card).configure_optimizers()


def test_the_classes_of_a_run_are_looked_up_without_its_augmentations(fit: Fit, colours: Path) -> None:
    assert fit("--model=linear") == 0
    config = Path("runs/linear-colours/config.yaml")
    content = yaml.safe_load(config.read_text())
    content["data"]["augmentations"] = [PATH]
    config.write_text(yaml.safe_dump(content))
    assert main(["predict", "runs/linear-colours", str(colours / "test/red/000.png")]) == 0


def test_a_module_that_is_imported_already_is_found(tmp_path: Path) -> None:
    torch.save(options(optimizer={"name": "torch.optim.sgd.SGD", "lr": 0.1}, lr_scheduler=None), tmp_path / "a.ckpt")
    assert type(load(tmp_path / "a.ckpt").configure_optimizers()) is torch.optim.SGD
    torch.save(options(optimizer={"name": "torch.nn.Linear"}), tmp_path / "a.ckpt")
    with pytest.raises(ValueError, match=r"torch\.nn\.Linear is not a valid optimizer"):
        load(tmp_path / "a.ckpt").configure_optimizers()


def test_lightning_itself_does_not_run_these_checkpoints(tmp_path: Path) -> None:
    for name in ("object", "_instantiator", "_class_path", "optimizer"):
        write_checkpoint(tmp_path / "a.ckpt", name)
        try:
            ImageClassifier.load_from_checkpoint(tmp_path / "a.ckpt", map_location="cpu")
        except Exception as error:  # whatever it says
            assert str(error)
    with pytest.raises(ValueError, match=r"names '__builtin__\.getattr'"):
        write_checkpoint(tmp_path / "a.ckpt", "object")
        load_plain(tmp_path / "a.ckpt")


def test_a_training_reads_its_checkpoint_as_plain_data_whatever_the_environment_says(
    fit: Fit, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    path = tmp_path / "a.ckpt"
    write_checkpoint(path, "object")
    with pytest.raises(ValueError, match=r"names '__builtin__\.getattr'"):
        WholeCheckpoints().load_checkpoint(path)
    monkeypatch.setenv("SLURM_NTASKS", "1")  # Lightning then goes on from what it finds in the folder of the trainer
    path.rename(tmp_path / "hpc_ckpt_1.ckpt")
    assert fit("--model=linear", "--run=mine") == 0
    assert json.loads(Path("mine/summary.json").read_text())["epochs"] == 1
    shutil.copy("mine/last.ckpt", "mine/hpc_ckpt_1.ckpt")
    assert (
        fit("--model=linear", "--run=mine", "--ckpt_path=last", "--trainer.max_epochs=2", "--allow_changes=true") == 0
    )
