"""The package is typed for its users: their scripts pass `mypy --strict` without a comment that silences it."""

import subprocess
import sys
from pathlib import Path

import pytest

import cvcc_zoo

ROOT = Path(cvcc_zoo.__file__).parents[1]
SCRIPT = '''
import cvcc_zoo
from lightning import Trainer
from torch import Tensor


class Noisy(cvcc_zoo.ImageClassifier):
    """A family of the user's own."""


def train(root: str) -> Tensor:
    model = cvcc_zoo.create("resnet20", num_classes=10, loss={"name": "focal", "gamma": 1.5})
    data = cvcc_zoo.ImageDataModule("folder", root=root, batch_size=64, sampler="balanced")
    trainer = Trainer(max_epochs=1)
    trainer.fit(model, data)
    trainer.test(model, data)
    trained = cvcc_zoo.load("runs/cnn_small-fashion-mini")
    names: tuple[str, ...] | None = trained.classes
    print(names, data.num_classes, cvcc_zoo.list_models("resnet*"))
    images, labels = next(iter(data.val_dataloader()))
    logits: Tensor = trained(images)
    return logits.argmax(1) == labels
'''


def checked(script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    (folder / "user.py").write_text(script)
    command = [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", "user.py"]
    return subprocess.run(command, cwd=folder, env={"MYPYPATH": str(ROOT)}, capture_output=True, text=True)


def test_the_package_says_that_it_is_typed() -> None:
    assert (ROOT / "cvcc_zoo/py.typed").is_file()


@pytest.mark.slow
def test_a_user_s_script_passes_mypy_in_strict_mode(tmp_path: Path) -> None:
    found = checked(SCRIPT, tmp_path)
    assert found.returncode == 0, found.stdout + found.stderr
    found = checked(SCRIPT.replace('"folder", root=root', "root=1"), tmp_path)
    assert found.returncode == 1 and 'Argument "root"' in found.stdout
