"""A linear classifier by random draws, by random steps, and by its gradient: `python -m benchmarks.random_search`.

All three may look at the training loss equally often. The first two are those of
https://cs231n.github.io/optimization-1/. Writes a picture of the losses, and of the weights as images.
"""

import argparse
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor

from benchmarks.measure import machine, markdown
from cvcc_zoo.data import ImageDataModule
from cvcc_zoo.plots import plot_images, stretch

GRADIENT = 3
"""Evaluations that a gradient counts for: the loss, and about twice its operations for the derivative."""

# By the training loss after 600 evaluations, each against about a third and three times of it.
SCALE = 0.03  # standard deviation of drawn weights
STEP = 0.003  # the same of a random step; 0.01 is as good
RATE = 0.1  # of gradient descent; 0.3 ends lower still

Loss = Callable[[Tensor], Tensor]
"""Weights to a scalar."""


@dataclass
class Search:
    """The best weights that were found, and the lowest loss so far after each evaluation, or after each gradient."""

    weights: Tensor
    evaluations: list[int]
    losses: list[float]


def draw(loss: Loss, start: Tensor, budget: int, generator: torch.Generator) -> Search:
    """Draw all weights again each time, and keep the best."""
    found = Search(start, [], [])
    for count in range(1, budget + 1):
        _keep_if_better(found, loss, SCALE * torch.randn(start.shape, generator=generator), count)
    return found


def step_at_random(loss: Loss, start: Tensor, budget: int, generator: torch.Generator) -> Search:
    """Add a random step to the best weights, which is kept if the loss falls."""
    found = Search(start, [1], [float(loss(start))])
    for count in range(2, budget + 1):
        step = STEP * torch.randn(start.shape, generator=generator)
        _keep_if_better(found, loss, found.weights + step, count)
    return found


def descend(loss: Loss, start: Tensor, budget: int) -> Search:
    """Run gradient descent with as many gradients as the budget allows."""
    found, weights = Search(start, [], []), start
    slope = torch.func.grad_and_value(loss)
    for count in range(GRADIENT, budget + 1, GRADIENT):
        gradient, value = slope(weights)
        found.evaluations.append(count)
        found.losses.append(float(value))
        found.weights, weights = weights, weights - RATE * gradient
    return found


def _keep_if_better(found: Search, loss: Loss, weights: Tensor, count: int) -> None:
    value, best = float(loss(weights)), found.losses[-1] if found.losses else math.inf
    if value < best:
        found.weights = weights
    found.evaluations.append(count)
    found.losses.append(min(value, best))


def images_and_labels(count: int) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Return evenly spread training images and all test images, (N, 785) with a one at the end, with their labels.

    Every pixel has mean 0 and standard deviation 1 over the training images.
    """
    data = ImageDataModule("fashion-mini", validation=0)
    images, labels, _ = data.training_images()
    chosen = torch.arange(count) * len(labels) // count
    test = data.dataset.load("test")
    assert test is not None
    mean, std = _pixels(images[chosen]).mean(0), _pixels(images[chosen]).std(0).clamp(min=0.01)

    def rows(pictures: Tensor) -> Tensor:
        return F.pad((_pixels(pictures) - mean) / std, (0, 1), value=1.0)

    return (rows(images[chosen]), labels[chosen]), (rows(test.images), test.labels)


def _pixels(images: Tensor) -> Tensor:
    return images.flatten(1).float() / 255


def plot(found: dict[str, Search]) -> Figure:
    """Plot the losses of each search, and the weights of each class as an image of 28x28 pixels."""
    figure = Figure(figsize=(12, 4.2), layout="constrained")
    losses, *rows = figure.subplot_mosaic("AAB;AAC;AAD").values()
    for name, search in found.items():
        losses.plot(search.evaluations, search.losses, label=name)
    losses.axhline(math.log(10), color="grey", linestyle="--", linewidth=1, label="all classes equally likely")
    losses.set(xlabel="evaluations of the loss", title="training loss", ylim=(0, None), xscale="log")
    losses.grid(alpha=0.3)
    losses.legend()
    for axes, (name, search) in zip(rows, found.items(), strict=True):
        templates = search.weights[:-1].T.reshape(1, -1, 28, 28, 1).numpy()
        plot_images(axes, stretch(templates), f"weights: {name}")
    return figure


def main() -> None:
    """Search, print the table and write the figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--evaluations", type=int, default=600)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--picture", type=Path, default=Path("docs/pictures/random_search.png"))
    options = parser.parse_args()
    train, test = images_and_labels(options.images)
    start, budget = torch.zeros(785, 10), options.evaluations

    def loss(weights: Tensor) -> Tensor:
        return F.cross_entropy(train[0] @ weights, train[1])

    def accuracy(weights: Tensor) -> float:
        return float(((test[0] @ weights).argmax(1) == test[1]).float().mean())

    searches: dict[str, Callable[[int], Search]] = {
        "all weights drawn": lambda seed: draw(loss, start, budget, torch.Generator().manual_seed(seed)),
        "random steps": lambda seed: step_at_random(loss, start, budget, torch.Generator().manual_seed(seed)),
        "gradient descent": lambda seed: descend(loss, start, budget),  # has nothing random
    }
    shown, rows = {}, []
    for name, search in searches.items():
        since = time.perf_counter()
        found = [search(seed) for seed in range(1 if name == "gradient descent" else options.seeds)]
        took = time.perf_counter() - since
        shown[name] = found[0]
        figures = [[each.losses[-1] for each in found], [100 * accuracy(each.weights) for each in found]]
        means = [f"{statistics.mean(v):.2f}" + (f" ± {statistics.stdev(v):.2f}" if len(v) > 1 else "") for v in figures]
        rows.append([name, means[0], f"{means[1]} %", f"{took / len(found):.1f} s"])
    print(f"{machine()}; {options.images:,} images of fashion-mini, {options.seeds} seeds;")
    print(f"{budget:,} evaluations of the loss, where a gradient counts as {GRADIENT}\n")
    print(markdown(["weights of a linear classifier", "training loss", "test accuracy", "time"], rows))
    plot(shown).savefig(options.picture, dpi=100)


if __name__ == "__main__":
    main()
