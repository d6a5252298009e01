"""The table of torchvision's data sets in docs/datasets.md: `python -m benchmarks.datasets` writes it."""

from pathlib import Path

from benchmarks.generated import fill
from cvcc_zoo.data.forms.torchvision_table import PREFIX, TABLE, TorchvisionSet

PAGE = Path(__file__).parents[1] / "docs" / "datasets.md"


def row(name: str, entry: TorchvisionSet) -> str:
    """Return the line of a data set: name, what it is, classes, images of each split, pixels, and mirror images."""
    counts = [f"{entry.counts[split]:,}" if split in entry.counts else "-" for split in ("train", "val", "test")]
    size = f"{entry.size}x{entry.size}" if entry.size else "vary"
    pixels = f"{size}, grey" if entry.grey else size
    start = f"| `{PREFIX}{name}` | {entry.about} | {entry.classes}"
    return f"{start} | {' | '.join(counts)} | {pixels} | {_yes(entry.mirror)} |"


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def with_datasets(page: str) -> str:
    """Return the page with the table of data sets as the package has them now."""
    header = "| `--data.dataset` | images | classes | train | val | test | pixels | mirrored |"
    line = "|---|---|---:|---:|---:|---:|---|---|"
    rows = [row(name, entry) for name, entry in TABLE.items()]
    return fill(page, "torchvision data sets", "datasets", "\n".join([header, line, *rows]))


def main() -> None:
    """Write the table."""
    PAGE.write_text(with_datasets(PAGE.read_text()))
    print(f"written to docs/{PAGE.name}")


if __name__ == "__main__":
    main()
