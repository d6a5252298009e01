"""`cvcc-zoo describe` and `cvcc-zoo compare` as a user types them."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from cvcc_zoo import ResNeXt
from cvcc_zoo.__main__ import main
from cvcc_zoo.inspection.subjects import find_subject, parse_name, split_options
from cvcc_zoo.plots import plot_depth
from cvcc_zoo.registry import find
from cvcc_zoo.weights.card import PUBLISHED, read_card
from tests.conftest import Fit, message


def rows(command: str, *words: str) -> list[dict[str, Any]]:
    """What a command writes as JSON, which must be what it writes as CSV."""
    assert main([command, *words, "--json=rows.json", "--csv=rows.csv"]) == 0
    found: list[dict[str, Any]] = json.loads(Path("rows.json").read_text())
    with Path("rows.csv").open(newline="") as file:
        texts = list(csv.DictReader(file))
    assert [list(row) for row in texts] == [list(row) for row in found]
    for row, text in zip(found, texts, strict=True):
        for key, value in row.items():
            expected = json.dumps(value) if isinstance(value, dict) else "" if value is None else str(value)
            assert text[key] == expected
    return found


def test_the_rows_of_a_table_end_with_the_counts_of_the_registry(capsys: pytest.CaptureFixture[str]) -> None:
    found = rows("describe", "resnet20", "cnn_small")
    totals = {row["model"]: row for row in found if row["layer"] == "total"}
    assert {name: row["parameters"] for name, row in totals.items()} == {
        name: find(name).parameters for name in ("resnet20", "cnn_small")
    }
    first = found[0]
    assert first == {
        "model": "resnet20", "layer": "conv1", "type": "Conv2d 3x3", "output": "16x32x32", "parameters": 432,
        "macs": 432 * 32 * 32, "field": 3, "stride": 1,
    }  # fmt: skip
    printed = capsys.readouterr().out
    assert "resnet20, freshly initialised, images 3x32x32" in printed and "272,474" in printed and "40.81 M" in printed


def test_a_model_has_the_same_layers_by_all_of_its_names(fit: Fit) -> None:
    fit("--model=ResNet", "--model.depth=8", "--run=run")
    names = ("run", "run/best.ckpt", "ResNet{depth: 8, image_size: 8, num_classes: 2}")
    tables = [[{**row, "model": ""} for row in rows("describe", name)] for name in names]
    assert tables[0] == tables[1] == tables[2]
    options = ("ResNet", "--model.depth=8", "--model.image_size=8", "--model.num_classes=2")
    assert [{**row, "model": ""} for row in rows("describe", *options)] == tables[0]
    published, fresh = (rows("describe", name) for name in ("resnet20.cifar10", "resnet20"))
    assert [row["macs"] for row in published] == [row["macs"] for row in fresh]


def test_statistics_of_several_models_are_drawn_together(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["plain20{image_size: 8}", "resnet20{image_size: 8}", "--model.init=orthogonal", "--images=8"]
    found = rows("describe", *words, "--statistics", "--output=depth.png")
    assert Path("depth.png").read_bytes()[1:4] == b"PNG"
    assert {row["model"] for row in found} == set(words[:2]) and len(found) == 2 * 11
    assert [row["block"] for row in found[:3]] == ["conv1", "layer1.0", "layer1.1"]
    assert all(0 <= row["zeros"] <= 1 and row["deviation"] > 0 and row["gradient"] > 0 for row in found)
    printed = capsys.readouterr().out
    assert "written to depth.png" in printed and "weight gradient" in printed
    again = rows("describe", *words, "--statistics")
    other = rows("describe", *words, "--statistics", "--seed=1")
    assert again == found and other != found
    zero = rows("describe", "resnet20{image_size: 8, init: zero_residual}", "--statistics", "--images=8")
    assert zero[1]["deviation"] == pytest.approx(zero[0]["deviation"])  # each block is its shortcut


def test_each_model_is_a_curve_in_each_panel() -> None:
    panels = {"variance": {"a": [1.0, 0.1], "b": [1.0, 2.0, 4.0]}, "gradient": {"a": [1.0, 0.0], "b": [3.0, 2.0, 1.0]}}
    figure = plot_depth(panels, "two")
    assert [axes.get_title() for axes in figure.axes] == ["variance", "gradient"]
    assert [list(line.get_xdata()) for line in figure.axes[0].lines] == [[1, 2], [1, 2, 3]]  # type: ignore[arg-type]
    assert all(axes.get_yscale() == "log" for axes in figure.axes)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a", "b"]
    figure.draw_without_rendering()
    assert {"0.1", "0.2", "0.5", "1", "2"} <= {text.get_text() for text in figure.axes[0].get_yticklabels()}
    assert not any(text.get_text() for text in figure.axes[0].get_yticklabels(minor=True))


def test_curves_over_many_decades_are_labelled_with_powers_of_ten() -> None:
    figure = plot_depth({"gradient": {"plain56": [10.0**-block for block in range(24)]}}, "many decades")
    figure.draw_without_rendering()
    labels = [text for text in figure.axes[0].get_yticklabels() if text.get_text()]
    assert {r"$\mathdefault{10^{-24}}$", r"$\mathdefault{10^{1}}$"} < {text.get_text() for text in labels}
    assert all(text.get_parse_math() and "{10^{" in text.get_text() for text in labels)
    figure = plot_depth({"variance": {"plain56": [1e-6, 2e-6, 3e-6]}}, "less than two decades")
    figure.draw_without_rendering()
    labels = [text for text in figure.axes[0].get_yticklabels() if text.get_text()]
    assert r"$\mathdefault{2\times10^{-6}}$" in {text.get_text() for text in labels}


FAST = ["--batch_size=2", "--repeats=1"]


def test_models_are_compared_and_sorted(capsys: pytest.CaptureFixture[str]) -> None:
    names = ["cnn_small", "linear", "resnet20.cifar10", "ResNet{depth: 20}"]
    found = rows("compare", *names, "--sort=MACs", *FAST)
    assert [row["model"] for row in found] == ["linear", "cnn_small", "resnet20.cifar10", "ResNet{depth: 20}"]
    assert found[2]["activation_bytes"] == found[3]["activation_bytes"]
    shares = {
        card.tested_on: card.measured["test_accuracy"] for card in map(read_card, PUBLISHED.glob("resnet20.*.json"))
    }
    assert found[3]["published"] == shares and found[1]["published"] == {}
    assert list(found[2]["published"]) == ["CIFAR-10"]
    assert all(row["images_per_second"] > 0 for row in found) and "training_images_per_second" not in found[0]
    printed = capsys.readouterr().out
    assert f"{100 * shares['Fashion-MNIST']:.2f} % on Fashion-MNIST" in printed
    trained = rows("compare", *names[:2], "--train", "--sort=training_speed", *FAST)
    assert [row["model"] for row in trained] == ["linear", "cnn_small"]
    best = rows("compare", *names, "--sort=accuracy", *FAST)
    assert best[0]["model"] == "ResNet{depth: 20}" and best[-1]["model"] == "cnn_small"


def test_models_of_timm_are_compared_at_their_own_size() -> None:
    (found,) = rows("compare", "timm/resnet18{num_classes: 10}", *FAST)
    assert found["parameters"] == 11_689_512 - 513 * 990 and found["macs"] == pytest.approx(1.81e9, rel=0.01)


def test_options_may_have_the_names_of_a_config() -> None:
    assert split_options(["--model.init_args.depth=26", "a"]) == ({"depth": 26}, ["a"])
    assert split_options(["--model.network_options.width=4"]) == ({"width": 4}, [])


def test_a_name_with_options_is_yaml() -> None:
    assert parse_name("ResNeXt{cardinality: 2, base_width: 40}") == ("ResNeXt", {"cardinality": 2, "base_width": 40})
    assert parse_name("runs/a model") == ("runs/a model", {})
    model = find_subject("resnext29_32x4d{cardinality: 2}", {"base_width": 40, "cardinality": 64}).model
    assert isinstance(model, ResNeXt) and model.hparams["cardinality"] == 2 and model.hparams["base_width"] == 40


def test_a_folder_does_not_hide_a_model_of_its_name() -> None:
    Path("resnet20").mkdir()
    assert not find_subject("resnet20", {}).trained


def test_your_own_family_is_named_by_its_import_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "import cvcc_zoo\n\nclass MineDescribed(cvcc_zoo.CNN):\n    pass\n"
    (tmp_path / "describe_mine.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    subject = find_subject("describe_mine.MineDescribed{convolutions: 1}", {})
    assert (
        type(subject.model).__name__ == "MineDescribed"
        and sum(isinstance(m, torch.nn.Conv2d) for m in subject.network.modules()) == 3
    )


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["describe"], "arguments are required: models"),
        (["describe", "resnet21"], "no model named 'resnet21'; did you mean resnet"),
        (["describe", "resnet20.cifar11"], "no published weight named 'resnet20.cifar11'; did you mean resnet20"),
        (["describe", "resnet20{depht: 8}"], "no option of ResNet named 'depht'; did you mean depth"),
        (["describe", "resnet20", "--model.depht=8"], "no option of ResNet named 'depht'; did you mean depth"),
        (["describe", "resnet20{depth: x}"], "depth must be a whole number, got 'x'"),
        (["describe", "resnet20{depth: 9}"], "a ResNet has depth 6n + 2"),
        (["describe", "resnet20{depth: 8"], "is not a name with options; write it like"),
        (["describe", "resnet20{depth}{8}"], "is not a name with options; write it like"),
        (["describe", "resnet20", "--model.init"], "--model.init has no value; write --model.init=VALUE"),
        (["describe", "resnet20", "--model.init={"], "is not valid YAML"),
        (["describe", "cnn{image_size: 8, channels: [8, 8, 8, 8]}"], "4 stages are too many for images of 8 pixels"),
        (["describe", "linear.cifar10", "--model.num_classes=3"], "leave num_classes out, or name a fresh model"),
        (["describe", "linear", "--output=a.png"], "add --statistics, or leave it out"),
        (["describe", "linear", "--statistics", "--output=a.pdf"], "a.pdf must end in .png"),
        (["describe", "linear", "--json=nowhere/a.json"], "the folder nowhere does not exist"),
        (["describe", "linear", "linear"], "linear is given twice"),
        (["describe", "runs/nothing"], "there is no checkpoint runs/nothing"),
        (["describe", "linear", "--statistics", "--data.dataset=cifar"], "no dataset named 'cifar'"),
        (["compare", "timm/resnet51"], "no model of timm named 'resnet51'; did you mean resnet5"),
        (["compare", "timm/resnet18{widht: 3}"], "timm cannot build resnet18 with"),
        (["compare", "linear", "--sort=sped"], "no order named 'sped'; did you mean speed"),
        (["compare", "linear", "--sort=training_speed"], "needs training steps; add --train"),
        (["compare", "linear", "--batch_size=0"], "batch_size and repeats must be at least 1"),
        (["compare", "linear", "--csv=a.json"], "a.json must end in .csv"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told(words: list[str], expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert expected in " ".join(message(capsys, words).split())
