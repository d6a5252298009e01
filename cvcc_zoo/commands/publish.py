"""`cvcc-zoo publish RUN`: the weights of a run folder become a file and a card, measured from that file."""

import dataclasses
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
import yaml
from jsonargparse import auto_cli
from rich.console import Console

from cvcc_zoo.data import ImageDataModule
from cvcc_zoo.parsing import CommandParser
from cvcc_zoo.runs.measure import measure
from cvcc_zoo.weights import folders, read, write
from cvcc_zoo.zoo import load, make_card

TRAINING = ("epochs", "steps", "train_seconds", "images_per_second", "hardware", "precision", "seed", "split_seed",
            "val_accuracy", "last_epoch", "tested", "commit", "versions", "finished")  # fmt: skip
DTYPES = {"float16": torch.float16, "float32": torch.float32}


def publish(
    run: str,
    tag: str = "",
    dataset: str = "",
    license: str = "MIT",
    folder: str = "",
    repeats: list[str] | None = None,
    dtype: Literal["auto", "float16", "float32"] = "auto",
) -> None:
    """Publish the weights of a run: the best by validation, or the last where nothing was kept for validation.

    The numbers of the card are measured from the published file.

    Args:
        run: The run folder; the data set of its config.yaml must still be there.
        tag: The name of the data set in the name of the weights, like cifar10; by default that of the run.
        dataset: The data set in words, like "CIFAR-10 (JPEG copy)"; by default as in the run.
        license: Licence of the weights.
        folder: Where file and card go; by default $CVCC_ZOO_HOME, where create() finds them.
        repeats: Folders of runs of the same recipe with other seeds, whose test accuracies the card has too.
        dtype: Of the file: float16, float32, or auto, which is float16 unless that costs one correct test image.

    """
    source = Path(run).expanduser()
    config, summary = run_of(source)
    data, model = ImageDataModule(**config["data"]), load(source)
    training = {"recipe": recipe(config), "images": summary["images"]["train"]}
    training |= {name: summary.get(name) for name in TRAINING}
    if repeats:
        training["test_accuracy_of_seeds"] = of_seeds(config, summary, [Path(path).expanduser() for path in repeats])
    card = make_card(
        model,
        tag or summary["dataset"],
        data.classes,
        dataset=dataset or summary["dataset"],
        measured={},
        training=training,
        license=license,
    )
    tensors = model.state_dict()
    with tempfile.TemporaryDirectory() as trial:
        numbers = {
            name: measure(load(write(Path(trial), card, tensors, dtype=each)), data) for name, each in DTYPES.items()
        }
    half, full = (numbers[name]["correct"] for name in DTYPES)
    if dtype == "auto":
        dtype = "float16" if half >= full else "float32"
    card = dataclasses.replace(card, measured=numbers[dtype])
    target = write(Path(folder).expanduser() if folder else folders()[1], card, tensors, dtype=DTYPES[dtype])
    kept, _ = read(target)
    Console(soft_wrap=True).print(
        f"{kept.name}: test accuracy {100 * kept.measured['test_accuracy']:.2f} % of {kept.measured['test_images']:,} "
        f"images, {kept.size / 1e6:.2f} MB as {dtype} "
        f"(correct in half precision: {half:,}, in full: {full:,})\nwritten to {target}"
    )
    if summary["test_accuracy"] is None:
        Console(soft_wrap=True).print(f"{source} was trained with --test=false: its test images were tested only now")


def run_of(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Config and summary of a run. Raises FileNotFoundError for one that has not ended."""
    for name in ("config.yaml", "summary.json"):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder} is not the folder of a run that has ended: it has no {name}")
    return yaml.safe_load((folder / "config.yaml").read_text()), json.loads((folder / "summary.json").read_text())


def of_seeds(config: dict[str, Any], summary: dict[str, Any], repeats: Sequence[Path]) -> dict[str, float]:
    """Test accuracies, fractions in [0, 1], by seed.

    Raises ValueError for runs of another recipe, of a same seed, or that were not tested.
    """
    found = {str(summary["seed"]): summary["test_accuracy"]}
    for path in repeats:
        other, result = run_of(path)
        if recipe(other) != recipe(config) or str(result["seed"]) in found:
            raise ValueError(f"{path} is no repeat of the run: it has another recipe, or the same seed")
        found[str(result["seed"])] = result["test_accuracy"]
    if untested := [seed for seed, accuracy in found.items() if accuracy is None]:
        raise ValueError(
            f"the runs of the seeds {', '.join(untested)} were trained with --test=false and have no test accuracy; "
            "test them: `cvcc-zoo fit --config=RUN/config.yaml --ckpt_path=last --test=true`, or leave out --repeats"
        )
    return found


def recipe(config: dict[str, Any]) -> dict[str, Any]:
    """What of a run's config made the weights; folders of a machine are left out."""
    data = {key: value for key, value in config["data"].items() if key != "root"}
    trainer = {k: v for k, v in config["trainer"].items() if v is not None and k != "default_root_dir"}
    keys = ("model", "weights", "optimizer", "lr_scheduler")
    return {**{key: config[key] for key in keys if config.get(key) is not None}, "data": data, "trainer": trainer}


def main(args: Sequence[str]) -> int:
    """Run the command."""
    auto_cli(publish, args=list(args), parser_class=CommandParser, prog="cvcc-zoo publish")
    return 0
