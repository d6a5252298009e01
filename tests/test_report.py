"""The report says of runs what their summaries say, on one page that needs no network."""

import csv
import html
import json
import math
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from scipy.stats import ttest_ind

from cvcc_zoo.__main__ import main
from cvcc_zoo.classifier.quality import bins_of, plain_quality, quality_of
from cvcc_zoo.data.datasets import CIFAR100_CLASSES
from cvcc_zoo.plots import plot_curves
from cvcc_zoo.plots.confusion import CIFAR100
from cvcc_zoo.report import figures, read_run
from cvcc_zoo.report.comparison import matrices, mcnemar, only, pairs
from cvcc_zoo.report.page import STYLE, leaderboard, page, picture
from cvcc_zoo.report.reports import Mistake, Results, RunReport, differences
from cvcc_zoo.report.seeds import SEED, recipes, tables
from tests.conftest import QUICK, SMALL, Fit, MakeFolder, on, write_folder, write_images

pytest.importorskip("plotly")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with images, and two finished runs: a linear classifier, and a small network with another rate."""
    folder = tmp_path_factory.mktemp("finished")
    data = on(write_folder(folder / "colours"))
    for more in (["--model=linear", "--run=runs/first"], [*SMALL, "--optimizer.lr=0.01", "--run=runs/second"]):
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            assert main(["fit", *data, *more]) == 0
    return folder


@pytest.fixture
def runs(finished: Path, tmp_path: Path) -> list[Path]:
    """Copies of the two runs and of their images in the folder of a test."""
    for name in ("runs", "colours"):
        shutil.copytree(finished / name, name)
    found = [Path("runs/first"), Path("runs/second")]
    for run in found:
        config = (run / "config.yaml").read_text()
        assert str(finished) in config
        (run / "config.yaml").write_text(config.replace(str(finished), str(tmp_path)))
    return found


def figures_of(content: str) -> dict[str, Any]:
    """The figures of a page by their places."""
    text = re.search(r"<script>const figures = \{(.*?)\};\n", content, flags=re.DOTALL)
    assert text
    found: dict[str, Any] = json.loads("{" + re.sub(r"(^|,)(figure\d+): ", r'\1"\2": ', text[1]) + "}")
    return found


def test_the_page_has_the_numbers_of_the_summaries(runs: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", *map(str, runs), "--output=page.html", "--title=Two <runs>"]) == 0
    assert "written to page.html" in capsys.readouterr().out
    content = Path("page.html").read_text()
    assert "<title>Two &lt;runs&gt;</title>" in content and "Two <runs>" not in content
    for run in runs:
        summary = json.loads((run / "summary.json").read_text())
        assert f">{100 * summary['test_accuracy']:.2f} %\n" in content and f">{summary['parameters']:,}</td>" in content
    kinds = [trace["type"] for figure in figures_of(content).values() for trace in figure["data"]]
    assert kinds.count("heatmap") == 4 and kinds.count("bar") == 2


def test_validation_images_that_were_perhaps_training_images_are_told_below_the_leaderboard(runs: list[Path]) -> None:
    reports = [read_run(run) for run in runs]
    assert "*" not in leaderboard(reports)
    reports[1].summary["divided_anew"] = True
    after = leaderboard(reports)
    assert after.count(" %*") == 1 and "* Some validation images may have been known" in after


def test_the_page_loads_nothing(runs: list[Path]) -> None:
    content = page([read_run(run) for run in runs], "Runs")
    own = re.sub(r"<script>.*?</script>", "", content, flags=re.DOTALL)
    assert not re.findall(r'(?:src|href)="(?!data:)', own) and "@import" not in own


def test_a_run_is_judged_by_the_images_that_it_was_tested_on(runs: list[Path]) -> None:
    run = read_run(runs[0])
    assert run.results is not None and run.results.classes == ["blue", "red"]
    assert run.results.confusion.sum() == 12
    assert run.results.right.mean() == pytest.approx(run.summary["test_accuracy"])
    assert len(run.results.worst) == min(24, int((~run.results.right).sum()))


def judged_page(counts: npt.NDArray[np.int64], classes: list[str]) -> tuple[str, dict[str, Any]]:
    """The page of a run with a confusion matrix, without its scripts, and the figure of the matrix."""
    count = int(counts.sum())
    right = np.arange(count) < counts.trace()
    summary: dict[str, Any] = dict.fromkeys(
        ("val_accuracy", "test_loss", "parameters", "macs", "epochs", "train_seconds", "seed"), 1
    )
    summary |= {
        "model": "linear",
        "dataset": "folder",
        "known_as": None,
        "test_accuracy": right.mean(),
        "images_per_second": 1,
        "steps": 1,
        "images": {"train": 1, "test": count},
        "data": {},
    }
    labels = torch.arange(len(classes)).repeat_interleave(torch.from_numpy(counts.sum(1)))
    quality = quality_of(torch.nn.functional.one_hot(labels).double(), labels)
    digests = np.array([str(number).encode() for number in range(count)])
    results = Results(classes, counts, bins_of(quality), right, plain_quality(quality, classes), digests, [])
    content = page([RunReport("run", summary, {}, {}, results, "")], "Run")
    (matrix,) = [figure for figure in figures_of(content).values() if figure["data"][0]["type"] == "heatmap"]
    return re.sub(r"<script>.*?</script>", "", content, flags=re.DOTALL), matrix


def test_the_matrix_of_cifar100_is_in_its_superclasses() -> None:
    counts = 70 * np.eye(100, dtype=np.int64)
    counts[CIFAR100_CLASSES.index("otter"), CIFAR100_CLASSES.index("tank")] = 30
    order = np.random.default_rng(0).permutation(100)
    shuffled = [CIFAR100_CLASSES[place] for place in order]
    content, matrix = judged_page(counts[np.ix_(order, order)], shuffled)
    heatmap, _ = matrix["data"]
    names = [name for members in CIFAR100.values() for name in members]
    assert heatmap["x"] == heatmap["y"] == names
    assert heatmap["customdata"][names.index("otter")][names.index("tank")] == 30
    assert not any(trace["text"] for trace in matrix["data"])  # there is no room for it
    assert [note["text"].replace("<br>", " ") for note in matrix["layout"]["annotations"]] == list(CIFAR100)
    assert len(matrix["layout"]["shapes"]) == 2 * 19
    (row,) = re.findall(r"<tr>((?:<td[^>]*>[^<]*</td>){4})</tr>", content)
    assert re.findall(r">([^<]+)<", row) == ["otter", "tank", "30", "30 %"]


def test_names_of_classes_are_no_markup_in_figures() -> None:
    names = ["<b>cat</b>", "<i>dog & " + 80 * "x"]
    _, matrix = judged_page(np.array([[6, 2], [0, 8]]), names)
    (heatmap, _), axis = matrix["data"], matrix["layout"]["xaxis"]
    assert [html.unescape(name) for name in heatmap["x"]] == names and "<" not in "".join(heatmap["y"])
    ((name, cut),) = axis["labelalias"].items()
    assert name == heatmap["x"][1] and cut.startswith("&lt;i&gt;dog &amp; x")


def test_runs_of_the_same_name_in_two_folders_are_told_apart(
    runs: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("other/first", "begun/first"):
        shutil.copytree(runs[0], name)
    Path("begun/first/summary.json").unlink()
    assert main(["report", "runs/first", "other/first", "begun/first", "runs/second", "--images=none"]) == 0
    content = Path("report.html").read_text()
    assert all(f"<h2>{name}</h2>" in content for name in ("runs/first", "other/first", "second"))
    assert "Not finished, and left out: begun/first." in capsys.readouterr().out


def test_what_is_right_is_blue_and_mistakes_are_orange_and_the_title_says_so() -> None:
    _, matrix = judged_page(np.array([[6, 2], [0, 8]]), ["cat", "dog"])
    mistakes, right = matrix["data"]
    assert mistakes["z"] == [[None, 2.0], [0.0, None]] and right["z"] == [[0.75, None], [None, 1.0]]
    assert mistakes["text"] == [["", "2"], ["", ""]] and right["text"] == [["6", ""], ["", "8"]]
    assert "blue: right; orange: mistakes" in matrix["layout"]["title"]["subtitle"]["text"]
    assert not matrix["layout"]["xaxis"]["showgrid"] and not matrix["layout"]["yaxis"]["showgrid"]


def run_report(name: str, curves: dict[str, Any] | None = None, **summary: Any) -> RunReport:
    """A run with a few numbers."""
    return RunReport(name, {"steps": 20, "epochs": 20, "test_accuracy": 0.5, **summary}, curves or {}, {}, None, "")


def test_a_spike_of_one_run_does_not_flatten_the_losses_of_all() -> None:
    losses = [2.0 - 0.05 * step for step in range(20)]
    spiked = [*losses[:10], 900.0, *losses[11:]]
    runs = [run_report(str(each[10]), {"val/loss": (list(range(20)), each)}) for each in (losses, spiked)]
    figure = json.loads(figures.learning_curves(runs, "loss") or "")
    low, high = figure["layout"]["yaxis"]["range"]
    assert low == 0 and high == pytest.approx(2.2)
    assert "cut at 2.2: the largest is 900" in figure["layout"]["title"]["subtitle"]["text"]
    assert figure["data"][1]["y"][10] == 900  # the values are as they were
    plain = json.loads(figures.learning_curves(runs[:1], "loss") or "")
    assert "range" not in plain["layout"]["yaxis"]


def test_runs_with_long_names_can_be_told_apart_in_legends_and_under_the_mouse() -> None:
    name = "resnext29_32x4d-a_data_set_with_a_long_name-{}"
    runs = [run_report(name.format(seed), {"val/loss": ([0], [1.0])}, parameters=10) for seed in (1, 2)]
    for text in (figures.learning_curves(runs, "loss"), figures.sizes(runs, "parameters", "parameters")):
        figure = json.loads(text or "")
        names = [trace["name"] for trace in figure["data"]]
        assert [each[-1] for each in names] == ["1", "2"] and max(map(len, names)) <= 36
        assert figure["layout"]["hoverlabel"]["namelength"] == -1


def test_a_run_has_a_line_for_each_of_its_learning_rates_which_the_mouse_names() -> None:
    rates = {"decay": 0.001, "muon": 0.02, "no_decay": 0.001}
    muon = run_report("Muon", {f"lr-Muon/{group}": ([0, 1], [rate, rate]) for group, rate in rates.items()})
    sgd = run_report("SGD", {"lr-SGD": ([0, 1], [0.1, 0.1])})
    figure = json.loads(figures.learning_curves([muon, sgd], "lr") or "")
    lines = [(line["y"][0], line["hovertemplate"].split("} ")[-1], line["showlegend"]) for line in figure["data"]]
    assert lines == [(0.001, "Muon/decay", False), (0.02, "Muon/muon", True), (0.1, "", True)]
    assert "parameter groups, named under the mouse" in figure["layout"]["title"]["subtitle"]["text"]
    assert "under the mouse" not in (figures.learning_curves([sgd], "lr") or "")


def test_momentum_and_weight_decay_are_no_learning_rates() -> None:
    logged = {"lr-Adam": 0.1, "lr-Adam-momentum": 0.9, "lr-Adam-1": 0.2, "lr-Adam-1/group-weight_decay": 0.01}
    run = run_report("run", {name: ([0, 1], [value, value]) for name, value in logged.items()})
    figure = json.loads(figures.learning_curves([run], "lr") or "")
    assert [line["hovertemplate"].split("} ")[-1] for line in figure["data"]] == ["Adam", "Adam-1"]
    assert [line.get_label() for line in plot_curves(run.curves, "run").axes[2].lines] == ["Adam", "Adam-1"]


def test_a_few_epochs_are_labelled_one_by_one() -> None:
    for count, tick in ((3, 1), (20, None)):
        run = run_report("run", {"val/loss": (list(range(count)), [1.0] * count)}, epochs=20, steps=20)
        axis = json.loads(figures.learning_curves([run], "loss") or "")["layout"]["xaxis"]
        assert axis.get("dtick") == tick


def test_epochs_are_as_long_as_the_first_one_if_the_last_was_not_finished() -> None:
    rate = ([9.0, 99.0, 149.0], [1.0, 0.5, 0.1])
    ended = run_report("run", {"train/loss": ([99.0, 149.0], [2.0, 1.0]), "lr-SGD": rate}, epochs=2, steps=150)
    within = run_report("run", {"train/loss": ([49.0], [2.0]), "lr-SGD": ([9.0, 49.0], [1.0, 0.5])}, epochs=1, steps=50)
    for run, epochs in ((ended, [0.1, 1, 1.5]), (within, [0.2, 1])):
        for quantity, expected in (("lr", epochs), ("loss", epochs[1:])):
            figure = json.loads(figures.learning_curves([run], quantity) or "")
            assert figure["data"][0]["x"] == expected


def test_the_first_epoch_of_a_run_that_ends_within_the_second_ends_at_one(fit: Fit) -> None:
    length = ["--trainer.max_epochs=-1", "--trainer.max_steps=13", "--data.batch_size=4"]
    assert fit("--model=linear", "--run=run", *length) == 0
    run = read_run(Path("run"))
    assert (run.summary["steps"], run.summary["images"]["train"]) == (13, 36)
    figure = json.loads(figures.learning_curves([run], "loss") or "")
    assert figure["data"][0]["x"] == [1, round(13 / 9, 3)]


def test_a_run_that_was_resumed_in_another_folder_ends_with_its_last_epoch() -> None:
    """Its curves begin with the fourth of five epochs, or with the second of two."""
    for ends, epochs in (([35.0, 44.0], 5), ([17.0], 2)):
        run = run_report("run", {"train/loss": (ends, [1.0] * len(ends))}, epochs=epochs, steps=9 * epochs)
        figure = json.loads(figures.learning_curves([run], "loss") or "")
        assert figure["data"][0]["x"] == [(step + 1) / 9 for step in ends]


def test_names_without_spaces_do_not_leave_the_place_below_their_image() -> None:
    assert re.search(r"^figure \{[^}]*overflow-wrap: anywhere;", STYLE.read_text(), flags=re.MULTILINE)


def test_a_circle_at_the_edge_of_the_calibration_is_whole() -> None:
    right, names = np.ones(2, dtype=bool), ["no", "yes"]
    quality = quality_of(100 * torch.eye(2), torch.arange(2))
    results = Results(names, np.eye(2), bins_of(quality), right, plain_quality(quality, names), np.arange(2), [])
    trace = json.loads(figures.calibration(results))["data"][-1]
    assert trace["x"] == trace["y"] == [1.0]
    assert trace["cliponaxis"] is False


@pytest.mark.parametrize(
    ("values", "ticks"),
    [
        ([7_850, 298_410], ["5k", "10k", "20k", "50k", "100k", "200k"]),
        ([30_730, 30_730], ["20k"]),
        ([0.8e6, 3.2e9], ["1M", "10M", "100M", "1G"]),
        ([1, 3], ["1", "2"]),
    ],
)
def test_an_axis_of_sizes_has_a_few_round_numbers(values: list[float], ticks: list[str]) -> None:
    axis = figures.logarithmic(values)
    assert axis["ticktext"] == ticks
    low, high = axis["range"]
    assert all(low < np.log10(value) < high for value in values)


def results_of(run: Path, images: str = "public") -> Results:
    """What a run makes of its test images."""
    results = read_run(run, images).results
    assert results is not None
    return results


@pytest.fixture
def mistaken(make_folder: MakeFolder) -> Path:
    """A run on images of two classes that cannot be told apart."""
    data = ["--data.dataset=folder", f"--data.root={make_folder('noise', classes=('left', 'right'))}"]
    assert main(["fit", "--model=linear", *data, *QUICK, "--run=runs/mistaken"]) == 0
    assert len(results_of(Path("runs/mistaken")).worst) > 1
    return Path("runs/mistaken")


def test_the_page_has_no_image_of_the_users_own_unless_they_ask_for_it(mistaken: Path) -> None:
    worst = results_of(mistaken).worst
    sure = [mistake.probability for mistake in worst]
    assert sure == sorted(sure, reverse=True)
    for images, count in ((["--images=all"], len(worst)), (["--images=none"], 0), ([], 0)):
        assert main(["report", str(mistaken), *images, "--output=page.html"]) == 0
        assert Path("page.html").read_text().count('<img src="data:image/png') == count
    content = Path("page.html").read_text()
    assert "--images=all" in content and all(mistake.where in content for mistake in worst)
    assert Path("noise", worst[0].where).is_file()


def test_the_name_of_a_picture_is_printed_below_it() -> None:
    mistake = Mistake(np.zeros((8, 8)), "test/left/<b>.png", "left", "right", 0.9)
    assert "<small>test/left/&lt;b&gt;.png</small></figcaption>" in picture(mistake)


def test_names_that_are_no_text_in_utf8_are_in_the_page_with_escapes(mistaken: Path) -> None:
    for path in sorted(Path("noise/test").rglob("*.png")):
        path.rename(path.with_name(os.fsdecode(b"caf\xe9-" + path.name.encode())))
    other = shutil.copytree(mistaken, os.fsdecode(b"runs/l\xf6we"))
    assert main(["report", str(mistaken), other, "--output=page.html"]) == 0
    content = Path("page.html").read_text()
    assert r"caf\udce9-00" in content and r"l\udcf6we" in content


def test_images_that_anybody_can_download_are_shown() -> None:
    more = ["--data.batch_size=256", "--trainer.limit_train_batches=2", "--run=runs/clothes"]
    assert main(["fit", "--model=linear", *QUICK, *more]) == 0
    worst = results_of(Path("runs/clothes")).worst
    assert len(worst) == 24 and all(mistake.image is not None for mistake in worst)
    assert all(mistake.image is None for mistake in results_of(Path("runs/clothes"), "none").worst)
    assert worst[0].where.startswith("test image ")
    sure = [mistake.probability for mistake in worst]
    assert sure == sorted(sure, reverse=True)


@pytest.mark.parametrize(("first", "second"), [(0, 0), (3, 12), (12, 12), (1, 24), (59, 121), (40, 40)])
def test_mcnemars_test_is_that_of_a_fair_coin(first: int, second: int) -> None:
    images = first + second
    tail = sum(math.comb(images, count) for count in range(min(first, second) + 1)) / 2**images
    assert mcnemar(first, second) == mcnemar(second, first) == pytest.approx(min(1, 2 * tail))


def test_runs_are_compared_image_by_image_if_they_have_the_same_ones(runs: list[Path]) -> None:
    first, second = (read_run(run) for run in runs)
    assert first.results is not None and second.results is not None
    order = np.random.default_rng(0).permutation(12)
    rights = (np.arange(12) < 9, np.arange(12) >= 2)
    one = replace(first, results=replace(first.results, right=rights[0]))
    digests = second.results.digests[order]
    other = replace(second, results=replace(second.results, right=rights[1][order], digests=digests))
    assert one.results and other.results and only(one.results, other.results) == (2, 3)
    cells = re.findall(r"<td[^>]*>([^<]*)</td>", matrices([one, other]))
    assert cells == ["first", "-", "p = 1.000; 2 / 3", "second", "p = 1.000; 3 / 2", "-"]
    elsewhere = replace(other, name="third", results=replace(other.results, digests=digests[::-1].copy()[:11]))
    content = matrices([one, other, elsewhere, replace(other, name="<fourth>", results=None)])
    assert "no other run has the same test images: third." in content
    assert "have no results here: &lt;fourth&gt;." in content and "Comparison" not in page([one], "Run")


def seeds_of(run: RunReport, name: str, *accuracies: float, **options: str) -> list[RunReport]:
    """Runs that differ from a run in some options, and from each other in their seeds."""
    changed = [run.options | options | {SEED: str(seed)} for seed in range(len(accuracies))]
    return [
        replace(run, name=f"{name}{seed}", summary=run.summary | {"test_accuracy": accuracy}, options=changed[seed])
        for seed, accuracy in enumerate(accuracies)
    ]


def test_runs_that_differ_in_their_seeds_alone_have_a_mean_and_recipes_an_interval_between_them(
    runs: list[Path],
) -> None:
    run = read_run(runs[0])
    mine, theirs = seeds_of(run, "a", 0.9, 0.91, 0.95), seeds_of(run, "b", 0.85, 0.88, **{"optimizer.lr": "0.5"})
    one = seeds_of(run, "c", 0.7, **{"optimizer.lr": "0.6"})
    other_images = [replace(each, summary=each.summary | {"data": {}}) for each in one]
    found = tables([*mine, *theirs, *one, *other_images, replace(mine[0], name="again")])
    cells = re.findall(r"<td[^>]*>([^<]*)</td>", found)
    assert cells[:3] == ["a0 and 2 more", "3", "92.00 ± 2.65 %"] and cells[5:8] == [
        "b0 and 1 more",
        "2",
        "86.50 ± 2.12 %",
    ]
    low, high = ttest_ind([90, 91, 95], [85, 88], equal_var=False).confidence_interval()
    assert cells[3:5] == ["-", f"+5.50 ({low:+.2f} to {high:+.2f})"] and cells[8].startswith("-5.50 (")
    constant = seeds_of(run, "d", 0.5, 0.5, **{"optimizer.lr": "0.7"})
    assert "+42.00 (+35.43 to +48.57)" in tables([*mine, *constant])
    assert recipes([*mine[:1], *one]) == {} and tables(one) == ""
    assert "±" in page([*mine, *theirs], "Seeds") and ">Seeds<" not in page(mine[:1], "One")


def test_a_run_that_was_resumed_with_other_options_is_no_seed_of_a_recipe(runs: list[Path]) -> None:
    mine, file = seeds_of(read_run(runs[0]), "a", 0.9, 0.91), runs[0] / "summary.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"changed": "optimizer.lr was 0.1 and is 0.01"}))
    resumed = seeds_of(read_run(runs[0]), "b", 0.5, 0.6)
    assert recipes([mine[0], resumed[1]]) == recipes(resumed) == {} and recipes(mine)
    assert "optimizer.lr was 0.1 and is 0.01" in page([mine[0], resumed[1]], "Seeds")


def test_a_csv_file_has_the_differences_of_the_page(runs: list[Path]) -> None:
    assert main(["report", *map(str, runs), "--csv=differences.csv"]) == 0
    (row,) = csv.DictReader(Path("differences.csv").read_text().splitlines())
    first, second = (read_run(run) for run in runs)
    assert first.results and second.results and (row["first"], row["second"]) == ("first", "second")
    alone = only(first.results, second.results)
    assert (int(row["first alone"]), int(row["second alone"])) == alone and float(row["p"]) == mcnemar(*alone)
    assert float(row["points"]) == pytest.approx(100 * (alone[0] - alone[1]) / 12)
    recipes_of_seeds = [*seeds_of(first, "a", 0.9, 0.91, 0.95), *seeds_of(first, "b", 0.85, 0.88, lr="0.5")]
    welch = next(row for row in pairs(recipes_of_seeds) if row[0] == "Welch")
    interval = ttest_ind([90, 91, 95], [85, 88], equal_var=False).confidence_interval()
    assert welch[1:3] == ["a0 and 2 more", "b0 and 1 more"] and welch[3:6] == pytest.approx([5.5, *interval])


def test_a_run_that_was_tested_on_some_of_the_images_is_compared_with_no_recipe(runs: list[Path]) -> None:
    run = read_run(runs[0])
    limited = replace(run, summary=run.summary | {"images": run.summary["images"] | {"test": 4}})
    whole, some = (seeds_of(each, "a", 0.9, 0.91) for each in (run, limited))
    assert list(recipes([*whole, *some]).values()) == [[("a0 and 1 more", [0.9, 0.91])]] and recipes(some) == {}


def test_the_numbers_of_a_run_are_in_its_part_and_those_of_each_class_are_folded(runs: list[Path]) -> None:
    content = page([read_run(runs[0])], "Run")
    summary = json.loads((runs[0] / "summary.json").read_text())
    for name in ("test_f1", "test_log_loss", "test_brier_score", "test_calibration_error"):
        assert f">{summary[name]:.4f}</td>" in content
    folded = content[content.index("<details>") : content.index("</details>")]
    assert "blue" in folded and f">{summary['test_per_class']['blue']['recall']:.4f}</td>" in folded


def test_pairs_are_listed_where_many_classes_were_confused_and_nowhere_else() -> None:
    for count, mistakes, listed in ((21, 3, True), (21, 0, False), (20, 3, False)):
        counts = 9 * np.eye(count, dtype=np.int64)
        counts[0, 1] = mistakes
        content, matrix = judged_page(counts, [f"class {number}" for number in range(count)])
        assert ("Most confused" in content) is listed
        assert matrix["layout"]["yaxis"]["automargin"]  # room for names such as "golden retriever"
        assert matrix["data"][0]["zmin"] == 0 and matrix["data"][0]["zmax"] >= 1
        assert "annotations" not in matrix["layout"] or not matrix["layout"]["annotations"]


def test_long_names_are_cut_on_the_page() -> None:
    classes = [f"{number} <i>{'long ' * 12}$x$" for number in range(21)]
    counts = 9 * np.eye(21, dtype=np.int64)
    counts[2, 3] = 1
    content, matrix = judged_page(counts, classes)
    assert len(set(matrix["data"][0]["x"])) == 21
    assert max(len(html.unescape(label)) for label in matrix["layout"]["xaxis"]["labelalias"].values()) == 24
    (name,) = set(re.findall(r">(2 &lt;i&gt;[^<]*)<", content))
    assert len(html.unescape(name)) <= 24 and "<i>" not in content


def test_only_options_that_differ_are_shown(runs: list[Path]) -> None:
    found = differences([read_run(run) for run in runs])
    assert found["optimizer.lr"][1] == "0.01" and found["model.class_path"][0].endswith("Linear")
    assert "data.batch_size" not in found and "seed_everything" not in found
    assert found.keys().isdisjoint({"run", "trainer.default_root_dir", "trainer.logger"})
    assert read_run(runs[0]).options["data.whitening"] == "null"


def test_a_run_that_was_not_tested_is_not_tested_here(fit: Fit) -> None:
    assert fit("--model=linear", "--test=false", "--run=runs/quiet") == 0
    run = read_run(Path("runs/quiet"))
    assert run.results is None and "--test=false" in run.reason
    assert "is not tested here either" in page([run], "Runs")


def test_a_run_whose_images_are_gone_is_shown_without_them(runs: list[Path]) -> None:
    shutil.rmtree("colours")
    run = read_run(runs[0])
    assert run.results is None and "does not exist" in run.reason
    assert "does not exist" in page([run], "Runs") and "--data.root" not in run.reason


def test_a_run_is_not_judged_by_images_that_it_was_not_tested_on(runs: list[Path]) -> None:
    write_images(Path("colours/test/red/more"), 1, seed=99)
    run = read_run(runs[0])
    assert run.results is None and "colours are no longer those that it was tested on; restore the" in run.reason
    assert run.reason in page([run], "Run")


def test_a_run_without_results_on_its_images_is_told(runs: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    for split in ("train", "test"):
        write_images(Path(f"colours/{split}/green"), 1, seed=0)
    assert main(["report", str(runs[0])]) == 0
    expected = (
        "its classes are not those of colours: 'green' is unexpected; restore the images, or train its recipe on "
        "these: cvcc-zoo fit --config=RUN/config.yaml"
    )
    assert f"first: no results on its test images: {expected}\n" in capsys.readouterr().out
    assert f"on its test images: {html.escape(expected)}.</p>" in Path("report.html").read_text()


def test_a_run_whose_scores_are_no_numbers_is_shown_without_results(
    runs: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = torch.arange(12) % 2
    monkeypatch.setattr("cvcc_zoo.report.reports.scores", lambda *given: (torch.full((12, 2), torch.nan), labels))
    run = read_run(runs[0])
    assert run.results is None and "its scores are not finite numbers; train it again" in run.reason
    assert "There are no results on its test images: its scores are not finite" in page([run], "Run")


def test_runs_that_have_not_ended_are_left_out(runs: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    (runs[1] / "summary.json").unlink()
    assert main(["report", *map(str, runs)]) == 0
    assert "Not finished, and left out: second." in capsys.readouterr().out
    (runs[0] / "summary.json").unlink()
    assert main(["report", *map(str, runs)]) == 2
    assert "none of these runs has ended" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["report", "nothing"], "nothing is not a run folder"),
        (["report", "."], "is not a run folder"),
        (["report", "runs/first", "--output=page.pdf"], ".html"),
    ],
)
def test_bad_input_is_told(args: list[str], message: str, runs: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(args) == 2
    assert message in capsys.readouterr().err


def test_a_damaged_summary_is_told(runs: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    file = runs[0] / "summary.json"
    summary = json.loads(file.read_text())
    for text, why in (
        ("{", "cannot be read as the summary of a run"),
        (json.dumps(summary | {"test_accuracy": 91.5}), "test_accuracy is 91.5, not between 0 and 1"),
        (json.dumps(summary | {"val_accuracy": float("nan")}), "val_accuracy is nan, not between 0 and 1"),
    ):
        file.write_text(text)
        assert main(["report", str(runs[0])]) == 2
        assert why in capsys.readouterr().err


@pytest.mark.slow
def test_the_page_works_in_a_browser(runs: list[Path]) -> None:
    sync_api = pytest.importorskip("playwright.sync_api")
    browser_path = shutil.which("chromium")
    if browser_path is None:
        pytest.skip("needs Chromium")
    assert main(["report", *map(str, runs)]) == 0
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
        told: list[str] = []
        for width in (1280, 390):
            tab = browser.new_page(viewport={"width": width, "height": 900})
            tab.on("console", lambda message: told.append(message.text) if message.type == "error" else None)
            tab.on("pageerror", lambda error: told.append(str(error)))
            tab.goto(Path("report.html").resolve().as_uri())
            tab.wait_for_selector(".plot .main-svg")
            assert tab.evaluate("document.documentElement.scrollWidth") <= width
            hint = tab.locator("section:first-of-type .wide")
            assert (hint.get_attribute("data-more") is not None) == (width == 390)
            tab.click("th button:has-text('parameters')")
            names = tab.locator("table.sortable tbody tr td:first-child").all_inner_texts()
            tab.click("th button:has-text('parameters')")
            assert tab.locator("table.sortable tbody tr td:first-child").all_inner_texts() == names[::-1]
            assert names == ["second", "first"] and not told
            tab.close()
        browser.close()
