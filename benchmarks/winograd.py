"""Training steps with Winograd's convolutions, against torch's, in float32 on a CPU.

The forward and backward pass of batches of 64 to 500 random images of 32x32 pixels, channels last. Winograd's algorithm
is used for the convolutions for which it is expected to be at least 1.5 times as fast with one thread: 3x3, stride 1,
one group, from about 70 channels in and out. cnn_fast trains without its stem, as its recipe does. `cvcc-zoo fit`
and `train-zoo` choose it with up to four threads on processors with AVX2 and without AVX-512; elsewhere,
`--trainer.callbacks+=Winograd` turns it on, and in Python `Trainer(callbacks=[Winograd()])` after
`from cvcc_zoo.runs import Winograd`.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from benchmarks.measure import training_pass
from benchmarks.report import Found, Row
from benchmarks.sides import Settings
from cvcc_zoo.runs.winograd import replace, restore
from cvcc_zoo.timing import alternate, seconds
from cvcc_zoo.zoo.creation import create

BATCHES = {"cnn": 128, "cnn_fast": 500, "wrn16_4": 64, "resnet18": 64}


def compare(name: str, batch: int, repeats: int) -> Row:
    """Return images per second of both sides."""
    network: Any = create(name).network
    network.to(memory_format=torch.channels_last).train()
    if name == "cnn_fast":
        network.stem.requires_grad_(False)
    images = torch.randn(batch, 3, 32, 32).to(memory_format=torch.channels_last)
    step = training_pass(network, images, half=False)

    def timed(prepare: Callable[[nn.Module], object]) -> Callable[[], float]:
        def run() -> float:
            prepare(network)
            return seconds(step)

        return run

    sides = {"winograd": timed(replace), "torch": timed(restore)}
    alternate(sides, 1)  # the first steps allocate memory
    found = alternate(sides, repeats)
    what = f"forward and backward pass of {name}"
    return Row(what, "images/s", batch / found["winograd"], "torch's convolutions", batch / found["torch"])


def measure(settings: Settings) -> Found:
    """Return a row for each network."""
    rows = [compare(name, 2 if settings.small else batch, settings.repeats) for name, batch in BATCHES.items()]
    return Found(rows)
