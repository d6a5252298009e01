"""timm's own script train.py on our networks, with the options that a careful user of a GPU would choose.

The script is not in timm's wheel; it is in a checkout of https://github.com/huggingface/pytorch-image-models. Its
option --device-modules imports modules at the start, so it can register our networks in timm.
"""

import re
import shlex
import statistics
import tempfile
from pathlib import Path
from typing import Any

import torch

from benchmarks.rates import Length, Rates
from benchmarks.sides import Settings, run
from benchmarks.usual import NORMALISATION
from cvcc_zoo.data import ImageDataModule

REPOSITORY = "https://github.com/huggingface/pytorch-image-models"
IN_MEMORY = ("cifar10", "cifar100", "mnist", "fashion_mnist")
"""Data sets of torchvision that timm reads under the same names and from the same files."""
LINE = re.compile(r"Train: (\d+) \[\s*(\d+)/(\d+) .*?\(\s*[\d.]+s,\s*([\d.]+)/s\)")
"""A line of its log: the epoch, the step, the number of steps in an epoch, and the mean rate in the epoch so far."""

OPTIONS = """
--scale 0.8 1 --color-jitter 0 --smoothing 0 --train-interpolation bilinear
--amp --amp-dtype bfloat16 --channels-last --workers 8 --pin-mem
--opt adamw --opt-kwargs fused=True --lr 1e-3 --weight-decay 0.01 --warmup-epochs 0
"""


def train(settings: Settings, model: str, of: Length, available: int) -> Rates:
    """Train one of our networks with timm's script; its epochs have all `available` images.

    The script reads a folder of images from the disk, and data sets of torchvision from memory. Raises ValueError for
    other images, and RuntimeError if its log has no rates.
    """
    data = ImageDataModule(settings.dataset, settings.root, validation=0)
    mean, std = NORMALISATION[data.in_channels]
    words = [
        str(settings.timm_train),
        *shlex.split(OPTIONS),
        "--device-modules",
        "cvcc_zoo.integrations.timm",
        "--model",
        f"cvcc_{model}",
    ]
    words += [*source(settings.dataset, settings.root), "--val-split", "", "--num-classes", str(data.num_classes)]
    words += ["--input-size", *map(str, (data.in_channels, data.image_size, data.image_size))]
    words += ["--mean", *map(str, mean), "--std", *map(str, std)]
    words += ["--batch-size", str(of.batch_size), "--epochs", str(of.epochs)]
    words += ["--device", "cuda" if torch.cuda.is_available() else "cpu"]
    with tempfile.TemporaryDirectory() as folder:
        ended = run([*words, "--output", folder], settings.threads)
    images = of.epochs * (available // of.batch_size) * of.batch_size
    return Rates(images / ended.seconds, steady_rate(ended.shown), ended.peak_mb)


def steady_rate(log: str) -> float:
    """Return the images per second of all epochs but the first. Raises RuntimeError if the log does not have them."""
    last: dict[int, float] = {}
    for epoch, _, _, rate in LINE.findall(log):
        last[int(epoch)] = float(rate)  # the last line of an epoch has the mean of all its steps
    if len(last) < 2:
        raise RuntimeError(f"the log of timm's train.py has no rates of a second epoch; it ends with:\n{log[-2000:]}")
    return statistics.harmonic_mean([rate for epoch, rate in last.items() if epoch > min(last)])


def source(dataset: str, root: str | None) -> list[str]:
    """Return the options that name the images. Raises ValueError for images that timm's script cannot read."""
    name = dataset.lower().replace("-", "_")
    if name in IN_MEMORY:
        files: Any = ImageDataModule(name, root).dataset  # a TorchvisionDataset
        return ["--dataset", f"torch/{name}", "--data-dir", str(files.root), "--train-split", "train"]
    if name == "folder" and root and (Path(root) / "train").is_dir():
        return ["--data-dir", root, "--train-split", "train"]
    raise ValueError(
        f"timm's train.py cannot read {dataset}{f' in {root}' if root else ''}; use --dataset=folder with a --root "
        f"that has a folder train, or --dataset={', '.join(IN_MEMORY)}, or leave out --timm_train"
    )
