"""The tables of the published weights, from their cards: `python -m benchmarks.leaderboard` writes them.

A leaderboard for each data set, the best first, beside the best that others publish for the same network and what we
aim at; how long each training run took; how robust the weights are, and how well calibrated. The tables stand between
comments, and the rest of a page is left alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import yaml

from benchmarks.generated import fill
from benchmarks.measure import markdown
from cvcc_zoo.classifier.metrics import TOP5
from cvcc_zoo.cli.recipes import recipes
from cvcc_zoo.data.known import KNOWN
from cvcc_zoo.weights.card import PUBLISHED, Card, read_card

ROOT = Path(__file__).parents[1]

ELSEWHERE = {
    "linear.cifar10": 39.30,  # softmax on raw pixels: KTH, Introduction to Visualization and Computer Vision
    "fcnn.cifar10": 78.62,  # a similar network, Z-Lin with augmentation: https://arxiv.org/abs/1511.02580
    "cnn.cifar10": 94.01,  # airbench94, as large, on six views of each image: github.com/KellerJordan/cifar10-airbench
    "cnn_fast.cifar10": 94.01,  # the same, which has GELU where ours has another activation
    "resnet20.cifar10": 94.03,  # here and below, unless noted: https://github.com/osmr/pytorchcv
    "resnet56.cifar10": 95.48,
    "resnet110.cifar10": 96.31,
    "resnet18.cifar10": 96.0,  # airbench's "standard training"
    "wrn16_4.cifar10": 95.06,  # a re-run; the paper has 94.98: https://arxiv.org/abs/1605.07146
    "resnext29_32x4d.cifar10": 96.85,
    "resnet20.cifar100": 70.36,
    "resnet56.cifar100": 75.12,
    "resnet110.cifar100": 77.20,
    "resnet18.cifar100": 78.43,  # https://huggingface.co/edadaltocg/resnet18_cifar100
    "wrn16_4.cifar100": 75.97,  # https://arxiv.org/abs/1605.07146
    "resnext29_32x4d.cifar100": 80.50,
}
"""The best published test accuracy of the same or a similar network, in percent; none was measured again here."""
AIMS = {
    "linear.cifar10": 41.5, "fcnn.cifar10": 70, "cnn.cifar10": 94.5, "cnn_fast.cifar10": 95.5,
    "resnet20.cifar10": 94.1, "resnet56.cifar10": 95.5, "resnet110.cifar10": 96.4, "resnet18.cifar10": 96.5,
    "wrn16_4.cifar10": 96, "resnext29_32x4d.cifar10": 97,
    "fcnn.cifar100": 40, "cnn.cifar100": 75, "cnn_fast.cifar100": 77, "resnet20.cifar100": 70.5,
    "resnet56.cifar100": 75.2, "resnet18.cifar100": 79.5, "wrn16_4.cifar100": 78, "resnext29_32x4d.cifar100": 82,
}  # fmt: skip
"""The test accuracy that the weights should reach, in percent."""

KINDS = {
    "noise": ("gaussian_noise", "shot_noise", "impulse_noise"),
    "blur": ("defocus_blur", "motion_blur", "zoom_blur"),
    "fog, brightness, contrast": ("fog", "brightness", "contrast"),
    "elastic, pixelated, JPEG": ("elastic_transform", "pixelate", "jpeg_compression"),
}
"""The corruptions in four groups."""


@dataclass(frozen=True)
class Words:
    """The words of a page's language."""

    leaderboard: tuple[str, ...]
    trainings: tuple[str, ...]


ENGLISH = Words(
    (
        "weights",
        "test accuracy",
        "three seeds",
        "top five",
        "corrupted",
        "best elsewhere",
        "aim",
        "parameters",
        "MACs",
        "MB",
    ),
    ("recipe", "epochs", "training", "images/s", "precision", "hardware"),
)
CHINESE = Words(
    ("权重", "测试准确率", "三个随机种子", "前五准确率", "损坏图像", "公开最佳", "目标", "参数量", "乘加次数", "MB"),
    ("训练配方", "epoch 数", "训练时间", "张/s", "精度", "硬件"),
)
PAGES = {
    "README.md": ENGLISH,
    "README.zh.md": CHINESE,
    "docs/index.md": ENGLISH,
    "docs/recipes.md": ENGLISH,
    "docs/weights.md": ENGLISH,
}
"""The pages that have the tables, or some of them."""


def percent(value: float | None) -> str:
    """Return a percentage with two digits, or a dash for None."""
    return "-" if value is None else f"{value:.2f} %"


