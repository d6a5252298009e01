"""Remedies for imbalanced classes, on fewer and fewer images of each class: `python -m benchmarks.imbalance`.

Trains a fully connected network on fashion-mini with 600 images of the first class, 30 of the last, and exponentially
many between (https://arxiv.org/abs/1901.05555, section 5.1), and prints the accuracies on its balanced test images.
"""

import statistics
import tempfile
from pathlib import Path
from typing import Any

from lightning import Trainer, seed_everything
from PIL import Image

import cvcc_zoo
from benchmarks.measure import markdown

LARGEST, SMALLEST = 600, 30
SEEDS, EPOCHS = 3, 15
BALANCED = {"name": "cross_entropy", "class_weights": "balanced"}
REMEDIES: dict[str, dict[str, Any]] = {
    "none": {},
    "`--data.sampler=balanced`": {"sampler": "balanced"},
    "`--model.loss.class_weights=balanced`": {"loss": BALANCED},
    "`--model.loss=focal`": {"loss": "focal"},
}


def write_images(root: Path) -> None:
    """Write the imbalanced training images and all test images of fashion-mini as a folder."""
    data = cvcc_zoo.ImageDataModule("fashion-mini", validation=0)
    images, labels, _ = data.training_images()
    data.setup("test")
    test = data.test_dataloader()
    for label, name in enumerate(data.classes):
        count = round(LARGEST * (SMALLEST / LARGEST) ** (label / (len(data.classes) - 1)))
        for split, chosen in (("train", images[labels == label][:count]), ("test", test.images[test.labels == label])):
            folder = root / split / f"{label} {name.replace('/', '-')}"
            folder.mkdir(parents=True)
            for number, image in enumerate(chosen[:, 0]):
                Image.fromarray(image.numpy()).save(folder / f"{number:03}.png")


def accuracies(root: Path, seed: int, sampler: str = "shuffle", loss: Any = "cross_entropy") -> list[float]:
    """Train, and return the test accuracy in percent of all classes, the three largest and the three smallest."""
    seed_everything(seed, verbose=False)
    data = cvcc_zoo.ImageDataModule(root=str(root), batch_size=64, validation=0, sampler=sampler, seed=seed)
    options: dict[str, Any] = {"hidden": [256], "optimizer": {"name": "AdamW", "lr": 0.002, "weight_decay": 0.05}}
    shape: dict[str, Any] = {
        "num_classes": data.num_classes,
        "in_channels": data.in_channels,
        "image_size": data.image_size,
    }
    model = cvcc_zoo.create("fcnn", loss=loss, lr_scheduler="OneCycle", **shape, **options)
    quiet: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = Trainer(max_epochs=EPOCHS, enable_checkpointing=False, **quiet)
    trainer.fit(model, data)
    trainer.test(model, data, verbose=False)
    each = 100 * model.test_confusion.diagonal() / model.test_confusion.sum(1)
    return [part.mean().item() for part in (each, each[:3], each[-3:])]


def main() -> None:
    """Print the table of docs/datasets.md: means and standard deviations over the seeds."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        write_images(Path(folder))
        for name, remedy in REMEDIES.items():
            found = zip(*(accuracies(Path(folder), seed, **remedy) for seed in range(SEEDS)), strict=True)
            rows.append([name, *(f"{statistics.mean(each):.1f} ± {statistics.stdev(each):.1f} %" for each in found)])
    print(markdown(["remedy", "all classes", "three largest", "three smallest"], rows))


if __name__ == "__main__":
    main()
