"""The ratios of your own machine in five minutes: `python -m benchmarks.run --quick`, which only prints them."""

from collections.abc import Iterator

import torch

from benchmarks import gpu_training, inference, lightning_cost, memory, startup, training, winograd
from benchmarks.rates import count_images, in_turns, length, ours, theirs
from benchmarks.report import Row
from benchmarks.sides import Settings, without_gpu
from cvcc_zoo.printing.console import PlainConsole

IMAGES = {"linear": 150_000, "resnet20": 12_000}
"""The number of images that a training run sees, counting each as often as it is seen."""
SMALL = 8  # images in a batch


def measure(settings: Settings) -> Iterator[list[Row]]:
    """Yield the rows of one topic after another."""
    available = count_images(settings)
    with without_gpu():
        yield startup.measure(settings).rows
        for model in IMAGES:
            yield train(model, settings, available)
        yield lightning_cost.measure(settings).rows
        yield [inference.evaluation("resnet20", settings)]
        yield winograd.measure(settings).rows
    if torch.cuda.is_available():
        for line in gpu_training.chosen(settings):
            yield gpu_training.compare(line, settings, available)


def train(model: str, settings: Settings, available: int) -> list[Row]:
    """Return the rows of a training run against the usual script, on the CPU; for resnet20 also its memory."""
    wanted, batch_size = (4 * SMALL, SMALL) if settings.small else (IMAGES[model], training.BATCH)
    of = length(available, wanted, batch_size)
    sides = {"ours": lambda: ours(settings, model, of), "usual": lambda: theirs(settings, model, of)}
    found = in_turns(sides, settings.repeats)
    mine, usual, against = found["ours"], found["usual"], "the usual script"
    least = next(case.least for case in training.CASES if case.model == model and case.least)
    what = f"fit {model}, {of.images:,} images"
    rows = [
        Row(f"{what}: steady state", "images/s", mine.steady, against, usual.steady, least=least),
        Row(f"{what}: whole process", "images/s", mine.whole, against, usual.whole),
    ]
    if model == "resnet20" and mine.peak_mb and usual.peak_mb:  # 0 where there is no /proc
        rows.append(Row(f"fit {model}: peak memory", "MB", mine.peak_mb, against, usual.peak_mb, limit=memory.LIMIT))
    return rows


def show(rows: list[Row], title: str) -> None:
    """Print the table of all rows, and how many targets were reached."""
    from rich.table import Table

    table = Table("ratio", "", "target", title=title, title_style="", show_lines=True)
    for row in rows:
        what, unit, mine, other, ratio, target, mark = (cell.replace("**", "") for cell in row.cells())
        sides = f"{mine} {unit}; {other}" if other else f"{mine} {unit}"
        table.add_row(ratio, f"{what}\n{sides}", f"{target}\n{mark}" if target else "")
    PlainConsole().print(table)
    judged = [row.reached for row in rows if row.reached is not None]
    print(f"{sum(judged)} of {len(judged)} targets are reached.")
