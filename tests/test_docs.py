"""What the documentation says is so."""

import ast
import importlib
import inspect
import re
import shlex
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.map import page as map_of_the_code
from benchmarks.models import with_models
from benchmarks.networks import with_table as with_networks
from cvcc_zoo import FCNN, ImageClassifier, ResNet, create
from cvcc_zoo.__main__ import main as command
from cvcc_zoo.cli.manual import COMMANDS
from cvcc_zoo.commands.search import search
from cvcc_zoo.data.augment import AUGMENTATIONS, PRESETS
from cvcc_zoo.data.draws import Draws
from cvcc_zoo.data.whitening import METHODS
from cvcc_zoo.inspection.layers import inventory, pixels
from cvcc_zoo.inspection.memory import activation_bytes
from cvcc_zoo.inspection.subjects import find_subject
from cvcc_zoo.linear.features import GIVEN, OF_IMAGES, OF_VECTORS
from cvcc_zoo.losses import LOSSES
from cvcc_zoo.models.initialisation import INITS, SILENT
from cvcc_zoo.models.layers import NORMS
from cvcc_zoo.optim.build import OWN
from cvcc_zoo.optim.curves import CURVES
from cvcc_zoo.registry import ENTRIES
from cvcc_zoo.search.running import config_of
from cvcc_zoo.search.space import Choice, Range, parse_space, unusual
from tests.optimizer_checks import CHECKS, Subject
from tests.reliability.processes import ran

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_the_map_of_the_code_is_that_of_the_modules() -> None:
    assert (ROOT / "docs/map.md").read_text() == map_of_the_code(), "run python -m benchmarks.map"


def test_the_table_of_models_is_that_of_the_registry() -> None:
    page = (ROOT / "docs/models.md").read_text()
    assert with_models(page) == page, "run python -m benchmarks.models"
    rows = dict(re.findall(r"^\| `(\w+)` \| `\w+` \| ([\d,]+) \|", page, flags=re.MULTILINE))
    assert rows == {name: f"{entry.parameters:,}" for name, entry in ENTRIES.items()}


@pytest.mark.slow
def test_the_table_of_other_networks_is_that_of_their_results() -> None:
    page = (ROOT / "docs/networks.md").read_text()
    assert with_networks(page) == page, "run python -m benchmarks.networks"


def test_the_network_of_the_page_about_other_networks_works_as_it_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = re.findall(r"```python\n(# my_nets.*?)```", (ROOT / "docs/networks.md").read_text(), flags=re.DOTALL)[0]
    (tmp_path / "page_nets.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    model = ImageClassifier.wrap("page_nets.Small", width=32, optimizer="SGD", whitening="none")
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
    assert model.head_hidden_size == 32 and len(model.predict(torch.zeros(3, 32, 32), top=3)) == 3


@pytest.mark.filterwarnings("ignore::lightning.fabric.utilities.warnings.PossibleUserWarning")
def test_the_training_on_13_bands_of_the_page_about_other_networks_works_as_it_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs/networks.md").read_text()
    (code,) = re.findall(r"```python\n(import cvcc_zoo\n.*?)```", page, flags=re.DOTALL)
    names: dict[str, Any] = {}
    exec(code.replace("cnn_small", "linear"), names)
    assert {name for name, _ in names["model"].predict(names["images"][0])} == {"field", "river", "town"}


def test_lists_and_dictionaries_in_options_are_quoted_for_the_shell() -> None:
    """In messages and on the pages, from which people copy them."""
    pages = [path for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")) if path.stem != "map"]
    texts = {path: path.read_text() for path in pages}
    for path in (ROOT / "cvcc_zoo").rglob("*.py"):
        tree = ast.parse(path.read_text())
        alone = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}  # docstrings
        strings = [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in alone]
        texts[path] = "\n".join(node.value for node in strings if isinstance(node.value, str))
    found = [(path, option) for path, text in texts.items() for option in re.findall(r"--[\w.]+\+?=[\[{].*", text)]
    assert not found


def test_the_page_about_commands_names_all_of_them() -> None:
    page = (ROOT / "docs/commands.md").read_text()
    assert set(re.findall(r"^cvcc-zoo ([\w-]+)", page, flags=re.MULTILINE)) == set(COMMANDS)


def test_the_page_about_commands_names_all_optimizers_schedules_and_losses() -> None:
    page = (ROOT / "docs/commands.md").read_text()
    for kind, names in (("Optimizer", OWN), ("Schedule", CURVES), ("Loss", LOSSES)):
        about = page.partition(f"- **{kind}.** ")[2].partition("\n- ")[0]
        assert not [name for name in names if f"`{name}`" not in about], kind


def test_the_file_of_every_optimizer_has_a_page_of_reference() -> None:
    for module in {optimizer.__module__ for optimizer in OWN.values()}:
        page = f"api/{module.rpartition('.')[2]}.md"
        assert f"- {page}\n" in (ROOT / "mkdocs.yml").read_text()
        assert f"::: {module}\n" in (ROOT / "docs" / page).read_text()


def test_the_page_about_reading_names_files_that_exist_and_each_notebook_names_those_of_its_subjects() -> None:
    page = (ROOT / "docs/reading.md").read_text()
    of_notebooks: dict[str, list[str]] = {}
    for files, number in re.findall(r"^\| .+? \| (.+?) \| (\d) \|$", page, re.M):
        of_notebooks.setdefault(number, []).extend(re.findall(r"`(.+?)`", files))
    for number, files in of_notebooks.items():
        (notebook,) = (ROOT / "notebooks").glob(f"0{number}_*.ipynb")
        assert all((ROOT / "cvcc_zoo" / file).exists() for file in files), files
        line = "The code is in `cvcc_zoo`: " + ", ".join(f"`{file}`" for file in files) + "."
        assert line in notebook.read_text()
    assert sorted(of_notebooks) == list("12345678")
    for file in re.findall(r"`(\w+/[\w/]+\.py)`", page):
        assert (ROOT / "cvcc_zoo" / file).exists() or (ROOT / file).exists(), file
    for file, method in re.findall(r"`([\w/]+\.py)`, `(\w+)`", page):
        assert f"def {method}(" in (ROOT / "cvcc_zoo" / file).read_text(), method


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) <= 150


