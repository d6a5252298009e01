"""The leaderboard of the published weights, from their cards: `python -m benchmarks.leaderboard` writes it.

The best of each data set comes first. It stands between two comments, so that everything else stays as it is.
"""

import re
from pathlib import Path

import torch

from cvcc_zoo.weights import PUBLISHED, Card, read_card

ROOT = Path(__file__).parents[1]
HEADERS = {
    "README.md": ("weights", "data", "test accuracy", "three seeds", "parameters", "MACs", "MB"),
    "README.zh.md": ("权重", "数据", "测试准确率", "三个随机种子", "参数量", "乘加次数", "MB"),
    "docs/index.md": ("weights", "data", "test accuracy", "three seeds", "parameters", "MACs", "MB"),
}
"""The pages that have it, and the names of its columns there."""
BEGIN, END = "<!-- leaderboard: python -m benchmarks.leaderboard -->", "<!-- end of the leaderboard -->"


def row(card: Card) -> str:
    """A card's line."""
    scores = [100 * score for score in card.training.get("test_accuracy_of_seeds", {}).values()]
    mean = torch.tensor(scores, dtype=torch.float64)
    seeds = f"{mean.mean():.2f} ± {mean.std():.2f} %" if scores else "-"
    accuracy = f"{100 * card.measured['test_accuracy']:.2f} %"
    costs = f"{card.parameters:,} | {card.macs / 1e6:,.2f} M | {card.size / 1e6:.2f}"
    return f"| `{card.name}` | {card.dataset} | {accuracy} | {seeds} | {costs} |"


def table(header: tuple[str, ...]) -> str:
    """The table under its header."""
    cards = [read_card(path) for path in PUBLISHED.glob("*.json")]
    cards.sort(key=lambda card: (card.dataset, -card.measured["test_accuracy"]))
    lines = [f"| {' | '.join(header)} |", "|---|---|---:|---:|---:|---:|---:|"]
    return "\n".join([*lines, *map(row, cards)])


def with_leaderboard(page: str, header: tuple[str, ...]) -> str:
    """The page with the table as it is now. Raises ValueError where the page has no place for it."""
    if page.count(BEGIN) != 1 or page.count(END) != 1:
        raise ValueError(f"the leaderboard needs one {BEGIN} and one {END} in the page")
    return re.sub(
        f"{re.escape(BEGIN)}.*{re.escape(END)}",
        lambda _: f"{BEGIN}\n\n{table(header)}\n\n{END}",
        page,
        flags=re.DOTALL,
    )


def main() -> None:
    """Write it."""
    for name, header in HEADERS.items():
        path = ROOT / name
        path.write_text(with_leaderboard(path.read_text(), header))
        print(f"written to {name}")


if __name__ == "__main__":
    main()
