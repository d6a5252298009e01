"""The page docs/performance.md: a table for each machine, what is not measured yet, and what makes the package fast."""

import importlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.measure import markdown
from benchmarks.report import HEADER, Row, draw_curves, draw_ratios

CPU, CUDA = "cpu", "cuda"
Content = Mapping[str, Sequence[Mapping[str, Any]]]
"""The numbers of each place, a topic or one of its lines: those of each machine where it was measured."""
TOPICS: dict[str, tuple[str, ...]] = {
    "training": (CPU,),
    "gpu_training": (CUDA,),
    "lightning_cost": (CPU,),
    "network_share": (CPU, CUDA),
    "step_parts": (CPU,),
    "winograd": (CPU,),
    "accuracy_time": (CPU, CUDA),
    "inference": (CPU,),
    "startup": (CPU,),
    "memory": (CPU,),
    "growth": (CPU,),
}
"""Each topic is a module with a function `measure`; its devices are those on which it is measured."""
DATA, TIMM = "--dataset=folder --root=IMAGES", "pytorch-image-models/train.py"
STEP_TESTS = "pytest tests/test_gpu.py tests/test_gpu_steps.py -k 'graphs_of_steps or wait'"
STEP_GRAPHS = f"{STEP_TESTS}\npython -m benchmarks.gpu_steps {DATA}"
UNITS = {"float32 products": "GFLOP/s", "bfloat16 products": "TFLOP/s", "copies": "GB/s"}
HEADLINES = {
    "training": ("training on a CPU", "the usual script"),
    "gpu_training": ("training on a GPU", "the usual script and timm's"),
    "inference": ("evaluation and exported models on a CPU", "PyTorch's eager mode"),
}
"""Topics whose ratios stand at the top of the page: what is compared, and with what."""
QUICK = """Absolute times depend on the machine and on its other work, so compare the ratios. In a checkout, this prints
those of your own machine in five minutes, or more with a GPU, on the included images (`--dataset=folder --root=IMAGES`
takes others):

```
python -m benchmarks.run --quick
```"""
REASONS = """## What makes it fast

By default:

- **Images** stay bytes in one tensor, mapped from a file. A whole batch is gathered, augmented and whitened at once in
  the training process; there are no worker processes that decode or copy. On a GPU, several batches are augmented at
  once; with MixUp or CutMix only one, and TrivialAugment or RandAugment beside them waits for the GPU in each step.
- **channels_last** for convolutional networks, and **fused optimizers** ([optimizers](optimizers.md)).
- **Freed memory** is kept for the next step. By default glibc returns blocks of megabytes to the system and requests
  them again in every step. `cvcc-zoo` does this itself; in Python, call `keep_freed_memory()` after
  `from cvcc_zoo.cli.allocation import keep_freed_memory`. If you have set `MALLOC_TRIM_THRESHOLD_`,
  `MALLOC_MMAP_THRESHOLD_`, `GLIBC_TUNABLES` or `LD_PRELOAD`, nothing changes.
- **Gradients** are freed after a step, not after the next forward pass, which would fragment the freed memory.
- **Metrics** are summed on the device, and a row is logged only every few steps.
- **Evaluation** folds norms into convolutions.
- **Winograd's algorithm** ([Lavin & Gray](https://arxiv.org/abs/1509.09308)) computes 3x3 convolutions of training
  steps with stride 1 and about 70 channels or more with a quarter of the multiplications, in float32. `cvcc-zoo fit`
  and `train-zoo` choose it on a CPU that has AVX2 but not AVX-512, as many laptops do, with up to four threads: it uses
  memory more, which threads share, and was measured with one and with two. It rounds differently (about five digits
  agree), and `summary.json` says whether a run used it (`winograd`). `--trainer.callbacks+=Winograd` turns it on
  elsewhere, and `--trainer.callbacks+=Winograd --trainer.callbacks.enabled=false` turns it off; in Python, call
  `Trainer(callbacks=[Winograd()])` after `from cvcc_zoo.runs import Winograd`.
- **At the start**, modules are imported only when they are first used, triton only with an accelerator, and garbage
  collection is off.

If you choose it:

- **bfloat16**, `--trainer.precision=bf16-mixed`, pays off on a GPU and on processors with fast bfloat16 instructions,
  such as an Intel Xeon with AMX. Where these instructions are missing, it is slower than float32: convolutions take
  1.7 times as long in a virtual machine that hides them, and nine times as long on an AMD EPYC that has AVX2 alone.
  So `cvcc-zoo train-zoo` times one before it chooses, and `cvcc-zoo fit` prints a line if your choice is slow.
- **Compiling**, `--trainer.callbacks+=Compile`. On a GPU `cvcc-zoo train-zoo` does so, and replays the kernels as CUDA
  graphs: the forward and backward pass of wrn16_4 with 128 images in bfloat16 took 22.7 ms, 9.3 ms compiled, and 4.9
  ms with graphs (on an H200 that ran eight other processes). On a CPU a step of resnet20 takes 118 ms instead of 153,
  after 20 s of compilation, which 570 steps make up for. It needs a C++ compiler and rounds differently.

**Precisions.** `--trainer.precision` is one of Lightning's: `32-true` (the default), `64-true`, `bf16-mixed`,
`16-mixed`, `bf16-true` and `16-true` (in which Adam's `eps` is 0, so that a step may not be finite). Whatever is
chosen, whitening and the sums of ridge have at least 32 bits. Mixed precision does not round the steps of the
optimizers, also where your own `training_step` calls `optimizer.step()` (manual optimization). A run that is resumed in
another precision, with `--allow_changes=true`, goes on in it, and `summary.json` names both."""

