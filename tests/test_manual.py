"""Help says how a command is called, and the tab key knows what the parsers know."""

import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from cvcc_zoo.cli.choices import EPOCHS
from cvcc_zoo.cli.manual import COMMANDS, overview, with_examples
from cvcc_zoo.cli.options import parser
from cvcc_zoo.cli.parsing import HEADINGS
from cvcc_zoo.commands import call, parser_of
from cvcc_zoo.commands.completion import main as completion
from cvcc_zoo.data.sources import DATASETS
from cvcc_zoo.registry import FAMILIES, family_options
from tests.conftest import Fit

ROOT = Path(__file__).parents[1]
PAGES = [(ROOT / name).read_text() for name in ("README.md", *sorted(map(str, (ROOT / "docs").glob("*.md"))))]
FENCES = [fence for page in PAGES for fence in re.findall(r"^```\w*\n(.*?)^```", page, re.DOTALL | re.MULTILINE)]
PRINTED = [
    found
    for fence in FENCES
    for found in re.findall(r"^(?:\$ )?(cvcc-zoo (?!-).*)$", fence.replace("\\\n", " "), re.MULTILINE)
]
"""The commands of the pages."""
CHOSEN = {
    "--optimizer",
    "--lr_scheduler",
    "--data.whitening",
    "--model.loss",
    "--trainer.callbacks",
    "--trainer.logger",
}
"""Options that name something with options of its own, such as --optimizer.lr."""
PASSING = ("search", "cross-validate", "find-lr", "train-zoo", "predict")
"""Commands that take options of `fit`, too."""


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_command_ends_with_its_examples(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        call(name, ["--help"])
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    assert text.splitlines()[0].lower().startswith("usage: cvcc-zoo")
    assert text.endswith("".join(f"  {example}\n" for example in COMMANDS[name].examples))


@pytest.mark.parametrize("name", COMMANDS)
def test_examples_and_pages_name_options_that_exist(name: str) -> None:
    known = {option for action in parser_of(name)._actions for option in action.option_strings}
    of_families = {f"--model.{option}" for family in FAMILIES.values() for option in family_options(family)}
    passed_on = {option for action in parser_of("fit")._actions for option in action.option_strings}
    printed = [line for line in PRINTED if line.split()[1] == name]
    assert printed
    for example in (*COMMANDS[name].examples, *printed):
        words = shlex.split(example, comments=True)
        assert words[:2] == ["cvcc-zoo", name]
        of_others = any(word.startswith(("--model=timm.", "--model=my_nets.")) for word in words)
        for word in (word.partition("=")[0] for word in words if word.startswith("--") and word != "--data..."):
            flag = "--" + word[2:].replace("-", "_")
            group = flag.rpartition(".")[0]
            own = known | of_families | (passed_on if name in PASSING else set())
            assert flag in own or group in own & CHOSEN or (group == "--model" and of_others), example


def test_the_parser_of_a_training_is_built_once_and_keeps_no_option(fit: Fit) -> None:
    parser: Any = parser_of("fit")
    before = parser.get_defaults()
    assert fit("--model=linear", "--optimizer=SGD", "--optimizer.lr=0.1", "--data.whitening=none", "--test=false") == 0
    again: Any = parser_of("fit")
    assert again is parser and again.get_defaults() == before
    assert parser_of("test") is not parser


def test_the_overview_names_every_command_with_what_it_does() -> None:
    summaries = overview().partition("examples:")[0]
    for name, command in COMMANDS.items():
        words = r"\s+".join(map(re.escape, command.what.split()))
        assert re.search(rf"^  {name} +{words}$", summaries, re.MULTILINE)
    assert max(map(len, summaries.splitlines())) <= 80
    assert max(map(len, overview().splitlines())) <= 120


def test_the_help_of_fit_says_what_a_model_can_be_and_heads_its_options_in_words(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        call("fit", ["--help"])
    text = capsys.readouterr().out
    headings = re.findall(r"^(\w.*):$", text, re.MULTILINE)
    assert headings == [*["options", *HEADINGS.values()][:4], "Linked arguments", HEADINGS["fit"], "examples"]
    models = " ".join(text.partition("  --model CONFIG")[2].partition("  --data")[0].split())
    assert all(f"({name})" in models for name in ("resnet20", "resnet20.cifar10", "timm.resnet18"))


@pytest.mark.parametrize("command", ["fit", "test"])
def test_the_help_of_lightnings_options_says_what_they_mean_here(command: str) -> None:
    text = " ".join(parser(command).format_help().split())
    assert f"Number of epochs: {EPOCHS}, unless" in text and "1000" not in text
    assert "default_root_dir DEFAULT_ROOT_DIR fit: the folder of the run folders, by default runs." in text
    checkpoint = text.partition("--ckpt_path CKPT_PATH")[2].partition("--")[0]
    assert ("or last" in checkpoint) == (command == "fit") and "hpc" not in checkpoint


def test_run_folders_of_examples_are_those_that_fit_writes() -> None:
    """They end with the name of a data set, or with that of the folder of images that other examples read."""
    texts = [example for command in COMMANDS.values() for example in command.examples]
    ends = set(re.findall(r"runs/\w+-([a-z]\w*)", "\n".join([*texts, *PAGES])))
    assert {"cifar10", "my_images", "my_birds"} <= ends <= {*DATASETS, "fashion", "my_images", "my_birds"} - {"folder"}


def test_a_parser_without_a_command_has_no_examples() -> None:
    assert with_examples("python", "usage: python\n") == "usage: python\n"
    assert with_examples(None, "usage:\n") == "usage:\n"


@pytest.fixture(scope="module")
def bash_script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The script for bash, as the command prints it."""
    path = tmp_path_factory.mktemp("completion") / "cvcc-zoo"
    with pytest.MonkeyPatch.context() as patch:
        printed: list[str] = []
        patch.setattr("builtins.print", printed.append)
        assert completion(["bash"]) == 0
    path.write_text("\n".join(printed))
    return path


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize(
    ("typed", "offered", "not_offered"),
    [
        ("descr", {"describe"}, {"compare"}),
        ("fit --trainer.max_", {"--trainer.max_epochs", "--trainer.max_time"}, {"--trainer.min_epochs"}),
        ("fit --model resnet2", {"resnet20", "resnet20.cifar10"}, {"resnet32", "cnn"}),
        ("fit --model = resnet2", {"resnet20", "resnet20.cifar10"}, {"resnet32", "cnn"}),  # as bash splits words
        ("fit --data.dataset =", {"cifar10", "folder"}, {"resnet20"}),
        ("fit --model.card", {"--model.cardinality"}, {"--model.depth"}),
        ("fit --optimizer = A", {"Adam", "AdamW", "Adagrad"}, {"SGD"}),
        ("evaluate fcnn", {"fcnn.cifar10", "fcnn.fashion_mnist"}, {"fcnn"}),
        ("list --pre", {"--pretrained"}, {"--pattern"}),
        ("fit --config = cifar10/re", {"cifar10/resnet20"}, {"cifar100/resnet20", "cifar10/cnn"}),
        ("fit --config my", {"my.yaml"}, {"cifar10/resnet20"}),  # files, too
        ("fit -c cifar10/linear", {"cifar10/linear"}, {"my.yaml"}),
        ("recipes fast/", {"fast/cnn_fast"}, {"resnet20.cifar10", "my.yaml"}),
        ("completion ", {"bash", "zsh"}, {"fit"}),
    ],
)
def test_bash_completes(bash_script: Path, typed: str, offered: set[str], not_offered: set[str]) -> None:
    (bash_script.parent / "my.yaml").touch()
    words = typed.split(" ")
    quoted = " ".join(shlex.quote(word) for word in ["cvcc-zoo", *words])
    lines = f"source {bash_script}; COMP_WORDS=({quoted}); COMP_CWORD={len(words)}; _cvcc_zoo; echo ${{COMPREPLY[@]}}"
    done = subprocess.run(["bash", "-c", lines], capture_output=True, text=True, check=True, cwd=bash_script.parent)
    found = set(done.stdout.split())
    assert offered <= found
    assert not found & not_offered


@pytest.mark.skipif(shutil.which("zsh") is None, reason="needs zsh")
def test_the_script_for_zsh_is_zsh(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert completion(["zsh"]) == 0
    script = tmp_path / "_cvcc-zoo"
    script.write_text(capsys.readouterr().out)
    subprocess.run(["zsh", "-n", script], check=True)
    assert '"--model=[' in script.read_text()


def test_an_unknown_shell_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        completion(["fush"])
    assert stopped.value.code == 2
    assert "bash" in capsys.readouterr().err


def test_colours_are_for_terminals_only(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("list", ["resnet*"]) == 0
    assert "\x1b[" not in capsys.readouterr().out
