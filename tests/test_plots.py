from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from matplotlib.text import Text

from cvcc_zoo.data.datasets import CIFAR100_CLASSES
from cvcc_zoo.plots import plot_calibration, plot_confusion, plot_curves, plot_depth, plot_images, plot_search
from cvcc_zoo.plots.confusion import CIFAR100, Pair, groups_of, in_groups, most_confused, plot_many
from cvcc_zoo.plots.curves import cut_above, plot_range_test
from cvcc_zoo.plots.figure import Figure, short
from cvcc_zoo.plots.scores import Scored, plot_scores, plot_templates
from cvcc_zoo.plots.trials import LINEAR, LOGARITHMIC, Axis
from cvcc_zoo.runs.metrics_file import read_metrics
from cvcc_zoo.weights.card import list_cards, read_card
from tests.conftest import Fit

EVERY_IMAGE = ("--data.batch_size=1", "--data.validation=0")
LONG = r"{} a name of more than sixty letters with $x^2$, {{braces}} and \frac in it"


def mistaken(count: int) -> npt.NDArray[np.int64]:
    """Counts of `count` classes, a few of each taken for others."""
    counts = np.random.default_rng(0).poisson(0.4, (count, count)).astype(np.int64)
    np.fill_diagonal(counts, 70)
    return counts


def texts(figure: Figure) -> list[Text]:
    """All that is written in a figure."""
    return [text for text in figure.findobj(Text) if isinstance(text, Text) and text.get_text() and text.get_visible()]


