"""The table of all models in docs/models.md, from the registry: `python -m benchmarks.models` writes it."""

from pathlib import Path

import torch

from benchmarks.generated import fill
from cvcc_zoo import create, list_models
from cvcc_zoo.registry import ALIASES, find
from cvcc_zoo.zoo.catalogue import complexity

PAGE = Path(__file__).parents[1] / "docs" / "models.md"


def row(name: str) -> str:
    """Return the line of a model: name, family, parameters, millions of operations for an image, and what it is."""
    with torch.device("meta"):
        model = create(name)
    counts = complexity(model)
    aliases = "".join(f" (also `{alias}`)" for alias, target in ALIASES.items() if target == name)
    summary = find(name).summary.rstrip(".") + aliases
    cells = [f"`{name}`", f"`{type(model).__name__}`", f"{counts.parameters:,}", f"{counts.macs / 1e6:,.2f}", summary]
    return f"| {' | '.join(cells)} |"


def with_models(page: str) -> str:
    """Return the page with its table of models as the registry has them now."""
    header = "| model | family | parameters | MACs (M) | what it is |\n|---|---|---:|---:|---|"
    rows = [row(name) for name in list_models() if name not in ALIASES]
    return fill(page, "models", "models", "\n".join([header, *rows]))


def main() -> None:
    """Write the table."""
    PAGE.write_text(with_models(PAGE.read_text()))
    print(f"written to docs/{PAGE.name}")


if __name__ == "__main__":
    main()
