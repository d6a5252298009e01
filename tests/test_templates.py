"""Templates are exact, margins say which images are right, and both are drawn as they are."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgba
from PIL import Image

from cvcc_zoo import ImageDataModule, create
from cvcc_zoo.__main__ import main
from cvcc_zoo.classifier import ImageClassifier
from cvcc_zoo.data.decorrelation import METHODS
from cvcc_zoo.linear.templates import templates
from cvcc_zoo.losses import crammer_singer
from cvcc_zoo.plots.scores import LONGEST, RIGHT, WRONG, Scored, plot_scores, plot_templates
from cvcc_zoo.runs.measure import measure
from cvcc_zoo.runs.scores import margins, scores
from tests.conftest import Fit, MakeFolder, message

IMAGES = torch.randint(0, 256, (400, 3, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
DECORRELATING = [{"name": name, "eps": 0.01} for name in METHODS]
SCOPED = [{"name": "zca", "eps": 0.01, "scope": scope} for scope in ("pixels_per_channel", "channel_values")]
PARTIAL = [{"name": "pca", "components": 20}, {"name": "zca"}]


def make(name: str = "linear", **options: Any) -> ImageClassifier:
    """A model with random weights for 4 classes of 3x8x8 images, everything in it fitted."""
    torch.manual_seed(0)
    model = create(name, num_classes=4, image_size=8, **options)
    model.whitening.fit(IMAGES)
    extract = getattr(model.network, "extract", None)
    if extract is not None:
        extract.fit(lambda: [model.whitening(IMAGES)])
    if name == "linear":
        for parameter in model.network.parameters():
            torch.nn.init.normal_(parameter, std=0.05)
    return model


def check_exact(model: ImageClassifier) -> None:
    """<T, p> and the scores of a black image are the scores of p."""
    found = templates(model)
    assert found.shape == (4, 3, 8, 8) and float(found.abs().amax((1, 2, 3)).min()) > 0
    with torch.no_grad():
        black, expected = model(torch.zeros(1, 3, 8, 8)), model(IMAGES)
    score = IMAGES.flatten(1) / 255 @ found.flatten(1).T + black
    torch.testing.assert_close(score, expected, atol=1e-4, rtol=1e-4)


def test_the_templates_of_runs_of_the_same_name_are_told_apart(fit: Fit, monkeypatch: pytest.MonkeyPatch) -> None:
    fit("--model=linear", "--run=a/run")
    shutil.copytree("a/run", "b/run")
    drawn: list[str] = []

    def draw(rows: list[tuple[str, Any]], classes: list[str]) -> Any:
        drawn.extend(name for name, _ in rows)
        return plot_templates(rows, classes)

    monkeypatch.setattr("cvcc_zoo.commands.templates.plot_templates", draw)
    assert main(["templates", "a/run", "b/run"]) == 0
    assert drawn == ["a/run", "b/run"]


@pytest.mark.parametrize("whitening", ["none", "standardize", *DECORRELATING, *SCOPED, *PARTIAL], ids=str)
def test_template_and_constant_make_the_score_with_every_whitening(whitening: Any) -> None:
    check_exact(make(whitening=whitening))


@pytest.mark.parametrize("features", [["Standardize"], [{"name": "PCA", "components": 20}, "Standardize"]], ids=str)
def test_template_and_constant_make_the_score_with_linear_features(features: Any) -> None:
    check_exact(make(features=features, whitening="none"))


def test_after_standardisation_they_are_the_weights_over_the_standard_deviations() -> None:
    model = make()
    weights = model.network.get_submodule("fc").get_parameter("weight").view(4, 3, 8, 8)
    torch.testing.assert_close(templates(model), weights.detach() / model.whitening.std[:, None, None])


def test_a_temperature_does_not_change_them() -> None:
    model = make()
    expected = templates(model)
    model.temperature = 2.0
    torch.testing.assert_close(templates(model), expected)


def test_templates_leave_no_gradients_and_the_mode_and_work_where_gradients_are_off() -> None:
    model = make().train()
    with torch.no_grad():
        found = templates(model)
    assert all(module.training for module in model.modules())
    assert not found.requires_grad and all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("linear", {"features": [{"name": "HOG", "cell": 2}], "whitening": "none"}),
        ("linear", {"features": [{"name": "Patches", "filters": 8, "size": 3}], "whitening": "none"}),
        ("linear", {"whitening": {"name": "zca", "eps": 0.1, "contrast": "pylearn2"}}),
        ("linear", {"whitening": {"name": "zca", "eps": 0.1, "contrast": "coates"}}),
        ("fcnn", {}),
        ("fcnn", {"activation": "tanh", "norm": "none"}),
        ("cnn_small", {}),
        ("resnet20", {}),
    ],
    ids=str,
)
def test_what_is_not_linear_has_none(name: str, options: Any) -> None:
    with pytest.raises(ValueError, match="is not linear in the pixels, so it has no templates"):
        templates(make(name, **options))


def test_a_model_that_has_seen_no_images_has_none_yet() -> None:
    with pytest.raises(ValueError, match="whitening has no statistics yet"):
        templates(create("linear"))


def test_the_margin_is_what_the_svm_of_crammer_and_singer_looks_at() -> None:
    logits, labels = torch.randn(50, 6), torch.arange(50) % 6
    expected = crammer_singer(logits, labels, margin=0.5, reduction="none")
    torch.testing.assert_close((0.5 - margins(logits, labels)).clamp(min=0), expected)


def test_images_with_a_margin_above_0_are_those_that_are_right() -> None:
    model, data = create("linear.fashion_mnist").train(), ImageDataModule()
    logits, labels = scores(model, data)
    assert logits.shape == (1000, 10)
    assert all(module.training for module in model.modules())  # as its user left it
    assert int((margins(logits, labels) > 0).sum()) == measure(model, data)["correct"]


def test_templates_of_a_model_share_a_scale_and_others_have_their_own() -> None:
    one = np.full((2, 4, 4, 1), 0.5)
    one[1] = -1
    axes = plot_templates([("a", one), ("b", 100 * one), ("c", np.zeros_like(one))], ["x", "$y^$"]).axes
    shown = [np.asarray(axis.images[0].get_array())[0, 0].tolist() for axis in axes]
    assert shown == [[0.75] * 3, [0.0] * 3, [0.75] * 3, [0.0] * 3, [0.5] * 3, [0.5] * 3]
    assert [axis.get_title() for axis in axes[:2]] == ["x", "$y^$"]
    assert [axes[place].get_ylabel() for place in (0, 2)] == ["a\n\u00b11", "b\n\u00b11e+02"]


def test_bars_are_the_scores_and_the_histogram_counts_every_image_on_its_side() -> None:
    values = np.array([0.5, -1.0, 2.0])
    some = [Scored(np.zeros((4, 4, 1)), values, 0, "wrong", None), Scored(np.zeros((4, 4, 3)), values, 2, "right", 1.0)]
    won = np.array([-1.0, -0.25, 0.0, 0.25, 3.0])
    image, first, _, second, histogram = plot_scores(some, won, ["a" * 300, "b", "c"], "$x^$").axes
    assert len(image.get_title()) <= LONGEST
    assert [bar.get_width() for bar in first.patches] == values.tolist()  # type: ignore[attr-defined]
    green, red = to_rgba(RIGHT), to_rgba(WRONG)
    assert [first.patches[0].get_facecolor(), first.patches[2].get_facecolor()] == [green, red]
    assert second.patches[2].get_facecolor() == green
    assert first.get_xlim() == second.get_xlim() and len(second.lines) == len(first.lines) + 1
    counts = {colour: 0.0 for colour in (green[:3], red[:3])}
    for bar in histogram.patches:
        counts[bar.get_facecolor()[:3]] += bar.get_height()  # type: ignore[attr-defined, index]
        right_of_0 = bar.get_x() > -1e-9  # type: ignore[attr-defined]
        assert bar.get_height() == 0 or right_of_0 or bar.get_facecolor()[:3] == red[:3]  # type: ignore[attr-defined]
    assert counts == {green[:3]: 2, red[:3]: 3}
    assert histogram.get_title() == "40.00 % of 5 test images are right"


def test_of_many_classes_the_best_and_the_right_one_are_drawn() -> None:
    values = np.linspace(1, -1, 100)
    some = [Scored(np.zeros((4, 4, 1)), values, label, "", None) for label in (99, 0)]
    names = [f"class {number}" for number in range(100)]
    _, low, _, high, _ = plot_scores(some, np.zeros(3), names, "").axes
    assert [text.get_text() for text in low.get_yticklabels()] == [*names[:9], names[99]]
    assert [text.get_text() for text in high.get_yticklabels()] == names[:10]


def test_the_commands_draw_a_run_and_published_weights(fit: Fit, colours: Path) -> None:
    assert fit("--model=linear", "--model.loss=hinge", "--run=run") == 0
    assert main(["templates", "run", "run/best.ckpt"]) == 0
    assert main(["scores", "run", "--images=3", "--output=some.png"]) == 0
    assert main(["scores", "linear.fashion_mnist"]) == 0
    for picture in ("templates.png", "some.png", "scores.png"):
        with Image.open(picture) as image:
            assert image.width > 300 and len(np.unique(np.asarray(image.convert("L")))) > 20
        Path(picture).unlink()
    assert not list(Path().glob("*.png"))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["templates", "linear.cifar"], "no published weight named 'linear.cifar'; did you mean linear.cifar10"),
        (["templates", "resnet20.cifar10"], "resnet20.cifar10: this ResNet is not linear in the pixels"),
        (["templates", "linear.cifar10", "linear.fashion_mnist"], "linear.fashion_mnist has other classes than linear"),
        (["templates", "linear.cifar10", "--output=a.jpg"], "a.jpg must end in .png"),
        (["templates", "linear.cifar10", "--output=away/a.png"], "the folder away does not exist"),
        (["scores", "linear.cifar10"], "the model's classes are not those of fashion-mini: 'T-shirt/top', 'Trouser'"),
        (["scores", "linear.fashion_mnist", "--data.image_size=32"], "have image_size=32; convert the images with"),
        (["scores", "linear.fashion_mnist", "--images=0"], "choose 1 to 1,000 of the test images"),
        (["scores", "linear.fashion_mnist", "--imagse=3"], "no option named 'imagse'; did you mean images"),
    ],
)
def test_wrong_input_is_answered_with_advice(
    arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert expected in message(capsys, arguments)
    assert not list(Path().glob("*.png"))


def test_images_of_other_classes_are_refused(
    fit: Fit, make_folder: MakeFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    fit("--model=linear", "--run=run")
    other = make_folder("other")
    for split in ("train", "test"):
        (other / split / "blue").rename(other / split / "yellow")
    capsys.readouterr()
    assert main(["scores", "run", "--data.dataset=folder", f"--data.root={other}"]) == 2
    assert (
        "the model's classes are not those of other: 'yellow' is unexpected and 'blue' is missing"
        in capsys.readouterr().err
    )


def test_scores_that_are_no_numbers_are_not_drawn(fit: Fit, colours: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fit("--model=linear", "--run=run")
    checkpoint = torch.load("run/best.ckpt", weights_only=True)
    checkpoint["state_dict"]["network.fc.bias"].fill_(torch.nan)
    torch.save(checkpoint, "run/broken.ckpt")
    data = ["--data.dataset=folder", f"--data.root={colours}"]
    assert main(["scores", "run/broken.ckpt", *data]) == 2
    assert "run gives scores that are not finite numbers" in capsys.readouterr().err


def test_the_probability_of_an_image_is_that_of_the_model_with_its_temperature(
    fit: Fit, colours: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit("--model=linear", "--run=run")
    checkpoint = torch.load("run/best.ckpt", weights_only=True)
    checkpoint["cvcc_zoo"]["temperature"] = 1e6
    torch.save(checkpoint, "run/hot.ckpt")
    notes: list[list[str]] = []

    def drawn(some: list[Scored], *more: Any) -> Any:
        notes.append([each.note for each in some])
        return plot_scores(some, *more)

    monkeypatch.setattr("cvcc_zoo.commands.scores.plot_scores", drawn)
    for name in ("best", "hot"):
        assert main(["scores", f"run/{name}.ckpt", "--data.dataset=folder", f"--data.root={colours}"]) == 0
    usual, hot = ([note.split(", p = ") for note in found] for found in notes)
    assert [scored for scored, _ in usual] == [scored for scored, _ in hot]
    assert {p for _, p in hot} == {"0.50"} != {p for _, p in usual}
