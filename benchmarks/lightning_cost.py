"""The cost of Lightning, metrics, logging and the progress bar.

`cvcc-zoo fit --model=linear` with its defaults on a terminal against a bare loop over the same batches, augmentation,
whitening, loss and fused optimizer. The smallest model shows the difference best; the cost is the same for all models.
It is work of Python, so a processor that is slow in the bare loop is as slow here.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

from benchmarks.rates import count_images
from benchmarks.report import Found, Row
from benchmarks.sides import Settings, fit
from benchmarks.training import BATCH
from cvcc_zoo.data import ImageDataModule
from cvcc_zoo.data.augment import augment
from cvcc_zoo.data.draws import Draws
from cvcc_zoo.optim import make_optimizer
from cvcc_zoo.timing import alternate
from cvcc_zoo.zoo.creation import create

EPOCHS, STEPS = 4, 1_560  # at least; the first step is slower than the others
AUGMENTATIONS = ("none", "standard")
MOST = 0.8  # ms


def bare(data: ImageDataModule, epochs: int, batches: int | None) -> float:
    """Return milliseconds per step of a bare training loop."""
    data.training_images()
    model: Any = create(
        "linear", num_classes=data.num_classes, in_channels=data.in_channels, image_size=data.image_size
    )
    model.whitening = data.fit_whitening()
    optimizer = make_optimizer(model.hparams["optimizer"], model)
    model.train()
    loader, steps = data.train_dataloader(), 0
    assert loader.sampler is not None
    start = time.perf_counter()
    for epoch in range(epochs):
        loader.sampler.set_epoch(epoch)
        for number, batch in enumerate(loader):
            if number == batches:
                break
            draws = Draws(0, epoch, batch.samples)
            images, labels = augment(data.augmentations, batch.images, batch.labels, draws, data.num_classes)
            loss = model.loss(model(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            steps += 1
    return 1e3 * (time.perf_counter() - start) / steps


def steps_of_an_epoch(settings: Settings) -> int:
    """Return the number of full batches in an epoch, or 1."""
    return max(1, count_images(settings) // BATCH)


def measure(settings: Settings) -> Found:
    """Return a row without augmentation and one with crop and flip."""
    batches, epochs = (20, EPOCHS) if settings.small else (None, max(EPOCHS, -(-STEPS // steps_of_an_epoch(settings))))
    rows = []
    for augmentations in AUGMENTATIONS:
        data = ImageDataModule(settings.dataset, settings.root, validation=0, augmentations=augmentations)
        options = ["--model=linear", f"--data.augmentations={augmentations}", f"--trainer.max_epochs={epochs}"]
        options += [f"--trainer.limit_train_batches={batches}"] if batches else []

        def ours(options: list[str] = options) -> float:
            summary = fit(settings, *options).summary
            return float(1e3 * summary["train_seconds"] / summary["steps"])

        sides: dict[str, Callable[[], float]] = {"ours": ours, "bare": partial(bare, data, epochs, batches)}
        found = alternate(sides, settings.repeats)
        what = f"cost of a step beside its work, augmentations: {augmentations}"
        rows.append(
            Row(
                what,
                "ms",
                found["ours"] - found["bare"],
                f"a step takes {found['ours']:.2f} ms, in a bare loop {found['bare']:.2f} ms",
                limit=MOST,
            )
        )
    return Found(rows)
