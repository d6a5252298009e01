"""The self-contained HTML page of a report: tables, figures and images of several runs, readable offline."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cvcc_zoo.classifier.training_images import DIVIDED_ANEW
from cvcc_zoo.data.pictures import as_png
from cvcc_zoo.plots.confusion import FEW, LONGEST, most_confused
from cvcc_zoo.plots.figure import short
from cvcc_zoo.report import classes, comparison, figures, quality, seeds
from cvcc_zoo.report.elements import Cell, number, section, table, text
from cvcc_zoo.report.reports import Mistake, Results, RunReport, differences
from cvcc_zoo.runs.intervals import wilson
from cvcc_zoo.runs.written import left_out

SHOWN = 96  # width and height in pixels of a misclassified image on the page
STYLE, SCRIPT = (Path(__file__).parent / name for name in ("page.css", "page.js"))


def page(runs: Sequence[RunReport], title: str, remarks: Sequence[str] = ()) -> str:
    """Return the page as HTML. Raises ValueError if Plotly is missing."""
    plots = Plots()
    made = f"{len(runs)} run{'s' * (len(runs) > 1)}, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
    body = [
        f"<header><h1>{text(title)}</h1><p>{made}. Click a heading to sort; "
        "click a name in a legend to hide its curve. Below each test accuracy is its 95 % interval.</p></header>",
        *(f'<p class="remark">{text(remark)}</p>' for remark in remarks),
        section("Leaderboard", leaderboard(runs)),
        *([section("Seeds", several)] if len(runs) > 1 and (several := seeds.tables(runs)) else []),
        *([section("Comparison on the same test images", comparison.matrices(runs))] if len(runs) > 1 else []),
        section("Learning curves", plots.grid(figures.learning_curves(runs, name) for name in QUANTITIES)),
        section("Size against accuracy", plots.grid(figures.sizes(runs, *cost) for cost in COSTS)),
        section("What differs in the recipes", recipe_table(runs)),
        *(section(run.name, run_part(run, plots)) for run in runs),
    ]
    library = figures.plotly("offline").get_plotlyjs()
    style, script = (file.read_text(encoding="utf-8") for file in (STYLE, SCRIPT))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<link rel="icon" href="data:,"><title>{text(title)}</title><style>{style}</style></head><body>'
        f"{''.join(body)}<script>{library}</script><script>const figures = {{{plots.script()}}};\n"
        f"{script}</script></body></html>\n"
    )


QUANTITIES = ("loss", "accuracy", "lr")
LEFT_OUT = "The images themselves are not in this page; <code>cvcc-zoo report --images=all</code> shows them."
MARK = "*"
KNOWN = "Some validation images may have been known to the weights of this run before, so the accuracy may be too high."
COSTS = (("parameters", "parameters"), ("macs", "multiply-accumulate operations"))


class Plots:
    """The figures of the page, each with the HTML element that holds it."""

    def __init__(self) -> None:
        self.figures: list[str] = []

    def grid(self, found: Iterable[str | None]) -> str:
        """Return elements side by side for those figures that are not None."""
        places = []
        for figure in found:
            if figure is not None:
                places.append(f'<div class="plot" id="figure{len(self.figures)}"></div>')
                self.figures.append(figure)
        return f'<div class="grid">{"".join(places)}</div>' if places else "<p>Nothing was recorded.</p>"

    def large(self, figure: str) -> str:
        """Return the element of a figure with a fixed size, which scrolls sideways on a narrow page."""
        self.figures.append(figure)
        return f'<div class="wide"><div id="figure{len(self.figures) - 1}"></div></div>'

    def script(self) -> str:
        """Return all figures by the ids of their elements; `<` is escaped, because a name could end the script."""
        return ",".join(f"figure{number}: {each}" for number, each in enumerate(self.figures)).replace("<", "\\u003c")


def leaderboard(runs: Sequence[RunReport]) -> str:
    """Return a table with one row per run, the best test accuracy first."""
    columns: dict[str, Callable[[dict[str, Any]], Cell]] = {
        "model": lambda s: (s["model"], s["model"]),
        "data": lambda s: (s["known_as"] or s["dataset"],) * 2,
        "test accuracy": accuracy,
        "top 5": lambda s: number(s.get("test_top5_accuracy"), "{:.2f} %", 100),
        "validation": lambda s: number(s["val_accuracy"], "{:.2f} %" + MARK * marked(s), 100),
        "test loss": lambda s: number(s["test_loss"], "{:.4f}"),
        "parameters": lambda s: number(s["parameters"], "{:,}"),
        "MACs": lambda s: number(s["macs"], "{:,.1f} M", 1e-6),
        "epochs": lambda s: number(s["epochs"], "{:,}"),
        "minutes": lambda s: number(s["train_seconds"], "{:.1f}", 1 / 60),
        "images/s": lambda s: number(s["images_per_second"], "{:,.0f}"),
        "seed": lambda s: number(s["seed"], "{}"),
    }
    if not any("test_top5_accuracy" in run.summary for run in runs):  # only for many classes
        del columns["top 5"]
    best = sorted(runs, key=lambda run: -(run.summary["test_accuracy"] or 0))
    rows = [[(run.name, run.name), *(column(run.summary) for column in columns.values())] for run in best]
    remark = f'<p class="remark">{MARK} {KNOWN}</p>' if any(marked(run.summary) for run in runs) else ""
    return table(["run", *columns], rows, sortable=True) + remark


def marked(summary: Mapping[str, Any]) -> bool:
    """Return whether the validation accuracy of a run is known to be too high, or may be."""
    return summary["val_accuracy"] is not None and bool(summary.get(DIVIDED_ANEW))


def accuracy(summary: Mapping[str, Any]) -> Cell:
    """Return a cell with the test accuracy of a run, and below it its 95 % interval: the table is wide already.

    If only some of the test images were tested, it says how many.
    """
    share = summary["test_accuracy"]
    if share is None:
        return "-", None
    count = summary["images"]["test"]
    low, high = wilson(round(share * count), count)
    some = f"\nof {count:,} images" if left_out(summary) else ""
    return f"{100 * share:.2f} %\n{100 * low:.2f} to {100 * high:.2f}{some}", share


def recipe_table(runs: Sequence[RunReport]) -> str:
    """Return a table of the options in which the runs differ, with a column for each run."""
    found = differences(list(runs))
    if not found:
        return "<p>All options are the same.</p>"
    rows: list[list[Cell]] = [[(name, name), *((value, value) for value in values)] for name, values in found.items()]
    return table(["option", *(run.name for run in runs)], rows, sortable=False)


def run_part(run: RunReport, plots: Plots) -> str:
    """Return the section of a run: its results on the test images."""
    results = run.results
    if results is None:
        return f"<p>There are no results on its test images: {text(run.reason)}.</p>"
    remark = f'<p class="remark">{text(run.remark)}</p>' if run.remark else ""
    measured = remark + quality.numbers(results) + quality.per_class(results)
    confusion, others = classes.confusion(results), (classes.class_accuracies(results), figures.calibration(results))
    many = len(results.classes) > FEW
    return (
        measured
        + (
            plots.large(confusion) + confused(results) + plots.grid(others)
            if many
            else plots.grid((confusion, *others))
        )
        + mistakes(results)
    )


def mistakes(results: Results) -> str:
    """Return the most confident mistakes as images, or as a table if the images must not be shown."""
    wrong = int((~results.right).sum())
    heading = f"<h3>The most confident of {wrong:,} mistakes</h3>"
    if not wrong:
        return f"{heading}<p>There are none.</p>"
    if any(mistake.image is not None for mistake in results.worst):
        return f'{heading}<div class="mistakes">{"".join(map(picture, results.worst))}</div>'
    rows: list[list[Cell]] = [
        [
            (short(mistake.label, LONGEST), mistake.label),
            (short(mistake.predicted, LONGEST), mistake.predicted),
            number(mistake.probability, "{:.1f} %", 100),
            (mistake.where, mistake.where),
        ]
        for mistake in results.worst
    ]
    listed = table(("true", "predicted", "probability", "image"), rows, sortable=False)
    return f'{heading}<p class="remark">{LEFT_OUT}</p><div class="pairs">{listed}</div>'


def confused(results: Results) -> str:
    """Return a table of the pairs of classes that were confused most often; empty if there are none."""
    pairs = most_confused(results.confusion, results.classes)
    rows: list[list[Cell]] = [
        [
            (short(pair.true, LONGEST), pair.true),
            (short(pair.predicted, LONGEST), pair.predicted),
            number(pair.count, "{:,}"),
            number(pair.share, "{:.0f} %", 100),
        ]
        for pair in pairs
    ]
    header = ("true", "predicted", "images", "of the true class")
    return f'<h3>Most confused</h3><div class="pairs">{table(header, rows, sortable=False)}</div>' if pairs else ""


def picture(mistake: Mistake) -> str:
    """Return a misclassified test image with its true and its predicted class, and where it is."""
    what = f"{mistake.label}, taken for {mistake.predicted}"
    size = f'width="{SHOWN}" height="{SHOWN}"'
    assert mistake.image is not None
    return (
        f'<figure><img src="{as_png(mistake.image)}" {size} alt="{text(what)}">'
        f"<figcaption><b>{text(mistake.label)}</b><br>{text(mistake.predicted)} {100 * mistake.probability:.0f} %"
        f"<br><small>{text(mistake.where)}</small></figcaption></figure>"
    )
