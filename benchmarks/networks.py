"""Ten networks of timm beside ours on CIFAR-10, trained in the same way: the table in docs/networks.md.

`python -m benchmarks.networks --dataset=folder --root=IMAGES` trains those that have no result yet with `cvcc-zoo fit`,
in run folders under `networks/`, and writes each result to docs/networks.json as soon as it is measured. Training that
was interrupted is resumed. Without `--root` nothing is trained, and the table is written again. All networks have the
same optimizer, schedule, augmentations and number of epochs, tuned for none of them; accuracies are those after the
last epoch on all test images. `--speed` measures forward and backward passes of all networks, in turns on one thread.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.generated import fill
from benchmarks.measure import training_pass
from cvcc_zoo import create
from cvcc_zoo.timing import alternate, fast_precision, seconds
from cvcc_zoo.zoo.catalogue import complexity

DOCS = Path(__file__).parents[1] / "docs"
PAGE, RESULTS = DOCS / "networks.md", DOCS / "networks.json"
RUNS = Path("networks")
EPOCHS, BATCH, TURNS = 2, 128, 3
OURS: dict[str, dict[str, Any]] = {"resnet20": {}, "cnn_fast": {"init": "kaiming"}}
THEIRS = (
    "regnetx_002", "regnety_002", "mobilenetv4_conv_small", "mobilenetv3_small_100", "mobilenetv2_100", "ghostnet_100",
    "efficientnet_b0", "resnet18", "convnext_atto", "vit_tiny_patch16_224",
)  # fmt: skip
NETWORKS = OURS | {f"timm.{name}": {"stem": "small"} for name in THEIRS}
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
        "| network | parameters | MACs (M) | test accuracy | images/s |",
        "|---|---:|---:|---:|---:|",
    ]
    for name, options in NETWORKS.items():
        with torch.device("meta"):
            counts = complexity(create(name, **options))
        found = results.get(name, {})
        accuracy = f"{100 * found['test_accuracy']:.2f} %" if "test_accuracy" in found else "-"
        speed = f"{found['images_per_second']:.0f}" if "images_per_second" in found else "-"
        lines.append(f"| `{name}` | {counts.parameters:,} | {counts.macs / 1e6:,.2f} | {accuracy} | {speed} |")
    return "\n".join(lines)


def speeds() -> dict[str, float]:
    """Return the images a second of forward and backward passes, in the faster precision of the processor."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    images = torch.randn(BATCH, 3, 32, 32).to(memory_format=torch.channels_last)
    half = fast_precision() == "bf16-mixed"

    def side(name: str) -> Callable[[], float]:
        network: Any = create(name, **NETWORKS[name]).network
        network.to(memory_format=torch.channels_last).train()
        step = training_pass(network, images, half=half)
        step()  # the first one is slower
        return partial(seconds, step)

    found = alternate({name: side(name) for name in NETWORKS}, TURNS)
    torch.set_num_threads(threads)
    return {name: BATCH / took for name, took in found.items()}


def read_results() -> dict[str, Any]:
    """Return the results so far by name of the network; empty before the first one."""
    return json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}


def write(results: Mapping[str, Any]) -> None:
    """Write the results, and the page with their table."""
    RESULTS.write_text(json.dumps(results, indent=2) + "\n")
    PAGE.write_text(with_table(PAGE.read_text()))


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
    parser.add_argument("--speed", action="store_true")
    given, more = parser.parse_known_args()  # the others are options of `cvcc-zoo fit`
    results = read_results()
    for name in given.only if given.root else ():
        if "test_accuracy" in results.get(name, {}):
            continue
        words = words_of(name, {"dataset": given.dataset, "root": given.root}, given.epochs, more)
        subprocess.run([sys.executable, "-m", "cvcc_zoo", *words], check=True)
        summary = json.loads((RUNS / name / "summary.json").read_text())
        results.setdefault(name, {})["test_accuracy"] = summary["test_accuracy"]
        write(results)
    if given.speed:
        for name, rate in speeds().items():
            results.setdefault(name, {})["images_per_second"] = round(rate, 1)
    write(results)
    print(f"written to docs/{PAGE.name}")


if __name__ == "__main__":
    main()