def test_an_expression_that_needs_a_subpackage_stands_beside_its_import() -> None:
    """`import cvcc_zoo` alone imports no subpackage."""
    for file in [*ROOT.glob("README*.md"), *(ROOT / "docs").glob("*.md")]:
        assert not re.findall(r"cvcc_zoo\.[a-z_]+\.[\w.]+\(.*", file.read_text()), file


def test_the_pictures_exist() -> None:
    pictures = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", README) + re.findall(r'src="([^"]+)"', README)
    assert len(pictures) == 1 and all((ROOT / picture).is_file() for picture in pictures)


def test_the_augmentation_of_the_contributing_guide_works_as_it_stands() -> None:
    code = re.findall(r"```python\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), flags=re.DOTALL)[1]
    names: dict[str, Any] = {}
    exec(code, names)
    images = torch.full((100, 3, 4, 4), 10, dtype=torch.uint8)
    changed = names["Invert"]()(images, Draws(0, 0, torch.arange(100)))
    assert {int(image.amax()) for image in changed} == {10, 245}


def test_the_optimizer_of_the_contributing_guide_works_as_it_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = re.findall(r"```python\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), flags=re.DOTALL)[2]
    (tmp_path / "sign_sgd.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    for check in CHECKS:
        check(Subject(importlib.import_module("sign_sgd").SignSGD, {"lr": 0.01}))


@pytest.mark.parametrize(("number", "folder"), [(0, "models"), (1, "data/augment"), (2, "optim")])
def test_the_files_of_the_contributing_guide_pass_its_own_checks(number: int, folder: str) -> None:
    code = re.findall(r"```python\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), flags=re.DOTALL)[number]
    for check in (["check"], ["format", "--check"]):
        ruff = [sys.executable, "-m", "ruff", *check, f"--stdin-filename=cvcc_zoo/{folder}/example.py", "-"]
        done = subprocess.run(ruff, cwd=ROOT, input=code, text=True, capture_output=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_page_about_data_names_everything_with_its_defaults() -> None:
    page = (ROOT / "docs/data.md").read_text()
    rows = dict(re.findall(r"^\| `(\w+)`(?: \(default\))? \| (.*?) \|", page, flags=re.MULTILINE))
    assert set(rows) == {*AUGMENTATIONS, *PRESETS, *METHODS}
    for name, build in AUGMENTATIONS.items():
        for option, parameter in inspect.signature(build).parameters.items():
            assert f"`{option}: " in rows[name]
            if parameter.default is not parameter.empty:
                default = parameter.default
                shown = list(default) if isinstance(default, tuple) else default
                assert f"`{option}: {shown}`" in rows[name]
    pictures = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", page)
    assert len(pictures) == 2 and all((ROOT / "docs" / picture).is_file() for picture in pictures)


def test_the_page_about_schedules_names_them_with_their_defaults() -> None:
    page = (ROOT / "docs/schedules.md").read_text()
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*?) \|", page, flags=re.MULTILINE))
    assert set(rows) == set(CURVES) and (ROOT / "docs/pictures/schedules.png").is_file()
    for name, curve in CURVES.items():
        for option, parameter in list(inspect.signature(curve).parameters.items())[2:]:
            given = parameter.default is not parameter.empty
            assert (f"`{option}: {parameter.default}`" if given else f"`{option}`") in rows[name]


def test_the_page_about_optimizers_names_them_with_their_defaults() -> None:
    page = (ROOT / "docs/optimizers.md").read_text()
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*?) \|", page, flags=re.MULTILINE))
    assert set(rows) == set(OWN)
    for name, optimizer in OWN.items():
        parameters = list(inspect.signature(optimizer).parameters.items())[1:]
        how = ("maximize", "foreach", "fused", "capturable")
        assert re.findall(r"`(\w+): ", rows[name]) == [option for option, _ in parameters if option not in how]
        for option, parameter in parameters:
            assert option in how or f"`{option}: {parameter.default}`" in rows[name]
    pictures = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", page)
    assert pictures and all((ROOT / "docs" / picture).is_file() for picture in pictures)


def test_the_page_about_searches_names_all_options_and_its_space_is_one() -> None:
    page = (ROOT / "docs/search.md").read_text()
    named = re.findall(r"^\| `--(\w+)` \|", page, flags=re.MULTILINE)
    assert sorted(named) == sorted(set(inspect.signature(search).parameters) - {"options"})
    space = parse_space(re.findall(r"```yaml\n(.*?)```", page, flags=re.DOTALL)[0])
    assert space["data.batch_size"] == Choice((32, 64, 128, 256, 512), log=True)
    assert space["trainer.max_epochs"] == Range(2, 8) and space["optimizer.weight_decay"] == Range(0.0, 0.1)
    assert len([config_of([], values, Path("search")) for values in unusual(space)]) == 6
    pictures = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", page)
    assert len(pictures) == 2 and all((ROOT / "docs" / picture).is_file() for picture in pictures)


def test_the_page_about_comparing_shows_counts_that_are_right() -> None:
    page = (ROOT / "docs/comparing.md").read_text()
    rows = re.findall(r"^\| `([\w./{}:, ]+)` \| ([\d,]+) \| ([\d,.]+) \| ([\d.]+) \|", page, flags=re.MULTILINE)
    assert len(rows) == 10
    for row, (name, parameters, macs, memory) in enumerate(rows):
        with torch.device("meta"):
            subject = find_subject(name, {})
        counts = inventory(subject.network, subject.shape)
        assert (f"{counts.parameters:,}", f"{counts.macs / 1e6:,.1f}") == (parameters, macs)
        if row % 5 in (0, 4):  # the first and the last of both tables
            assert f"{activation_bytes(subject.network, subject.shape) / 1e6:,.2f}" == memory
    fields = dict(re.findall(r"(resnet\d+) (?:sees )?(\d+)", page))
    assert list(fields) == ["resnet20", "resnet56", "resnet110"]
    for name, seen in fields.items():
        with torch.device("meta"):
            network = create(name).network
        assert pixels(inventory(network, (3, 32, 32)).layers[-3].field) == int(seen)
    pictures = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", page)
    assert pictures and all((ROOT / "docs" / picture).is_file() for picture in pictures)


def test_the_page_about_initialisation_names_all_with_the_networks_that_take_them() -> None:
    page = (ROOT / "docs/initialisation.md").read_text()
    rows = dict(re.findall(r"^\| `(\w+)`(?: \(default\))? \| .*? \| ([^|]*)", page, flags=re.MULTILINE))
    assert set(rows) == {*INITS, *NORMS}
    for init in INITS:
        residual, none = "residual" in rows[init], "`norm: none`" in rows[init]
        for norm in NORMS:
            fits = not residual or (norm == "none") == none
            build = partial(ResNet, depth=8, norm=norm, init=init)
            if fits:
                build()
            else:
                with pytest.raises(ValueError, match="choose init"):
                    build()
        assert residual == (init in SILENT)
    for norm in NORMS:
        if rows[norm].startswith("convolutional"):
            with pytest.raises(ValueError, match="no norm named"):
                FCNN(norm=norm)
        else:
            FCNN(hidden=[8], norm=norm)


def test_the_model_of_the_contributing_guide_works_as_it_stands(tmp_path: Path) -> None:
    code = re.findall(r"```python\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), flags=re.DOTALL)[0]
    (tmp_path / "tiny.py").write_text(code)
    check = "import tiny, cvcc_zoo; m = cvcc_zoo.create('tiny16'); print(sum(p.numel() for p in m.parameters()))"
    assert ran(check) == "602\n"


def test_the_page_about_linear_classifiers_names_losses_and_features_and_the_accuracies_of_the_recipes() -> None:
    page = (ROOT / "docs/linear.md").read_text()
    assert all(f"`{name}`" in page or f"loss={name}`" in page for name in LOSSES if name != "cross_entropy")
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*?) \|", page, flags=re.MULTILINE))
    for name, feature in (OF_IMAGES | OF_VECTORS).items():
        options = set(inspect.signature(feature).parameters) - set(GIVEN.get(name, ()))
        wanted = {"weights", "part"} if name == "Pretrained" else options
        assert set(re.findall(r"`(\w+): ", rows[name])) == wanted
    accuracies = dict(re.findall(r"^\| `(\w+/\w+)` \|.*\| (\d+\.\d+) % \|", page, flags=re.MULTILINE))
    assert set(accuracies) == {
        "cifar10/linear",
        *(f"linear/{path.stem}" for path in ROOT.glob("configs/linear/*.yaml")),
    }
    for recipe, accuracy in accuracies.items():
        assert f"test accuracy: {accuracy} %" in (ROOT / f"configs/{recipe}.yaml").read_text()
    pictures = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", page)
    assert len(pictures) == 2 and all((ROOT / "docs" / picture).is_file() for picture in pictures)


def test_the_tutorial_works_as_it_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (ROOT / "docs/tutorial.md").read_text()
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", page, flags=re.DOTALL | re.MULTILINE)
    make_images, use = (block for language, block in blocks if language == "python")
    lines = [line for _, block in blocks for line in block.splitlines()]
    monkeypatch.chdir(tmp_path)
    exec(make_images, {})
    shorter = {"fit": ["--trainer.max_epochs=1", "--trainer.limit_train_batches=1"]}
    commands = [shlex.split(line)[1:] for line in lines if line.startswith("cvcc-zoo ") and "my_images" in line]
    assert [words[0] for words in commands] == ["fit", "fit", "predict"]
    for words in commands:
        assert command([*words, *shorter.get(words[0], [])]) == 0
    exec(use, {})
    assert re.search(r"^\[('[\w ]+', ){2}'[\w ]+'\]$", capsys.readouterr().out.splitlines()[-1])
    assert {path.name for path in tmp_path.iterdir()} >= {"my_images", "runs", "predictions.csv", "sheet.png"}


def skeleton(page: str) -> dict[str, Any]:
    """Return the parts of a page that a translation has in common with its original."""
    fences = re.findall(r"```\w*\n(.*?)```", page, flags=re.DOTALL)
    lines = [line.partition("  # ")[0].rstrip() for fence in fences for line in fence.splitlines()]
    prose = re.sub(r"```.*?```", "", page, flags=re.DOTALL)
    return {
        "commands": [line for line in lines if "cvcc-zoo " in line or "pip " in line],
        "names": sorted(" ".join(name.split()) for name in re.findall(r"`[^`]+`", prose)),
        "numbers": sorted(re.findall(r"\d[\d,.]*\d|\d", prose)),
        "headings": len(re.findall(r"^#+ ", prose, flags=re.MULTILINE)),
    }


def test_the_chinese_readme_says_the_same() -> None:
    translated = skeleton((ROOT / "README.zh.md").read_text())
    for what, original in skeleton(README).items():
        assert translated[what] == original, what