def row(card: Card) -> list[str]:
    """Return the cells of a card in the leaderboard; a dash is a number that it does not have."""
    scores = [100 * score for score in card.training.get("test_accuracy_of_seeds", {}).values()]
    mean = torch.tensor(scores, dtype=torch.float64)
    top5, corrupted = card.measured.get(TOP5), card.measured.get("corruptions")
    return [
        f"`{card.name}`",
        percent(100 * card.measured["test_accuracy"]),
        f"{mean.mean():.2f} ± {mean.std():.2f} %" if len(scores) >= 3 else "-",  # "three seeds"
        percent(top5 and 100 * top5),
        percent(corrupted and 100 * corrupted["mean"]),
        percent(ELSEWHERE.get(card.name)),
        percent(AIMS.get(card.name)),
        f"{card.parameters:,}",
        f"{card.macs / 1e6:,.2f} M",
        f"{card.size / 1e6:.2f}",
    ]


def cards() -> list[Card]:
    """Return all cards of the package, the best first."""
    found = [read_card(path) for path in PUBLISHED.glob("*.json")]
    return sorted(found, key=lambda card: (-card.measured["test_accuracy"], card.name))


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table without the columns in which every cell is a dash."""
    kept = [place for place in range(len(columns)) if any(row[place] != "-" for row in rows)]
    return markdown([columns[place] for place in kept], [[row[place] for place in kept] for row in rows])


def leaderboard(words: Words) -> str:
    """Return a table for each data set, under its name."""
    parts = []
    for title in (known.title for known in KNOWN):
        if mine := [card for card in cards() if card.tested_on == title]:
            parts.append(f"**{title}**\n\n{table(words.leaderboard, [row(card) for card in mine])}")
    return "\n\n".join(parts)


def recipe_of(card: Card) -> str:
    """Return the name of the recipe that the weights were trained with. Raises ValueError if there is none."""
    model, _, tag = card.name.partition(".")
    epochs, optimizer = card.training["epochs"], card.training["recipe"].get("optimizer")
    for name in (f"{tag}/{model}", f"fast/{model}"):
        if name not in recipes():
            continue
        recipe = yaml.safe_load(recipes()[name].read_text())
        same = recipe["data"]["dataset"] == tag and recipe["trainer"]["max_epochs"] == epochs
        if same and recipe.get("optimizer") == optimizer:
            return name
    raise ValueError(f"no recipe trains {card.name} as its card says: {epochs} epochs with {optimizer}")


def trainings(words: Words) -> str:
    """Return the table of how long each training run took, by data set and from the shortest."""
    rows = []
    for card in sorted(cards(), key=lambda card: (card.tested_on, card.training["train_seconds"])):
        about = card.training
        seconds = about["train_seconds"]
        taken = f"{seconds:.0f} s" if seconds < 600 else f"{seconds / 60:.0f} min"
        speed = f"{about['images_per_second']:,.0f}"
        rows.append([f"`{recipe_of(card)}`", str(about["epochs"]), taken, speed, about["precision"], about["hardware"]])
    return table(words.trainings, rows)


def robustness(words: Words) -> str:
    """Return the table of the mean accuracies under each kind of corruption, the most robust weights first."""
    measured = [card for card in cards() if "corruptions" in card.measured]
    rows = []
    for card in sorted(measured, key=lambda card: -card.measured["corruptions"]["mean"]):
        accuracy, mean = (card.measured["corruptions"][name] for name in ("accuracy", "mean"))
        kinds = [[share for name in names for share in accuracy[name]] for names in KINDS.values()]
        shares = (card.measured["test_accuracy"], mean, *(sum(kind) / len(kind) for kind in kinds))
        rows.append([f"`{card.name}`", *(percent(100 * share) for share in shares)])
    return table(("weights", "without", "mean", *KINDS), rows)


def calibrations(words: Words) -> str:
    """Return the table of calibration error and log loss without and with the temperature, the smallest error first."""
    rows = []
    for card in sorted(cards(), key=lambda card: card.measured["calibration_error"]):
        found = card.measured
        temperature = found.get("calibration", {}).get("temperature")
        errors = (found["calibration_error"], found.get("calibration_error_with_temperature"))
        losses = (found["test_loss"], found.get("test_loss_with_temperature"))
        rows.append(
            [
                f"`{card.name}`",
                f"{temperature:.2f}" if temperature else "-",
                *(percent(error and 100 * error) for error in errors),
                *(f"{loss:.3f}" if loss else "-" for loss in losses),
            ]
        )
    return table(("weights", "temperature", "calibration error", "with it", "log loss", "with it"), rows)


def with_tables(page: str, words: Words) -> str:
    """Return the page with its tables as they are now. Raises ValueError for a page that has a place twice, or none."""
    makers = {
        "leaderboard": leaderboard,
        "trainings": trainings,
        "robustness": robustness,
        "calibrations": calibrations,
    }
    if not any(f"<!-- {place}:" in page for place in makers):
        raise ValueError("the page has no place for a table")
    for place, make in makers.items():
        page = fill(page, place, "leaderboard", make(words))
    return page


def main() -> None:
    """Write the tables."""
    for name, words in PAGES.items():
        path = ROOT / name
        path.write_text(with_tables(path.read_text(), words))
        print(f"written to {name}")


if __name__ == "__main__":
    main()
