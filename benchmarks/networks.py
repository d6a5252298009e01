"""Ten networks of timm beside ours on CIFAR-10, trained in the same way: the table in docs/networks.md.

`python -m benchmarks.networks --dataset=folder --root=IMAGES` trains those that have no result yet, with `cvcc-zoo fit`
in `networks/`, and writes each result to docs/networks.json as soon as it is there. A network whose training was
interrupted is resumed. Without `--root` only the table is written again. All have the same optimizer, schedule,
augmentations and number of epochs, tuned for none of them; accuracies are those of the last epoch on all test images.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from benchmarks.generated import fill
from cvcc_zoo import create
from cvcc_zoo.zoo.catalogue import complexity

DOCS = Path(__file__).parents[1] / "docs"
PAGE, RESULTS = DOCS / "networks.md", DOCS / "networks.json"
RUNS = Path("networks")
EPOCHS = 2
OURS = ("resnet20", "cnn_fast")
THEIRS = (
    "regnetx_002", "regnety_002", "mobilenetv4_conv_small", "mobilenetv3_small_100", "mobilenetv2_100", "ghostnet_100",
    "efficientnet_b0", "resnet18", "convnext_atto", "vit_tiny_patch16_224",
)  # fmt: skip
NETWORKS: dict[str, dict[str, Any]] = {name: {} for name in OURS} | {
    f"timm.{name}": {"stem": "small"} for name in THEIRS
}
"""Names, and options of the model."""
RECIPE = (
    "--optimizer=AdamW", "--optimizer.lr=0.002", "--optimizer.weight_decay=0.05", "--lr_scheduler=OneCycleLR",
    "--data.batch_size=128", "--data.augmentations=standard", "--data.validation=0",
)  # fmt: skip


def words_of(name: str, data: Mapping[str, str | None], epochs: int, more: list[str]) -> list[str]:
    """Return the arguments of `cvcc-zoo` that train a network, or resume its training."""
    run = RUNS / name
    if (run / "last.ckpt").is_file():
        return ["fit", f"--config={run / 'config.yaml'}", f"--run={run}", "--ckpt_path=last"]
    options = [f"--model.{option}={value}" for option, value in NETWORKS[name].items()]
    given = [f"--data.{option}={value}" for option, value in data.items() if value]
    trainer = [f"--trainer.max_epochs={epochs}", f"--run={run}"]
    return ["fit", f"--model={name}", *options, *given, *RECIPE, *trainer, *more]


def table(results: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the table: parameters and operations of all networks, and accuracies and times of those trained so far."""
    lines = [
        "| network | parameters | MACs (M) | test accuracy | training |",
        "|---|---:|---:|---:|---:|",
    ]
    for name, options in NETWORKS.items():
        with torch.device("meta"):
            counts = complexity(create(name, **options))
        found = results.get(name)
        accuracy = f"{100 * found['test_accuracy']:.2f} %" if found else "-"
        took = f"{found['train_seconds'] / 60:.0f} min" if found else "-"
        lines.append(f"| `{name}` | {counts.parameters:,} | {counts.macs / 1e6:,.2f} | {accuracy} | {took} |")
    return "\n".join(lines)


def read_results() -> dict[str, Any]:
    """Return the results so far by name of the network; empty before the first one."""
    return json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}


def with_table(page: str) -> str:
    """Return the page with its table as the results are now."""
    return fill(page, "networks", "networks", table(read_results()))


def main() -> None:
    """Train the networks that have no result, and write results and table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", default="cifar10")
    parser.add_argument("--root", default="")
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--only", nargs="*", choices=[*NETWORKS], default=[*NETWORKS])
    given, more = parser.parse_known_args()  # the others are options of `cvcc-zoo fit`
    results = read_results()
    for name in given.only if given.root else ():
        if name in results:
            continue
        words = words_of(name, {"dataset": given.dataset, "root": given.root}, given.epochs, more)
        subprocess.run([sys.executable, "-m", "cvcc_zoo", *words], check=True)
        summary = json.loads((RUNS / name / "summary.json").read_text())
        results[name] = {key: summary[key] for key in ("test_accuracy", "train_seconds")}
        RESULTS.write_text(json.dumps(results, indent=2) + "\n")
        PAGE.write_text(with_table(PAGE.read_text()))
    PAGE.write_text(with_table(PAGE.read_text()))
    print(f"written to docs/{PAGE.name}")


if __name__ == "__main__":
    main()
