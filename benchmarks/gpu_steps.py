"""Milliseconds of a training step on a GPU: ordinary, compiled, as one CUDA graph, and both.

    python -m benchmarks.gpu_steps --dataset=folder --root=IMAGES

Each row is a network and a way to train it with `cvcc-zoo fit` in bfloat16. The time of a step is the mean over one
training run without its first steps, which compile and record. The share is the time of the forward and backward pass
of the network alone, compiled and as a CUDA graph, divided by that of the step. All rows take about two minutes on one
GPU. `--small` takes a few steps of small batches; on a CPU, it needs `--ways ordinary Compile` too.
"""

import argparse
from collections.abc import Callable, Sequence

import torch
from lightning import Callback

from benchmarks.clocks import Steps
from benchmarks.measure import machine, markdown
from benchmarks.network_share import network_alone
from benchmarks.sides import BARE, Settings
from cvcc_zoo.cli.lightning import build
from cvcc_zoo.runs import Compile, StepGraph
from cvcc_zoo.timing import default_device, seconds_each

BATCHES = {"resnet20": 512, "cnn_fast": 1000}
OPTIMIZERS = {"resnet20": "SGD", "cnn_fast": "Muon"}
WAYS: dict[str, Callable[[], list[Callback]]] = {
    "ordinary": list,
    "Compile": lambda: [Compile()],
    "StepGraph": lambda: [StepGraph()],
    "Compile and StepGraph": lambda: [Compile(), StepGraph()],
}
STEPS = 60, 260
"""First and last step that are measured."""


def milliseconds(settings: Settings, model: str, way: str, batch: int, steps: tuple[int, int]) -> float:
    """Return the milliseconds of a step of `cvcc-zoo fit`."""
    words = [f"--model={model}", f"--data.batch_size={batch}", f"--optimizer={OPTIMIZERS[model]}", *BARE]
    words += [*settings.options(), "--data.in_channels=3", "--data.image_size=32", "--data.validation=0"]
    words += ["--lr_scheduler=OneCycle", f"--trainer.max_steps={steps[1]}", "--trainer.max_epochs=-1"]
    words += ["--trainer.precision=bf16-mixed"] if torch.cuda.is_available() else ["--trainer.accelerator=cpu"]
    built, clock = build(words), Steps(*steps)
    built.trainer.callbacks += [*WAYS[way](), clock]  # type: ignore[attr-defined]
    built.trainer.fit(built.model, built.datamodule)
    return clock.milliseconds


def main(args: Sequence[str] | None = None) -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="fashion-mini")
    parser.add_argument("--root", help="folder of the images")
    parser.add_argument("--models", nargs="+", choices=BATCHES, default=list(BATCHES))
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--small", action="store_true", help="a few steps of small batches")
    options = parser.parse_args(args)
    graphs = [way for way in options.ways if "StepGraph" in way]
    if not torch.cuda.is_available() and (graphs or not options.small):
        parser.error("gpu_steps needs a GPU that torch can use; add --small --ways ordinary Compile to try the CPU")
    settings = Settings(options.dataset, options.root, 1, torch.get_num_threads(), options.small)
    device = default_device()
    rows = []
    for model in options.models:
        batch, steps = (4, (5, 7)) if options.small else (BATCHES[model], STEPS)
        alone = 1000 * seconds_each(network_alone(device, model, batch), 0.01 if options.small else 2.0)
        for way in options.ways:
            step = milliseconds(settings, model, way, batch, steps)
            rows.append([model, f"{batch:,}", way, f"{step:.2f}", f"{alone:.2f}", f"{100 * alone / step:.1f} %"])
    print(f"{machine(device)}\n")
    print(markdown(["network", "images", "way", "ms a step", "ms of the network alone", "share"], rows))


if __name__ == "__main__":
    main()
