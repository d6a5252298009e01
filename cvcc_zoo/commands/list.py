"""`cvcc-zoo list [PATTERN]`: the models or the published weights, with their costs and accuracies."""

import fnmatch
from collections.abc import Callable, Sequence
from typing import Any

import torch
from rich.box import SIMPLE_HEAD
from rich.table import Table

from cvcc_zoo.cli.parsing import ZooParser, call_with, function_parser
from cvcc_zoo.printing.console import PlainConsole
from cvcc_zoo.registry import ALIASES, as_typed, find, pick, unknown
from cvcc_zoo.weights.card import Card, list_cards, model_and_tag, read_card
from cvcc_zoo.zoo.catalogue import complexity, list_models
from cvcc_zoo.zoo.creation import create

ORDERS: dict[str, Callable[[Card], Any]] = {
    "name": lambda card: card.name,
    "parameters": lambda card: card.parameters,
    "macs": lambda card: card.macs,
    "accuracy": lambda card: -accuracy(card),
}


def show(
    pattern: str = "*",
    num_classes: int = 10,
    in_channels: int = 3,
    image_size: int = 32,
    pretrained: bool = False,
    dataset: str = "",
    max_parameters: float = float("inf"),
    min_accuracy: float = 0.0,
    sort: str = "name",
) -> None:
    """Show the models with their parameters and multiply-accumulate operations (MACs), or the published weights.

    Args:
        pattern: Shell pattern of the names, such as 'resnext29*'.
        num_classes: Number of classes.
        in_channels: Number of channels of the images.
        image_size: Height and width of the images in pixels.
        pretrained: Show the published weights, in the package and in $CVCC_ZOO_HOME.
        dataset: Show only weights for this data set, such as cifar10.
        max_parameters: Show only weights of models with at most this many parameters.
        min_accuracy: Show only weights with at least this test accuracy, a fraction in [0, 1].
        sort: Order of the weights: name, parameters, macs (each from the smallest) or accuracy (from the best).

    """
    if pretrained:
        weights(pattern, dataset, max_parameters, min_accuracy, sort)
        return
    if dataset or min_accuracy or max_parameters < float("inf") or sort != "name":
        raise ValueError("dataset, max_parameters, min_accuracy and sort choose among published weights: --pretrained")
    pattern = as_typed(pattern, list_models()) or pattern
    names = [name for name in list_models(pattern) if name not in ALIASES or name == pattern]
    if not names:
        raise unknown("model", pattern, list_models())
    table = Table(title=f"{num_classes} classes, images {in_channels}x{image_size}x{image_size}")
    table.add_column("model", no_wrap=True)
    table.add_column("parameters", justify="right", no_wrap=True)
    table.add_column("MACs", justify="right", no_wrap=True)
    table.add_column("what it is", overflow="fold")
    for name in names:
        with torch.device("meta"):  # without weights
            counts = complexity(create(name, num_classes=num_classes, in_channels=in_channels, image_size=image_size))
        aliases = [alias for alias, target in ALIASES.items() if target == name]
        summary = find(name).summary.rstrip(".") + (f" (also {', '.join(aliases)})" if aliases else "")
        table.add_row(name, f"{counts.parameters:,}", f"{counts.macs / 1e6:,.2f} M", summary)
    PlainConsole().print(table)


def weights(pattern: str, dataset: str, max_parameters: float, min_accuracy: float, sort: str) -> None:
    """Show the chosen published weights. Raises ValueError for an order, data set or name that does not exist."""
    order = ORDERS[pick("order", sort, ORDERS)]
    if not 0 <= min_accuracy <= 1:
        raise ValueError(f"min_accuracy is a fraction in [0, 1], like 0.92, not {min_accuracy:g}")
    cards = [read_card(path) for path in list_cards().values()]
    tags = {tag(card) for card in cards}
    if dataset:
        dataset = pick("data set of published weights", dataset, tags)
    pattern = as_typed(pattern, {name for card in cards for name in (card.name, model(card))}) or pattern
    named = [card for card in cards if fnmatch.fnmatchcase(card.name, pattern) or model(card) == pattern]
    if pattern != "*" and not named:
        raise unknown("published weight", pattern, [card.name for card in cards])
    chosen = [
        card
        for card in named
        if (not dataset or tag(card) == dataset)
        and card.parameters <= max_parameters
        and accuracy(card) >= min_accuracy
    ]
    table = Table(title=f"{len(chosen)} of {len(cards)} published weights", box=SIMPLE_HEAD, show_edge=False, padding=0)
    table.add_column("weights", no_wrap=True)
    table.add_column("trained on", overflow="fold")
    for column in ("accuracy", "parameters", "MACs", "MB"):
        table.add_column(column, justify="right", no_wrap=True)
    for card in sorted(chosen, key=order):
        table.add_row(
            card.name,
            card.dataset,
            f"{100 * accuracy(card):.2f} %",
            f"{card.parameters:,}",
            f"{card.macs / 1e6:,.2f} M",
            f"{card.size / 1e6:.2f}",
        )
    PlainConsole().print(table)


def model(card: Card) -> str:
    """Return the name of the model from the name of the weights."""
    return model_and_tag(card.name)[0]


def tag(card: Card) -> str:
    """Return the name of the data set from the name of the weights."""
    return model_and_tag(card.name)[1]


def accuracy(card: Card) -> float:
    """Return the accuracy on the test images, a fraction in [0, 1]; 0 if the card has none."""
    return float(card.measured.get("test_accuracy", 0.0))


def written_out(args: Sequence[str]) -> list[str]:
    """Return `resnet20 --max-parameters=1e6 --pretrained` as `--pattern=...`, `--max_parameters=...` and `=true`."""
    words: list[str] = []
    value_follows = False
    for word in args:
        flag, equals, value = word.partition("=")
        if not word.startswith("-"):
            first = not value_follows and not any(each.startswith("--pattern=") for each in words)
            words.append(f"--pattern={word}" if first else word)
        elif word == "--pretrained":
            words.append(f"{word}=true")
        else:
            words.append(flag[:2] + flag[2:].replace("-", "_") + equals + value)
        value_follows = word.startswith("--") and not equals and word not in ("--pretrained", "--help")
    return words


def parser() -> ZooParser:
    """Return the parser of the command."""
    return function_parser("list", "[PATTERN] [options]", show)


def main(args: Sequence[str]) -> int:
    """Run the command."""
    call_with(parser(), show, written_out(args))
    return 0
