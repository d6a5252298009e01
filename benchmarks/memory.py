"""Memory of a training run.

The peak resident memory of the process `cvcc-zoo fit --model=resnet20`, in 10^6 bytes, in float32 with batches of 128
on all images. The two workers of the usual script, which hold copies of the images, are not counted. About 720 MB are
the libraries, 150 MB the images of CIFAR-10, which are mapped from the file in the cache and shared by all processes,
and a step needs 300 MB. The resident part of CUDA's libraries, which are not used here, depends on the system's file
cache: 100 MB more or less.
"""

from benchmarks.report import Found, Row
from benchmarks.sides import Settings, fit, usual
from cvcc_zoo.timing import alternate

BATCHES = 100  # after ten it does not grow any more
LIMIT = 1500.0


def measure(settings: Settings) -> Found:
    """Return a row that compares with the usual script."""
    batches = 2 if settings.small else BATCHES
    ours = ["--model=resnet20", "--trainer.max_epochs=1", f"--trainer.limit_train_batches={batches}"]
    theirs = ["--model=resnet20", "--epochs=1", f"--batches={batches}"]
    found = alternate(
        {"ours": lambda: fit(settings, *ours).peak_mb, "usual": lambda: usual(settings, *theirs).peak_mb},
        settings.repeats,
    )
    return Found(
        [Row("fit resnet20, peak memory", "MB", found["ours"], "the usual script", found["usual"], limit=LIMIT)]
    )
