"""Augmentation and ZCA against torchvision and scikit-learn: `python -m benchmarks.data [--root IMAGE_FOLDER]`.

Both sides give whitened float32 batches of 512 and have two workers or two threads; they take turns in one run.
The images are random pixels of CIFAR-10's size, which cost the same, unless `--root` names an image folder.
Needs `pip install -e '.[bench]'`.
"""

import argparse
import os
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision import transforms

from benchmarks.measure import copy_gbytes, gemm_gflops, machine, markdown, peak_mb
from benchmarks.usual import MEAN, STD, PILImages
from cvcc_zoo.data import ImageDataModule, Whitening
from cvcc_zoo.data.augment import augment, make_augmentations
from cvcc_zoo.data.draws import Draws
from cvcc_zoo.data.loader import TensorLoader
from cvcc_zoo.timing import alternate, seconds

BATCH = 512
HEAVY: list[Any] = ["standard", "ColorJitter", {"name": "GaussianBlur"}, {"name": "Cutout", "size": 16}]


def usual(images: Tensor, *, heavy: bool) -> Callable[[], float]:
    """Return images per second of torchvision's transforms on PIL images, in a DataLoader with two running workers."""
    colours = [transforms.ColorJitter(0.2, 0.2, 0.2, 0.05), transforms.GaussianBlur(3, (0.1, 2.0))] if heavy else []
    erase = [transforms.RandomErasing(1.0, (0.25, 0.25), (1.0, 1.0), value=0.5)] if heavy else []
    chain = [
        transforms.RandomCrop(32, padding=4),
        transforms.RandomHorizontalFlip(),
        *colours,
        transforms.ToTensor(),
        *erase,
        transforms.Normalize(MEAN, STD),
    ]
    loader = DataLoader(
        PILImages(images, torch.zeros(len(images)), transforms.Compose(chain)),
        BATCH,
        shuffle=True,
        num_workers=2,
        persistent_workers=True,
    )

    def run() -> float:
        start = time.perf_counter()
        count = sum(len(x) for x, _ in loader)
        return count / (time.perf_counter() - start)

    run()

    return run


def ours(images: Tensor, chosen: Any, *, compiled: bool = False) -> Callable[[], float]:
    """Return images per second of TensorLoader, augmentation and whitening in one process."""
    augmentations = make_augmentations(chosen)
    whitening = Whitening("standardize").fit(images)
    labels = torch.zeros(len(images), dtype=torch.int64)
    loader = TensorLoader(images, labels, torch.arange(len(images)), BATCH, shuffle_seed=0)

    def change(images: Tensor, labels: Tensor, draws: Draws) -> Tensor:
        x: Tensor = whitening(augment(augmentations, images, labels, draws, 10)[0])
        return x

    if compiled:
        change = torch.compile(change)

    def run() -> float:
        start, count = time.perf_counter(), 0
        for batch in loader:
            x = change(batch.images, batch.labels, Draws(0, 0, batch.samples))
            assert x.dtype == torch.float32
            count += len(x)
        return count / (time.perf_counter() - start)

    run()
    return run


def fit_zca(side: str, images: Tensor) -> tuple[float, float, float]:
    """Fit, and return seconds, the memory beyond the data in MB, and the error of the whitening."""
    images.amax()  # the pages of shared memory count once they were read
    if side == "cvcc_zoo":
        before = peak_mb(os.getpid())
        whitening = Whitening("zca")
        took = seconds(lambda: whitening.fit(images))
        extra = peak_mb(os.getpid()) - before
        parts = (whitening(part).flatten(1) for part in torch.split(images, 5000))
    else:
        from sklearn.decomposition import PCA

        _, solver, dtype = side.split()
        x = images.flatten(1).numpy().astype(dtype)
        x /= 255
        before = peak_mb(os.getpid())
        pca = PCA(whiten=True, svd_solver=solver)
        took = seconds(lambda: pca.fit(x))
        extra = peak_mb(os.getpid()) - before
        parts = (torch.from_numpy(pca.transform(x[i : i + 5000])) for i in range(0, len(x), 5000))
    return took, extra, whiteness(parts)


def whiteness(parts: Iterable[Tensor]) -> float:
    """Return the largest difference between the covariance of whitened images (N, D) and the identity."""
    count, products = 0, torch.zeros(1)
    for part in parts:
        count, products = count + len(part), products + part.double().T @ part.double()
    return float((products / count - torch.eye(len(products))).abs().max())


def zca(side: str, images: Tensor, found: dict[str, dict[str, float]]) -> float:
    """Return the seconds of one fit; put the other measurements into `found`."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:  # its peak memory is that of one fit
        took, extra, error = pool.submit(fit_zca, side, images).result()
    found[side] = {"extra_mb": extra, "covariance_error": error}
    return took


def pipelines(images: Tensor, repeats: int) -> list[list[str]]:
    """Return the rows of the two pipelines."""
    rows = []
    for name, chosen, heavy, target in (
        ("crop + flip + standardize", "standard", False, "8x, 20x compiled"),
        ("the same + colour jitter with hue + blur + cutout", HEAVY, True, "12x"),
    ):
        rates = alternate(
            {
                "torchvision": usual(images[: 40 * BATCH], heavy=heavy),
                "cvcc_zoo": ours(images[: 80 * BATCH], chosen),
                "compiled": ours(images[: 80 * BATCH], chosen, compiled=True),
            },
            repeats,
        )
        for side in ("cvcc_zoo", "compiled"):
            ratio = rates[side] / rates["torchvision"]
            ours_, theirs = f"{rates[side]:,.0f} images/s", f"{rates['torchvision']:,.0f} images/s"
            rows.append([f"{name}{' (torch.compile)' * (side == 'compiled')}", ours_, theirs, f"{ratio:.1f}x", target])
    return rows


FITS = {
    "scikit-learn covariance_eigh float32": "1.5x, under 400 MB",
    "scikit-learn covariance_eigh float64": "",
    "scikit-learn full float32": "6x, under 400 MB",
}


def fits(images: Tensor, repeats: int) -> list[list[str]]:
    """Return the rows of the ZCA fit."""
    found: dict[str, dict[str, float]] = {}
    sides = ("cvcc_zoo", *FITS)
    took = alternate({side: lambda side=side: zca(side, images, found) for side in sides}, repeats)  # type: ignore[misc]

    def text(side: str) -> str:
        result = found[side]
        return f"{took[side]:.1f} s, {result['extra_mb']:.0f} MB, error {result['covariance_error']:.0e}"

    shape = f"{len(images):,} x {images[0].numel():,}"
    return [
        [
            f"ZCA fit, {shape}, against {side}",
            text("cvcc_zoo"),
            text(side),
            f"{took[side] / took['cvcc_zoo']:.1f}x",
            target,
        ]
        for side, target in FITS.items()
    ]


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", help="image folder with CIFAR-10")
    parser.add_argument("--only", choices=("pipelines", "zca"))
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(2)
    if options.root:
        images = ImageDataModule("folder", options.root, validation=0).training_images()[0].clone()
    else:
        images = torch.randint(0, 256, (50_000, 3, 32, 32), dtype=torch.uint8)
    rows: list[list[str]] = []
    limits = f"float32 products {gemm_gflops():.0f} GFLOP/s, copies {copy_gbytes():.0f} GB/s"
    if options.only != "zca":
        rows += pipelines(images, options.repeats)
    if options.only != "pipelines":
        rows += fits(images, max(1, options.repeats // 2))
    print(f"{machine()}; {limits}\n")
    print(markdown(["what", "cvcc_zoo", "the other", "ratio", "target"], rows))


if __name__ == "__main__":
    main()
