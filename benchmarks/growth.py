"""Growth.

Microseconds per image of a training step as the data set, the number of classes or the image size grows. For the data
set, a linear classifier is trained on random pixels in a memory-mapped file, in a new order each epoch, with crop and
flip; its step is mostly reading images. For classes and image size, resnet20 is trained in batches of 64.
"""

import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.report import Found, Row
from benchmarks.sides import Settings
from cvcc_zoo.data.augment import augment, make_augmentations
from cvcc_zoo.data.draws import Draws
from cvcc_zoo.data.loader import TensorLoader
from cvcc_zoo.optim import make_optimizer
from cvcc_zoo.timing import alternate, seconds
from cvcc_zoo.zoo.catalogue import complexity
from cvcc_zoo.zoo.creation import create

COUNTS = (1_000, 10_000, 100_000, 1_000_000)
CLASSES = (10, 100, 1_000)
SIZES = (32, 64, 128)
VISITED = 100_000  # images that a run trains on at least
BATCH = 64
FLAT = 1.15  # times the time per image, at most


def mapped(path: Path, count: int) -> Tensor:
    """Return random uint8 images (count, 3, 32, 32), mapped from a file."""
    pixels = np.memmap(path, np.uint8, "w+", shape=(count, 3, 32, 32))
    generator = np.random.default_rng(0)
    for start in range(0, count, 10_000):
        part = pixels[start : start + 10_000]
        part[:] = generator.integers(0, 256, part.shape, np.uint8)
    return torch.from_numpy(pixels)


def trained(images: Tensor, visited: int) -> float:
    """Return microseconds per image, over whole epochs with at least `visited` images."""
    labels = torch.arange(len(images)) % 10
    loader = TensorLoader(images, labels, torch.arange(len(images)), 128, shuffle_seed=0)
    model: Any = create("linear")
    model.whitening.fit(images[:1000])
    optimizer, augmentations = make_optimizer({"name": "AdamW"}, model), make_augmentations("standard")
    epochs = -(-visited // len(images))
    assert loader.sampler is not None

    def work() -> None:
        for epoch in range(epochs):
            loader.sampler.set_epoch(epoch)  # type: ignore[union-attr]
            for batch in loader:
                draws = Draws(0, epoch, batch.samples)
                changed, classes = augment(augmentations, batch.images, batch.labels, draws, 10)
                optimizer.zero_grad()
                model.loss(model(changed), classes).backward()
                optimizer.step()

    return 1e6 * seconds(work) / (epochs * len(loader) * loader.batch_size)


def step(num_classes: int, size: int) -> Any:
    """Return microseconds per image of a training step of resnet20."""
    model: Any = create("resnet20", num_classes=num_classes, image_size=size, whitening="none")
    model.train()
    optimizer = make_optimizer({"name": "AdamW"}, model)
    images = torch.randint(0, 256, (BATCH, 3, size, size), dtype=torch.uint8)
    labels = torch.arange(BATCH) % num_classes

    def work() -> None:
        optimizer.zero_grad()
        model.loss(model(images), labels).backward()
        optimizer.step()

    work()
    repeats = max(1, 20 * 32**2 // size**2)

    def work_again() -> None:
        for _ in range(repeats):
            work()

    return lambda: 1e6 * seconds(work_again) / (repeats * BATCH)


def measure(settings: Settings) -> Found:
    """Return the rows for the largest against the smallest, and the curves."""
    counts, visited = ((1_000, 2_000), 1_000) if settings.small else (COUNTS, VISITED)
    with tempfile.TemporaryDirectory() as folder:
        files = {count: mapped(Path(folder) / str(count), count) for count in counts}
        by_count = alternate(
            {str(count): partial(trained, images, visited) for count, images in files.items()},
            settings.repeats,
        )
        del files
    by_class = alternate({str(classes): step(classes, 32) for classes in CLASSES}, settings.repeats)
    sizes = SIZES[:2] if settings.small else SIZES
    by_size = alternate({str(size): step(10, size) for size in sizes}, settings.repeats)
    macs = [complexity(create("resnet20", image_size=size)).macs for size in sizes]
    images, classes, pixels = (list(found.values()) for found in (by_count, by_class, by_size))
    expected = [pixels[0] * each / macs[0] for each in macs]
    unit = "times the time per image"
    return Found(
        [
            Row(f"{counts[-1]:,} images against {counts[1]:,}", unit, images[-1] / images[1], limit=FLAT),
            Row(f"resnet20, {CLASSES[-1]:,} classes against {CLASSES[0]}", unit, classes[-1] / classes[0], limit=FLAT),
            Row(
                f"resnet20, {sizes[-1]} pixels against {sizes[0]}, beyond {macs[-1] / macs[0]:.0f}x the operations",
                unit,
                pixels[-1] / expected[-1],
                limit=FLAT,
            ),
        ],
        curves={
            "images": {"x": list(map(float, counts)), "measured": images},
            "classes": {"x": list(map(float, CLASSES)), "measured": classes},
            "pixels": {"x": list(map(float, sizes)), "measured": pixels, "expected": expected},
        },
    )
