"""Images per second of training runs: of the whole process, and in steady state, which is after the first epoch."""

import statistics
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import astuple, dataclass
from pathlib import Path

from benchmarks.sides import Ended, Settings, fit, usual
from cvcc_zoo.data import ImageDataModule


@dataclass(frozen=True)
class Length:
    """The length of a training run, the same on all sides."""

    batch_size: int
    epochs: int
    batches: int
    """Number of full batches in an epoch."""
    limited: bool
    """True if an epoch does not visit all images."""

    @property
    def images(self) -> int:
        """The number of images of the whole run, each counted as often as it is visited."""
        return self.epochs * self.batches * self.batch_size


@dataclass(frozen=True)
class Rates:
    """What a training run reached."""

    whole: float
    """Images per second from the start of the process to its end."""
    steady: float
    """Images per second of all epochs but the first."""
    peak_mb: float
    """Peak resident memory of the process."""


def count_images(settings: Settings) -> int:
    """Return the number of training images, after they were decoded and saved for the runs to come."""
    return len(ImageDataModule(settings.dataset, settings.root, validation=0).training_images()[2])


def length(available: int, wanted: int, batch_size: int) -> Length:
    """Return a length of about `wanted` images in at least two epochs. Raises ValueError if there is no full batch."""
    if available < batch_size:
        raise ValueError(f"there are {available} training images, fewer than a batch of {batch_size}; use more images")
    epochs = max(2, round(wanted / available))
    whole, needed = available // batch_size, max(1, wanted // (epochs * batch_size))
    return Length(batch_size, epochs, min(whole, needed), limited=needed < whole)


def rates(of: Length, ended: Ended, steady_seconds: float) -> Rates:
    """Return the rates of a run that has ended."""
    return Rates(of.images / ended.seconds, of.images * (1 - 1 / of.epochs) / steady_seconds, ended.peak_mb)


def ours(settings: Settings, model: str, of: Length, *options: str) -> Rates:
    """Run `cvcc-zoo fit` with its defaults and these options."""
    words = [f"--model={model}", f"--data.batch_size={of.batch_size}", f"--trainer.max_epochs={of.epochs}", *options]
    words += [f"--trainer.limit_train_batches={of.batches}"] if of.limited else []
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "seconds"
        clock = ["--trainer.callbacks+=benchmarks.clocks.Steady", f"--trainer.callbacks.file={file}"]
        return rates(of, fit(settings, *words, *clock), float(file.read_text()))


def theirs(settings: Settings, model: str, of: Length, script: str = "usual") -> Rates:
    """Run the usual script."""
    words = [f"--model={model}", f"--batch_size={of.batch_size}", f"--epochs={of.epochs}"]
    words.append(f"--batches={of.batches}")  # without a smaller last batch, which `ours` leaves out
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "seconds"
        return rates(of, usual(settings, *words, f"--steady={file}", script=script), float(file.read_text()))


def in_turns(sides: Mapping[str, Callable[[], Rates]], repeats: int) -> dict[str, Rates]:
    """Return the medians of each side, run `repeats` times, taking turns."""
    found: dict[str, list[Rates]] = {name: [] for name in sides}
    for _ in range(repeats):
        for name, run in sides.items():
            found[name].append(run())
    return {name: _median(runs) for name, runs in found.items()}


def _median(runs: list[Rates]) -> Rates:
    return Rates(*(statistics.median(values) for values in zip(*map(astuple, runs), strict=True)))