RATIOS = """The package is compared with the alternative that a user would pick, or with a limit; both sides took turns
in one run. The figure shows the ratios on CPUs; the tables, one for each machine, have all numbers.

All comparisons now keep freed memory on both sides, as `cvcc-zoo` does. Two kinds of numbers on this page are older: in
"The cost of Lightning" the bare loop did not keep it, and the exported models did so only if other topics were measured
before them.

![Ratios](pictures/performance.png)"""


def place(topic: str, device: str, line: str = "") -> str:
    """Return the key of a topic's numbers: those of its second device have a suffix, and so have single lines."""
    suffix = "_gpu" if device != TOPICS[topic][0] else ""
    return f"{topic}{suffix}/{line}" if line else f"{topic}{suffix}"


def lines(topic: str) -> list[str]:
    """Return the names of the lines that are measured by commands of their own, or one empty name."""
    found = getattr(importlib.import_module(f"benchmarks.{topic}"), "LINES", None)
    return [line.name for line in found] if found else [""]


def texts() -> dict[str, str]:
    """Return the title and description of each topic: the docstring of its module."""
    return {topic: importlib.import_module(f"benchmarks.{topic}").__doc__ or "" for topic in TOPICS}


def title(topic: str) -> str:
    """Return the title of a topic."""
    return texts()[topic].partition("\n")[0].rstrip(".")


def places() -> dict[str, tuple[str, str, str]]:
    """Return the topic, device and line of each place, in the order of the page."""
    found: dict[str, tuple[str, str, str]] = {}
    for topic, devices in TOPICS.items():
        for device in devices:
            found |= {place(topic, device, line): (topic, device, line) for line in lines(topic)}
    return found


def command(topic: str, line: str = "") -> str:
    """Return the command that measures a topic, or one of its lines."""
    if not line:
        return f"python -m benchmarks.run --only={topic} {DATA}"
    return f"python -m benchmarks.run --only={topic} --lines={line} --repeats=1 --timm_train={TIMM} {DATA}"


def page(content: Content) -> str:
    """Return the page in Markdown."""
    parts = ["# Speed", _headline(content), QUICK, "## Results", RATIOS]
    found = [(key, each) for key in places() for each in content.get(key, [])]
    processors_first = sorted(found, key=lambda pair: places()[pair[0]][1] == CUDA)
    for machine in dict.fromkeys(each["machine"] for _, each in processors_first):
        here = [(key, each) for key, each in found if each["machine"] == machine]
        parts += [f"### {machine}", f"*{caption(each for _, each in here)}*", _table(here)]
    parts += [*_not_measured(content), REASONS, "## How it is measured"]
    for topic, text in texts().items():
        parts += [f"### {title(topic)}", text.partition("\n")[2].strip()]
        for key in (each for each in content if each.partition("/")[0] in (topic, f"{topic}_gpu")):
            for number, each in enumerate(content[key]):
                if each["tables"] or each["curves"]:
                    parts.append(f"*{each['machine']}; {caption([each])}*")
                parts += [markdown(table[0], table[1:]) for table in map(_filled, each["tables"])]
                if each["curves"]:
                    parts.append(f"![{title(topic)}](pictures/{_picture(key, number)})")
    return "\n\n".join(parts) + "\n"