def test_a_sparse_metrics_file_becomes_one_curve_for_each_column(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text(
        "epoch,step,lr-SGD,train/loss,val/loss\n,4,0.1,,\n0,9,,2.5,\n0,9,,,2.25\n,14,0.05,,\n1,19,,1.5,\n"
    )
    metrics = read_metrics(tmp_path / "metrics.csv")
    assert metrics == {
        "lr-SGD": ([4, 14], [0.1, 0.05]),
        "train/loss": ([9, 19], [2.5, 1.5]),
        "val/loss": ([9], [2.25]),
    }


def test_the_curves_show_every_stage_in_percent_where_it_is_accuracy() -> None:
    curve = ([0.0, 10.0], [0.25, 0.5])
    names = ("train/loss", "val/loss", "train/accuracy", "val/accuracy", "lr-SGD/decay", "lr-SGD/no_decay")
    metrics = {name: curve for name in names} | {"test/accuracy": ([10.0], [0.4321])}
    loss, accuracy, rate = plot_curves(metrics, "a run").axes
    assert [line.get_label() for line in loss.lines] == ["train", "val"]
    assert [line.get_label() for line in accuracy.lines] == ["train", "val", "test 43.21 %"]
    assert list(accuracy.lines[0].get_ydata()) == [25, 50]  # type: ignore[arg-type]
    assert [line.get_label() for line in rate.lines] == ["SGD"]  # both groups have the same rate


def test_the_confusion_matrix_shows_shares_of_the_true_class() -> None:
    counts = np.array([[3, 1], [0, 8]])
    axes = plot_confusion(counts, ["cat", "dog"], "pets").axes[0]
    assert {(text.get_position(), text.get_text()) for text in axes.texts} == {
        ((0, 0), "75"),
        ((1, 0), "25"),
        ((1, 1), "100"),
    }
    assert [label.get_text() for label in axes.get_yticklabels()] == ["cat", "dog"]


def test_a_hundred_classes_are_drawn_without_numbers(tmp_path: Path) -> None:
    figure = plot_confusion(np.eye(100, dtype=np.int64), [f"class {n}" for n in range(100)], "many")
    assert len(figure.axes[0].texts) == 0
    figure.savefig(tmp_path / "many.png")
    assert (tmp_path / "many.png").stat().st_size > 10_000


def test_the_superclasses_are_twenty_groups_of_five_that_together_are_all_classes() -> None:
    assert [len(members) for members in CIFAR100.values()] == [5] * 20
    assert read_card(list_cards()["resnet20.cifar100"]).classes == list(CIFAR100_CLASSES)
    assert CIFAR100["aquatic mammals"] == ("beaver", "dolphin", "otter", "seal", "whale")
    assert "mushroom" in CIFAR100["fruit and vegetables"] and "bear" in CIFAR100["large carnivores"]
    assert "train" in CIFAR100["vehicles 1"] and "rocket" in CIFAR100["vehicles 2"]


def test_groups_are_known_by_the_set_of_the_classes() -> None:
    assert groups_of(CIFAR100_CLASSES) == groups_of(CIFAR100_CLASSES[::-1]) == CIFAR100
    assert groups_of(CIFAR100_CLASSES[1:]) == groups_of([*CIFAR100_CLASSES, "unicorn"]) == {}
    assert groups_of([*CIFAR100_CLASSES[1:], "unicorn"]) == {}


def test_classes_in_groups_keep_their_counts_from_any_order() -> None:
    groups = {"pets": ("cat", "dog"), "birds": ("wren", "owl")}
    counts = np.arange(16).reshape(4, 4)
    classes = ["owl", "cat", "wren", "dog"]
    first, names = in_groups(counts, classes, groups)
    assert names == ["cat", "dog", "wren", "owl"]
    assert first[names.index("owl"), names.index("dog")] == counts[classes.index("owl"), classes.index("dog")]
    again, _ = in_groups(counts[::-1, ::-1], classes[::-1], groups)
    assert np.array_equal(first, again)
    assert in_groups(counts, classes, {})[1] == classes


def test_the_pairs_that_are_confused_most_come_first_and_equal_ones_in_order() -> None:
    counts = np.array([[6, 1, 3], [0, 9, 3], [5, 0, 0]])
    assert most_confused(counts, ["a", "b", "c"]) == [
        Pair("c", "a", 5, 1.0),
        Pair("a", "c", 3, 0.3),
        Pair("b", "c", 3, 0.25),
        Pair("a", "b", 1, 0.1),
    ]
    assert len(most_confused(mistaken(30), [str(number) for number in range(30)])) == 20


def test_nothing_is_listed_where_nothing_was_confused() -> None:
    for counts in (np.eye(25, dtype=np.int64), np.zeros((25, 25), dtype=np.int64)):
        classes = [f"class {number}" for number in range(25)]
        assert most_confused(counts, classes) == []
        assert not any("confused" in text.get_text() for text in texts(plot_confusion(counts, classes, "perfect")))


def test_cifar100_is_drawn_by_superclass_with_each_named_once_beside_its_rows() -> None:
    order = np.random.default_rng(1).permutation(100)
    classes = [CIFAR100_CLASSES[place] for place in order]
    axes = plot_confusion(mistaken(100), classes, "shuffled").axes[0]
    expected = [name for members in CIFAR100.values() for name in members]
    assert [label.get_text() for label in axes.get_yticklabels()] == expected
    assert [label.get_text() for label in axes.get_xticklabels()] == expected
    assert [" ".join(text.get_text().split()) for text in axes.texts] == list(CIFAR100)
    assert [text.xy[1] for text in axes.texts] == [5 * group + 2 for group in range(20)]  # type: ignore[attr-defined]
    assert len(axes.lines) == 2 * 19


def test_other_classes_keep_their_order_and_have_no_groups() -> None:
    classes = [f"class {number}" for number in range(49, -1, -1)]
    axes = plot_confusion(mistaken(50), classes, "fifty").axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == classes
    assert not axes.texts and not axes.lines


def test_groups_may_have_different_sizes() -> None:
    groups = {"few": tuple("ab"), "many": tuple("cdefghijklmnopqrstuvwxyz")}
    axes = plot_many(mistaken(26), list("zyxwvutsrqponmlkjihgfedcba"), groups, "letters").axes[0]
    assert [text.xy[1] for text in axes.texts] == [0.5, 13.5]  # type: ignore[attr-defined]
    assert {line.get_ydata()[0] for line in axes.lines[::2]} == {1.5}  # type: ignore[index]


def test_the_list_beside_many_classes_has_the_pairs_with_counts_and_shares() -> None:
    counts = 50 * np.eye(21, dtype=np.int64)
    counts[3, 7], counts[5, 2] = 25, 50
    written = [text.get_text() for text in texts(plot_confusion(counts, [f"c{n}" for n in range(21)], "list"))]
    start = written.index("most confused: true \u2192 predicted")
    assert written[start + 1 : start + 3] == ["c5 \u2192 c2", "c3 \u2192 c7"]
    assert written[start + 4 : start + 6] == ["50", "25"] and written[start + 7 : start + 9] == ["50 %", "33 %"]


def test_a_mistake_of_one_percent_can_be_seen_and_the_scale_says_how() -> None:
    figure = plot_confusion(mistaken(30), [f"class {n}" for n in range(30)], "thirty")
    (image,) = figure.axes[0].images
    nothing, rare, all_of_them = np.asarray(image.norm(np.array([0, 1, 100]))).tolist()
    assert nothing == 0 and 0.1 < rare < 0.25 and all_of_them == 1
    assert any("power 0.4" in text.get_text() for text in texts(figure))


@pytest.mark.parametrize("count", [2, 10, 21])
@pytest.mark.parametrize("name", [LONG, "{}" + 60 * "W", "{}\n\tline"])
def test_long_names_are_cut_and_leave_the_picture_whole(count: int, name: str, tmp_path: Path) -> None:
    figure = plot_confusion(mistaken(count), [name.format(number) for number in range(count)], "$x")
    figure.savefig(tmp_path / "long.png")
    matrix, whole = figure.axes[0].get_window_extent(), figure.bbox
    assert min(matrix.width, matrix.height) > 50
    for text in texts(figure):
        place = text.get_window_extent()
        assert min(place.x0, place.y0, whole.x1 - place.x1, whole.y1 - place.y1) > -3  # pixels
        assert not text.get_parse_math() or "$" not in text.get_text()


@pytest.mark.parametrize("count", [21, 100, 700])
def test_classes_are_named_as_far_as_there_is_room(count: int) -> None:
    axes = plot_confusion(np.eye(count, dtype=np.int64), [f"class {n}" for n in range(count)], "many").axes[0]
    labels = axes.get_yticklabels()
    assert len(labels) == (count if count < 343 else 234)
    room = axes.get_window_extent().height * 72 / axes.figure.dpi / len(labels)
    assert 3 < float(labels[0].get_fontsize()) < 0.9 * room


TITLE = "a run with a name of many words: test accuracy 98.12 %"
COUNTS, SURE = np.eye(2, dtype=np.int64), np.linspace(0, 1, 15)
SCORED = Scored(np.ones((4, 4, 3)), np.array([1.0, 2.0]), 0, "margin -1.00, loss 1.31, p = 0.27", None)
LONG_TITLES: dict[str, Callable[[], Figure]] = {  # narrow figures with titles or notes that do not fit on one line
    "confusion": lambda: plot_confusion(COUNTS, ["no", "yes"], TITLE),
    "of long names": lambda: plot_confusion(COUNTS, [LONG.format(number) for number in range(2)], TITLE),
    "calibration": lambda: plot_calibration(np.ones(15, dtype=np.int64), SURE, SURE, f"{TITLE} of 1,000 images"),
    "templates": lambda: plot_templates([("linear", np.ones((2, 4, 4, 3)))], ["no", "yes"]),
    "scores": lambda: plot_scores([SCORED] * 2, np.ones(3), ["no", LONG.format("yes")], ", ".join([TITLE] * 3)),
    "rates": lambda: plot_range_test([0.1, 1.0], [2.0, 1.0], [2.0, 1.0], None, f"{TITLE} of 1,000 images of the pets"),
}


@pytest.mark.parametrize("name", LONG_TITLES)
def test_a_long_title_is_wrapped_and_not_cut_off(name: str) -> None:
    figure = LONG_TITLES[name]()
    figure.set_dpi(120)
    figure.draw_without_rendering()
    for text in (each for each in texts(figure) if " " in each.get_text()):  # no ticks, which may be out of sight
        left, right = text.get_window_extent().intervalx
        assert left >= 0 and right <= figure.bbox.width, text


def test_the_name_of_a_folder_in_a_title_need_not_be_utf8() -> None:
    figure = plot_curves({}, title="run\udcff of the pets")
    figure.draw_without_rendering()
    assert any("run\\udcff" in text.get_text() for text in texts(figure))


def test_steps_and_blocks_are_whole_numbers() -> None:
    steps = {"train/loss": ([0.0, 1.0, 2.0], [3.0, 2.0, 1.0])}
    for figure in (plot_curves(steps, "a run"), plot_depth({"a": {"net": [1.0, 2.0]}, "b": {"net": [2.0]}}, "two")):
        figure.draw_without_rendering()
        labels = [label.get_text() for axes in figure.axes for label in axes.get_xticklabels()]
        assert {"0", "1"} & set(labels) and all(label.isdecimal() for label in labels if label)


def test_a_quantity_that_is_nowhere_above_zero_is_drawn_at_zero() -> None:
    (axes,) = plot_depth({"gradient": {"net": [0.0, 0.0, float("nan")]}}, "no gradient").axes
    assert axes.get_yscale() == "linear" and axes.get_ylim()[0] < 0 < axes.get_ylim()[1]


def test_white_pixels_of_a_sheet_differ_from_the_gaps() -> None:
    axes = Figure().subplots()
    plot_images(axes, np.ones((2, 3, 4, 4, 1)))
    sheet = np.asarray(axes.images[0].get_array())
    assert sheet.shape == (1 + 2 * 5, 1 + 3 * 5, 3) and (sheet == 1).all(axis=2).sum() == 2 * 3 * 4 * 4
    assert (sheet[::5] != 1).any(axis=2).all() and (sheet[:, ::5] != 1).any(axis=2).all()


def test_a_range_test_shows_the_fall_of_the_loss_and_not_how_high_it_rises() -> None:
    rates, losses = [0.1, 0.2, 0.3, 0.4], [2.3, 2.2, 2.1, 11.0]
    (axes,) = plot_range_test(rates, losses, losses, 0.2, "net").axes
    assert axes.get_ylim() == pytest.approx((2.08, 2.4))
    (axes,) = plot_range_test(rates, sorted(losses), sorted(losses), None, "net").axes  # it never falls
    assert axes.get_ylim()[1] > 11


def test_the_numbers_below_scores_do_not_touch() -> None:
    some = [Scored(np.ones((4, 4, 1)), np.linspace(-0.00075, 0.0001, 10), 0, "", None)] * 6
    figure = plot_scores(some, np.ones(3), [f"Ankle boot {number}" for number in range(10)], "six")
    figure.draw_without_rendering()
    ticks = [text.get_window_extent().intervalx for text in figure.axes[1].get_xticklabels()]
    assert len(ticks) > 2 and all(left[1] < right[0] for left, right in pairwise(ticks))


def test_the_margin_of_a_single_image_can_be_seen() -> None:
    figure = plot_scores([Scored(np.ones((4, 4, 1)), np.ones(2), 0, "", None)], np.array([0.5]), ["no", "yes"], "one")
    figure.draw_without_rendering()
    (bar,) = [patch for patch in figure.axes[-1].patches if patch.get_window_extent().height]
    assert bar.get_window_extent().width > 0.01 * figure.axes[-1].bbox.width


def test_a_cut_name_keeps_its_beginning_and_its_end() -> None:
    assert short("aquarium_fish", 13) == "aquarium_fish"
    assert short("aquarium_fish", 12) == "aquariu\u2026fish"
    assert len(short(60 * "W", 24)) == 24 and short("two\nlines", 24) == "two lines"


def test_rates_of_groups_and_watched_lengths_are_drawn_where_they_are() -> None:
    curve, other = ([0.0, 10.0], [0.25, 0.5]), ([0.0, 10.0], [0.1, 0.2])
    metrics = {"lr-Muon/muon": curve, "lr-Muon/decay": other, "lr-Muon/no_decay": other}
    metrics |= {"train/grad_norm": curve, "train/update_ratio": other}
    *_, rate, length = plot_curves(metrics, "a run").axes
    assert [line.get_label() for line in rate.lines] == ["Muon/muon", "Muon/decay"]
    assert [line.get_label() for line in length.lines] == ["gradient", "update / parameters"]


def test_a_spike_of_the_loss_does_not_flatten_the_other_values_and_is_told() -> None:
    usual = [2.3 * 0.9**step for step in range(20)]
    spiked = [*usual[:10], 900.0, *usual[10:]]
    assert cut_above([usual]) is cut_above([]) is cut_above([[0.0, 0.0]]) is None
    cut = cut_above([usual, spiked, [float("nan")]])
    assert cut is not None and cut[1] == 900 and max(usual) < cut[0] < 20
    curve = ([float(step) for step in range(21)], spiked)
    loss = plot_curves({"train/loss": curve, "train/batch_loss": curve}, "a run").axes[0]
    assert loss.get_ylim() == (0, cut[0]) and "the largest is 900" in loss.texts[0].get_text()


def test_a_loss_that_is_not_drawn_does_not_decide_where_the_axis_is_cut() -> None:
    steps, usual = [float(step) for step in range(20)], [2.3 * 0.9**step for step in range(20)]
    spiked, high = [*usual[:-1], 90.0], [200.0] * 20
    for drawn, other, cut in ((usual, [*usual[:-1], 900.0], False), (spiked, high, True)):
        metrics = {"train/loss": (steps, drawn), "val/log_loss": (steps, other), "test/log_loss": (steps, other)}
        loss = plot_curves({**metrics, "test/loss": ([19.0], [1.0])}, "a run").axes[0]
        assert [text.get_text().endswith("the largest is 90") for text in loss.texts] == [True] * cut


def test_a_panel_without_curves_says_so() -> None:
    loss, accuracy, rate = plot_curves({"train/batch_loss": ([1.0], [2.0])}, "a run").axes
    assert not loss.texts and [line.get_marker() for line in loss.lines] == ["."]
    assert [axes.texts[0].get_text() for axes in (accuracy, rate)] == 2 * ["nothing was recorded"]


@pytest.mark.parametrize(
    "limit", ["limit_train_batches=2", "limit_train_batches=0.06", "max_steps=2", "overfit_batches=2"]
)
def test_a_training_of_two_batches_has_a_curve_of_its_learning_rate(limit: str, fit: Fit) -> None:
    assert fit("--model=linear", f"--trainer.{limit}", "--run=run", "--test=false", *EVERY_IMAGE) == 0
    *_, rate = plot_curves(read_metrics(Path("run/metrics.csv")), "a run").axes
    assert [len(np.asarray(line.get_xdata())) for line in rate.lines] == [2]
    assert rate.lines[0].get_marker() == "."  # a line of one value would not be seen


def test_a_search_is_drawn_with_a_place_for_each_value_of_a_list_and_numbers_that_do_not_overlap() -> None:
    values: dict[str, list[float]] = {
        "list": [0, 2, 1], "rate": [1e-4, 0.1, 0.01], "share": [0.011, 0.0123, 0.0137], "epochs": [2, 4, 9]
    }  # fmt: skip
    axes: dict[str, Axis] = {"list": ["64", "128", "2048"], "rate": LOGARITHMIC, "share": LINEAR, "epochs": LINEAR}
    axes["one"] = LOGARITHMIC
    figure = plot_search({**values, "one": [0.1, 0.1, 0.1]}, axes, [61.0, 62.0, 70.0], "val/accuracy (%)")
    figure.savefig("search.png")
    panels = {panel.get_xlabel(): panel for panel in figure.axes if panel.axison}
    assert list(panels) == [*values, "one"]
    named = panels["list"].get_xticklabels()
    assert [(label.get_text(), label.get_position()[0]) for label in named] == [("64", 0), ("128", 1), ("2048", 2)]
    for panel in panels.values():
        low, high = panel.get_xlim()
        shown = [label for label in panel.get_xticklabels(which="both") if label.get_text()]
        inside = [label for label in shown if low <= label.get_position()[0] <= high]
        places = sorted(label.get_window_extent().intervalx.tolist() for label in inside)
        assert places and all(one[1] + 2 < other[0] for one, other in pairwise(places))
    assert all(label.get_text().isdecimal() for label in panels["epochs"].get_xticklabels())


def test_long_values_of_a_list_are_turned_and_cut() -> None:
    names = ["cross_entropy", "crammer_singer", "squared_error", "x" * 60]
    panel = plot_search({"loss": [0, 1, 2, 3]}, {"loss": names}, [1.0, 2.0, 3.0, 4.0], "val/loss").axes[0]
    labels = panel.get_xticklabels()
    assert {label.get_rotation() for label in labels} == {35} and len(labels[-1].get_text()) == 20
