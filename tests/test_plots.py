from pathlib import Path

import numpy as np

from cvcc_zoo.plots import plot_confusion, plot_curves, plot_runs, read_metrics


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


def test_rates_of_groups_and_watched_lengths_are_drawn_where_they_are() -> None:
    curve, other = ([0.0, 10.0], [0.25, 0.5]), ([0.0, 10.0], [0.1, 0.2])
    metrics = {"lr-Muon/muon": curve, "lr-Muon/decay": other, "lr-Muon/no_decay": other}
    metrics |= {"train/grad_norm": curve, "train/update_ratio": other}
    *_, rate, length = plot_curves(metrics, "a run").axes
    assert [line.get_label() for line in rate.lines] == ["Muon, muon", "Muon, decay"]
    assert [line.get_label() for line in length.lines] == ["gradient", "update / parameters"]


def test_several_runs_are_drawn_over_each_other() -> None:
    steps = [float(step) for step in range(100)]
    runs = {
        name: {"train/batch_loss": (steps, [scale] * 100), "val/accuracy": ([99.0], [scale])}
        for name, scale in (("SGD", 0.5), ("Muon", 0.25))
    }
    loss, accuracy = plot_runs(runs, "both").axes
    assert [text.get_text() for text in accuracy.get_legend().get_texts()] == ["SGD", "Muon"]  # type: ignore[union-attr]
    smooth = [line for line in loss.lines if not str(line.get_label()).startswith("_")]
    assert [len(np.asarray(line.get_xdata())) for line in smooth] == [97, 97]
    assert np.allclose(np.asarray(smooth[1].get_ydata()), 0.25)
    assert list(np.asarray(accuracy.lines[0].get_ydata())) == [50.0]
