"""`cvcc-zoo optimizers`: the optimizers, with the memory of their state and the time of a step on a model."""

import inspect
from collections.abc import Sequence
from functools import partial

from rich.table import Table

from cvcc_zoo.cli.parsing import ZooParser, call_with, function_parser
from cvcc_zoo.optim.build import OWN
from cvcc_zoo.optim.cost import EXAMPLES, seconds_a_step, sides, state_share
from cvcc_zoo.printing.console import PlainConsole
from cvcc_zoo.runs.summary import hardware
from cvcc_zoo.timing import alternate
from cvcc_zoo.zoo.creation import create

WAYS = {"loop": "torch loop", "foreach": "torch foreach", "fused": "torch fused"}


def show(model: str = "resnet18", repeats: int = 3) -> None:
    """Show the package's optimizers with the memory of their state and the time of a step, measured on a model.

    Args:
        model: The model whose parameters are updated; no images are used.
        repeats: How often each is timed; the optimizers take turns, and the median is shown.

    """
    if repeats < 1:
        raise ValueError(f"repeats must be at least 1, got {repeats}")
    network = create(model).network
    parameters = sum(p.numel() for p in network.parameters())
    table = Table(title=f"{model}, {parameters:,} parameters; {hardware()}")
    table.add_column("optimizer", no_wrap=True)
    for heading in ("state", "ms a step", *(f"torch\n{way}" for way in WAYS)):
        table.add_column(heading, justify="right", no_wrap=True)
    console = PlainConsole()
    for name in OWN:
        if name == "Muon" and sum(p.ndim > 1 for p in network.parameters()) < 3:
            table.add_row(name, *"-----")  # it updates weights between the first and the last layer: there are none
            continue
        made = {side: make() for side, make in sides(name, EXAMPLES[name], network).items()}
        for optimizer in made.values():
            optimizer.step()
        took = alternate({side: partial(seconds_a_step, optimizer) for side, optimizer in made.items()}, repeats)
        shown = [f"{1e3 * took[side]:.1f}" if side in took else "-" for side in ("cvcc_zoo", *WAYS.values())]
        table.add_row(name, f"{state_share(made['cvcc_zoo']):.3g} x", *shown)
    console.print(table)
    for name, found in OWN.items():
        options = ", ".join(f"{key} {value:g}" for key, value in EXAMPLES[name].items())
        console.print(
            f"{name}: {(inspect.getdoc(found) or '').splitlines()[0]}{f' Here: {options}.' if options else ''}"
        )
    console.print(
        "\nstate: memory in multiples of the parameters. Any optimizer of torch (--optimizer=NAdam) and timm "
        "(--optimizer=timm.lamb) can be named too; torch's of these names are --optimizer=torch.optim.NAME."
    )


def parser() -> ZooParser:
    """Return the parser of the command."""
    return function_parser("optimizers", "[options]", show)


def main(args: Sequence[str]) -> int:
    """Run the command."""
    call_with(parser(), show, args)
    return 0
