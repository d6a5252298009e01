"""The network's share of a training step.

A step of `cvcc-zoo fit --model=resnet20` in batches of 512, without the start and compilation, against the forward and
backward pass of the same network alone, on a batch in memory. Images that are not of 3x32x32 are converted. The rest is
augmentation, whitening, the optimizer, metrics and Lightning. On a GPU, both sides compute in bfloat16 and are
compiled. There the host is the limit: on an H200, kernels were busy for 3.9 ms of a step, which took 6.5 ms, and the
network alone took 5.2 (torch's profiler).
"""

from collections.abc import Callable
from typing import Any

import torch

from benchmarks.measure import training_pass
from benchmarks.report import Found, Row
from benchmarks.sides import Settings, fit, fit_here
from cvcc_zoo.timing import alternate, default_device, seconds_each
from cvcc_zoo.zoo.creation import create

BATCH = 512
SHARE = 85.0  # percent
STEPS = {"cpu": (10, 30), "cuda": (200, 1000)}


def network_alone(device: str, name: str = "resnet20", batch: int = BATCH) -> Callable[[], object]:
    """Return a function that runs the forward and backward pass of a batch."""
    model: Any = create(name, whitening="none")
    network = model.network.to(device).train()
    images = torch.randn(batch, 3, 32, 32).to(device).contiguous(memory_format=torch.channels_last)
    run = torch.compile(network, mode="reduce-overhead") if device == "cuda" else network  # as Compile does
    work = training_pass(network, images, half=device == "cuda", run=run)
    for _ in range(3):
        work()
    return work


def measure(settings: Settings) -> Found:
    """Return one row."""
    device = default_device()
    few, many = (1, 3) if settings.small else STEPS[device]
    options = ["--model=resnet20", f"--data.batch_size={BATCH}", "--data.in_channels=3", "--data.image_size=32"]

    def took(steps: int) -> float:
        words = [*options, f"--trainer.max_steps={steps}", "--trainer.max_epochs=-1"]
        if device == "cpu":
            return float(fit(settings, *words).summary["train_seconds"])
        words += [*settings.options(), "--data.validation=0", "--trainer.precision=bf16-mixed"]
        return fit_here(words)[1]

    if device == "cuda":
        took(few)  # it compiles
    work = network_alone(device)
    sides = {
        "fit": lambda: max(1e-6, (took(many) - took(few)) / (many - few)),
        "network": lambda: seconds_each(work, 0.1 if settings.small else 3.0),
    }
    found = alternate(sides, settings.repeats)
    share = 100 * found["network"] / found["fit"]
    rates = f"fit {BATCH / found['fit']:,.0f} images/s, the network alone {BATCH / found['network']:,.0f}"
    return Found([Row(f"resnet20 on {device}: the network's share of a step", "%", share, rates, limit=SHARE)])
