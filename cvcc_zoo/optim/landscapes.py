"""The lecture's three landscapes to watch optimizers on: a bowl, a saddle, and a rarely seen coordinate.

`BOWL`     (x^2 + 50 y^2) / 2: 50 times steeper in y. Gradient descent gives y_t = (1 - 50 lr)^t y_0, so it zigzags for
           1/50 < lr < 2/50 and diverges above
`SADDLE`   (x^2 - y^2) / 2 from y = 1e-6: the way out is nearly flat at first. Gradient descent leaves after
           ln(1e6) / ln(1 + lr) steps
`SELDOM`   -x in every step and -y in every 25th: adaptive methods make up for part of the rarity
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer

from cvcc_zoo.plots.figure import Figure

MakeOptimizer = Callable[[list[Tensor]], Optimizer]
SELDOM_EVERY = 25


@dataclass(frozen=True)
class Landscape:
    """The `value` of a point (..., 2) at a step, the starting point, and the part of the plane and steps to draw."""

    title: str
    value: Callable[[Tensor, int], Tensor]
    start: tuple[float, float]
    x: tuple[float, float]
    y: tuple[float, float]
    steps: int = 100


def _seldom(w: Tensor, step: int) -> Tensor:
    return -w[..., 0] - w[..., 1] * (step % SELDOM_EVERY == 0)


BOWL = Landscape(
    "bowl: (x² + 50 y²) / 2",
    lambda w, step: (w[..., 0] ** 2 + 50 * w[..., 1] ** 2) / 2,
    (-4.0, 0.6),
    (-4.5, 1),
    (-1, 1),
    steps=40,
)
SADDLE = Landscape(
    "saddle: (x² - y²) / 2",
    lambda w, step: (w[..., 0] ** 2 - w[..., 1] ** 2) / 2,
    (-1.0, 1e-6),
    (-1.2, 0.6),
    (-0.5, 1),
    steps=60,
)
SELDOM = Landscape(f"x in every step, y in every {SELDOM_EVERY}th", _seldom, (0.0, 0.0), (0, 10), (0, 3), steps=1000)


def trajectory(make: MakeOptimizer, landscape: Landscape, steps: int) -> Tensor:
    """Return the points (steps + 1, 2), float64, that an optimizer visits; `make` builds it from parameters."""
    w = torch.tensor(landscape.start, dtype=torch.float64, requires_grad=True)
    optimizer = make([w])
    points = [w.detach().clone()]
    for step in range(steps):
        optimizer.zero_grad()
        landscape.value(w, step).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        points.append(w.detach().clone())
    return torch.stack(points)


def plot_trajectories(
    optimizers: Mapping[str, MakeOptimizer], landscapes: Sequence[Landscape] = (BOWL, SADDLE, SELDOM)
) -> Figure:
    """Draw the paths of optimizers, given by name, over the contours of landscapes, one panel each."""
    figure = Figure(figsize=(5 * len(landscapes) + 1.5, 4.2), layout="constrained")
    for axes, landscape in zip(figure.subplots(1, len(landscapes), squeeze=False)[0], landscapes, strict=True):
        x, y = np.meshgrid(np.linspace(*landscape.x, 200), np.linspace(*landscape.y, 200))
        heights = landscape.value(torch.from_numpy(np.stack([x, y], -1)), 0).numpy()
        axes.contour(x, y, heights, levels=25, cmap="Greys", alpha=0.5, linewidths=0.8)
        for name, make in optimizers.items():
            path = trajectory(make, landscape, landscape.steps).numpy()
            marker = "." if landscape.steps <= 100 else ""
            axes.plot(path[:, 0], path[:, 1], marker=marker, markersize=4, linewidth=1.2, label=name)
        axes.plot(*landscape.start, marker="o", color="black")
        title = f"{landscape.title}, {landscape.steps} steps"
        axes.set(xlim=landscape.x, ylim=landscape.y, xlabel="x", ylabel="y", title=title)
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside right upper")
    return figure
