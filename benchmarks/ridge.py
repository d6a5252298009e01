"""Ridge regression against scikit-learn: `python -m benchmarks.ridge --dataset=folder --root=IMAGE_FOLDER`.

Both sides read the same images (decoded before), standardise their channels and solve the same least squares, in one
process and taking turns. Needs `pip install -e '.[bench]'`.
"""

import argparse
import logging
import warnings
from typing import Any

import numpy as np
import torch
from lightning import Trainer
from sklearn.linear_model import Ridge, RidgeClassifier

from benchmarks.measure import gemm_gflops, machine, markdown
from cvcc_zoo.data import ImageDataModule
from cvcc_zoo.models.linear import Linear
from cvcc_zoo.timing import alternate, seconds
from cvcc_zoo.zoo.creation import create

OURS, TARGET = "cvcc_zoo", 0.7
OTHERS = ("RidgeClassifier float32", "RidgeClassifier float64")


def read(dataset: str, root: str | None) -> ImageDataModule:
    """Return a DataModule that trains on all training images, without augmentation."""
    return ImageDataModule(dataset, root, batch_size=1000, validation=0, augmentations="none")


def fit_ours(data: ImageDataModule, ridge: float) -> Linear:
    """Fit with Lightning, as `cvcc-zoo fit --model=ridge` does."""
    model = create(
        "ridge", ridge=ridge, num_classes=data.num_classes, in_channels=data.in_channels, image_size=data.image_size
    )
    assert isinstance(model, Linear)
    trainer = Trainer(barebones=True, accelerator="cpu")
    trainer.fit(model, data)
    return model


def vectors(data: ImageDataModule, dtype: str) -> tuple[Any, Any]:
    """Return standardised images (N, D) and labels (N,), computed the usual way."""
    images, labels, _ = data.training_images()
    x = images.numpy().astype(dtype)
    x /= 255
    x -= x.mean((0, 2, 3), dtype="float64", keepdims=True).astype(dtype)
    x /= x.std((0, 2, 3), dtype="float64", keepdims=True).astype(dtype)
    return x.reshape(len(x), -1), labels.numpy()


def difference(model: Linear, data: ImageDataModule, ridge: float) -> tuple[float, float]:
    """Return the largest difference from scikit-learn's Ridge in float64, and the largest of its coefficients."""
    x, labels = vectors(data, "float64")
    other = Ridge(alpha=ridge).fit(x, np.eye(data.num_classes)[labels])
    theirs = torch.from_numpy(np.column_stack([other.coef_, other.intercept_]))
    classifier = model.network.fc
    ours = torch.cat([classifier.weight, classifier.bias[:, None]], 1).detach().double()
    return float((ours - theirs).abs().max()), float(theirs.abs().max())


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="cifar10")
    parser.add_argument("--root")
    parser.add_argument("--ridge", type=float, default=3000.0)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    read(options.dataset, options.root).training_images()  # decodes them

    def theirs(dtype: str) -> RidgeClassifier:
        x, labels = vectors(read(options.dataset, options.root), dtype)
        return RidgeClassifier(alpha=options.ridge).fit(x, labels)

    took = alternate(
        {
            OURS: lambda: seconds(lambda: fit_ours(read(options.dataset, options.root), options.ridge)),
            **{name: lambda name=name: seconds(lambda: theirs(name.split()[1])) for name in OTHERS},  # type: ignore[misc]
        },
        options.repeats,
    )
    data = read(options.dataset, options.root)
    differs, largest = difference(fit_ours(data, options.ridge), data, options.ridge)
    shape = f"{len(data.training_images()[0]):,} x {data.in_channels * data.image_size**2 + 1:,}"
    print(f"{machine()}, {options.threads} threads; float32 products {gemm_gflops():.0f} GFLOP/s\n")
    print(
        markdown(
            [f"ridge regression, {shape}", "seconds", "cvcc_zoo / this", "target"],
            [[name, f"{value:.2f}", f"{took[OURS] / value:.2f}", f"{TARGET}"] for name, value in took.items()],
        )
    )
    print(
        f"\nlargest difference of a weight or intercept from scikit-learn's Ridge {differs:.1e}, largest {largest:.2g}"
    )


if __name__ == "__main__":
    main()
