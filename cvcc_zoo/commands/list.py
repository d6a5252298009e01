"""`cvcc-zoo list [PATTERN]`: the models with parameters and multiply-accumulate operations."""

from collections.abc import Sequence

from jsonargparse import auto_cli
from rich.console import Console
from rich.table import Table

from cvcc_zoo.registry import ALIASES, find, unknown
from cvcc_zoo.zoo import complexity, create, list_models


def show(pattern: str = "*", num_classes: int = 10, in_channels: int = 3, image_size: int = 32) -> None:
    """Show the models with their parameters and multiply-accumulate operations (MACs).

    Args:
        pattern: Shell pattern of the names, like 'resnext29*'.
        num_classes: Number of classes.
        in_channels: Channels of the images.
        image_size: Height and width of the images in pixels.

    """
    names = [name for name in list_models(pattern) if name not in ALIASES or name == pattern]
    if not names:
        raise unknown("model", pattern, list_models())
    table = Table(title=f"{num_classes} classes, images {in_channels}x{image_size}x{image_size}")
    table.add_column("model", no_wrap=True)
    table.add_column("parameters", justify="right", no_wrap=True)
    table.add_column("MACs", justify="right", no_wrap=True)
    table.add_column("what it is")
    for name in names:
        counts = complexity(create(name, num_classes=num_classes, in_channels=in_channels, image_size=image_size))
        aliases = [alias for alias, target in ALIASES.items() if target == name]
        summary = find(name).summary.rstrip(".") + (f" (also {', '.join(aliases)})" if aliases else "")
        table.add_row(name, f"{counts.parameters:,}", f"{counts.macs / 1e6:,.2f} M", summary)
    Console().print(table)


def main(args: Sequence[str]) -> int:
    """Run the command; the pattern may stand without its flag."""
    words = list(args)
    if words and not words[0].startswith("-"):
        words[0] = f"--pattern={words[0]}"
    auto_cli(show, args=words, prog="cvcc-zoo list")
    return 0
