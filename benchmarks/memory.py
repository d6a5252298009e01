"""Memory of a training.

The most that the process of `cvcc-zoo fit --model=resnet20` has resident, in float32 with batches of 128 on all images,
in 10^6 bytes. The usual script's two workers, which hold copies of the images, are not counted. About 720 MB are the
libraries, among them torch._dynamo, which torchvision imports though nothing is compiled, and torchmetrics imports
torchvision; the 77 of triton, which torch._dynamo looks for, are spared where there is no accelerator. 150 MB are the
images of CIFAR-10, which are mapped from the file in the cache and shared by all processes. What a step needs and keeps
is 300 MB. It was 60 more while gradients were let go after the next forward pass, as Lightning does: glibc cannot join
the free memory to both sides of what is still there. How much of CUDA's libraries, which nothing here uses, is resident
depends on what the system has cached of their files: 100 MB more or less.
"""

from benchmarks.report import Found, Row
from benchmarks.sides import Settings, fit, usual
from cvcc_zoo.timing import alternate

BATCHES = 100  # after ten it does not grow any more
LIMIT = 1500.0


def measure(settings: Settings) -> Found:
    """A row beside the usual script."""
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
