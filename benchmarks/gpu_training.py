"""Training on a GPU.

`cvcc-zoo fit` in bfloat16, with and without `Compile`, against the script that a careful user would write
(`benchmarks/usual_gpu.py`: torchvision's transforms on PIL images, a DataLoader with eight workers, channels_last,
bfloat16, fused AdamW) and against timm's `train.py` on the same network, with the same number of workers and in the
same precision. The steady state is all epochs but the first; the whole process includes the start and compilation. The
script of timm is not in its package: `--timm_train` is its path in a checkout of
[timm's repository](https://github.com/huggingface/pytorch-image-models).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from benchmarks.rates import Rates, count_images, in_turns, length, ours, theirs
from benchmarks.report import Found, Row
from benchmarks.sides import Settings
from benchmarks.timm_script import train

TARGETS = {"resnet20": 8.0, "resnet18": 3.0, "resnext29_32x4d": 1.5}
"""How many times as fast as the usual script each model should be trained."""
IMAGES = {"resnet20": 150_000, "resnet18": 100_000, "resnext29_32x4d": 100_000}
"""The images of a run, so that a line takes less than three minutes on an H200."""
BATCH_SIZES = (128, 512)
PRECISION, COMPILE = "--trainer.precision=bf16-mixed", "--trainer.callbacks+=Compile"
SMALL = 8  # images in a batch


@dataclass(frozen=True)
class Line:
    """A model and a batch size, measured by one command."""

    model: str
    batch_size: int

    @property
    def name(self) -> str:
        """The name on the command line."""
        return f"{self.model}-{self.batch_size}"


LINES = tuple(Line(model, batch_size) for model in TARGETS for batch_size in BATCH_SIZES)


def compare(line: Line, settings: Settings, available: int) -> list[Row]:
    """Return the rows of a line."""
    model = line.model
    wanted, batch_size = (4 * SMALL, SMALL) if settings.small else (IMAGES[model], line.batch_size)
    of = length(available, wanted, batch_size)
    sides: dict[str, Callable[[], Rates]] = {
        "plain": partial(ours, settings, model, of, PRECISION),
        "compiled": partial(ours, settings, model, of, PRECISION, COMPILE),
        "usual": partial(theirs, settings, model, of, "usual_gpu"),
    }
    if settings.timm_train:
        sides["timm"] = partial(train, settings, model, of, available)
    found = in_turns(sides, settings.repeats)
    rows = []
    for side, how in {"compiled": "compiled", "plain": "not compiled"}.items():
        what, against = f"{model}, batches of {of.batch_size}, {how}", "the usual script"
        least = TARGETS[model] if side == "compiled" else None
        mine, usual = found[side], found["usual"]
        rows.append(Row(f"{what}: steady state", "images/s", mine.steady, against, usual.steady, least=least))
        rows.append(Row(f"{what}: whole process", "images/s", mine.whole, against, usual.whole))
        if "timm" in found:
            timm = found["timm"].steady
            rows.append(Row(f"{what}: steady state", "images/s", mine.steady, "timm's train.py", timm))
    return rows


def chosen(settings: Settings) -> list[Line]:
    """Return the chosen lines."""
    return [line for line in LINES if not settings.lines or line.name in settings.lines]


def measure(settings: Settings) -> Found:
    """Return the rows of the chosen lines."""
    available = count_images(settings)
    rows = [row for line in chosen(settings) for row in compare(line, settings, available)]
    return Found(rows, missing=[] if settings.timm_train else ["timm's train.py"])