def _picture(key: str, number: int) -> str:
    """Return the file of the curves that were measured on a machine, the first or a later one."""
    return f"{key}-{number + 1}.png" if number else f"{key}.png"


def _headline(content: Content) -> str:
    """Return a list of the smallest and largest ratios of the topics at the top of the page."""
    found = []
    for topic, (what, against) in HEADLINES.items():
        of_topic = [each for key, here in content.items() if key.partition("/")[0] == topic for each in here]
        rows = [Row(**row) for each in of_topic for row in each["rows"]]
        if ratios := [row.ratio for row in rows if row.ratio is not None]:
            found.append(f"- {what}: {min(ratios):.1f} to {max(ratios):.1f} times as fast as {against}")
    return "\n".join(found)


def caption(measured: Iterable[Mapping[str, Any]]) -> str:
    """Return the versions, the limits of the machine while it was measured, and the dates."""
    found = list(measured)
    versions = list(dict.fromkeys(each["versions"] for each in found))
    versions = [each for each in versions if not any(each != other and each in other for other in versions)]
    dates = sorted(date for each in found for date in each["date"].split(" to "))
    limits = {key: [each["limits"][key] for each in found if key in each["limits"]] for key in UNITS}
    shown = [f"{key} {_range(values)} {UNITS[key]}" for key, values in limits.items() if values]
    return "; ".join(
        [*versions, *([", ".join(shown)] if shown else []), " to ".join(dict.fromkeys([dates[0], dates[-1]]))]
    )


def _range(values: list[float]) -> str:
    least, most = (f"{each:,.0f}" for each in (min(values), max(values)))
    return least if least == most else f"{least} to {most}"


def _table(here: Iterable[tuple[str, Mapping[str, Any]]]) -> str:
    """Return the table of a machine: the rows of each topic below its name."""
    rows: list[list[str]] = []
    for key, found in here:
        heading = [f"**{title(places()[key][0])}**", *[""] * (len(HEADER) - 1)]
        rows += [*([] if heading in rows else [heading]), *(Row(**row).cells() for row in found["rows"])]
    return markdown(HEADER, rows)


def _filled(table: list[list[str]]) -> list[list[str]]:
    """Return a table without the columns that are empty below their header."""
    kept = [column for column in zip(*table, strict=True) if any(column[1:])]
    return [list(row) for row in zip(*kept, strict=True)]


def _not_measured(content: Content) -> list[str]:
    """Return the list of what is not measured, with the commands."""
    items = []
    for key, (topic, device, line) in places().items():
        nowhere = [set(each["missing"]) for each in content.get(key, [])]
        what = [f"{title(topic)}: {each}" for each in sorted(set.intersection(*nowhere))] if nowhere else [title(topic)]
        on_gpu = " on a GPU" if CPU in TOPICS[topic] and device == CUDA else ""
        items += [f"# {each}{on_gpu}{f', {line}' if line else ''}\n{command(topic, line)}" for each in what]
    items.append(f"# Whole training steps as CUDA graphs (StepGraph), tested to compute the same\n{STEP_GRAPHS}")
    return [
        "## Not measured yet",
        "`IMAGES` is a folder with CIFAR-10's original images, and `pytorch-image-models` a checkout of [timm's\n"
        "repository](https://github.com/huggingface/pytorch-image-models).",
        "\n".join(["```", *items, "```"]),
    ]


def write_page(content: Content, docs: Path) -> None:
    """Write the page and its figures, from the numbers alone."""
    pictures = docs / "pictures"
    pictures.mkdir(exist_ok=True)
    (docs / "performance.md").write_text(page(content))
    on_cpus = [key for key, (_, device, _) in places().items() if device == CPU]
    draw_ratios([each for key in on_cpus for each in content.get(key, [])], pictures / "performance.png")
    for key, here in content.items():
        for number, each in enumerate(here):
            if each["curves"]:
                draw_curves(each["curves"], pictures / _picture(key, number))
