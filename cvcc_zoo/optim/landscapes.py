"""The lecture's three landscapes, on which optimizers can be watched: a bowl, a saddle, and a coordinate seldom seen.

`BOWL`     (x^2 + 50 y^2) / 2: 50 times steeper in y. Gradient descent gives y_t = (1 - 50 lr)^t y_0, so it zigzags for
           1/50 < lr < 2/50 and diverges above
`SADDLE`   (x^2 - y^2) / 2 from y = 1e-6: the way out is nearly flat at first. Gradient descent is out after
           ln(1e6) / ln(1 + lr) steps
`SELDOM`   -x in every step and -y in every 25th: how far is each moved? Adaptive methods make up for the rarity
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.optim import Optimizer

MakeOptimizer = Callable[[list[Tensor]], Optimizer]
SELDOM_EVERY = 25


@dataclass(frozen=True)
class Landscape:
    """`value` of a point (..., 2) at a step, where it starts, and what part of the plane a picture shows."""

    title: str
    value: Callable[[Tensor, int], Tensor]
    start: tuple[float, float]
    x: tuple[float, float]
    y: tuple[float, float]


def _seldom(w: Tensor, step: int) -> Tensor:
    return -w[..., 0] - w[..., 1] * (step % SELDOM_EVERY == 0)


BOWL = Landscape(
    "bowl: (x² + 50 y²) / 2",
    lambda w, step: (w[..., 0] ** 2 + 50 * w[..., 1] ** 2) / 2,
    (-4.0, 0.6),
    (-4.5, 1),
    (-1, 1),
)
SADDLE = Landscape(
    "saddle: (x² - y²) / 2", lambda w, step: (w[..., 0] ** 2 - w[..., 1] ** 2) / 2, (-1.0, 1e-6), (-1.2, 0.6), (-0.5, 1)
)
SELDOM = Landscape("x often, y seldom", _seldom, (0.0, 0.0), (0, 10), (0, 10))


def trajectory(make: MakeOptimizer, landscape: Landscape, steps: int) -> Tensor:
    """The points (steps + 1, 2), float64, that an optimizer visits: `make` builds it from a list of parameters."""
    w = torch.tensor(landscape.start, dtype=torch.float64, requires_grad=True)
    optimizer = make([w])
    points = [w.detach().clone()]
    for step in range(steps):
        optimizer.zero_grad()
        landscape.value(w, step).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        points.append(w.detach().clone())
    return torch.stack(points)


def plot_trajectories(landscape: Landscape, optimizers: Mapping[str, MakeOptimizer], steps: int) -> Figure:
    """The paths of optimizers, by name, over the contours of a landscape."""
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    x, y = np.meshgrid(np.linspace(*landscape.x, 200), np.linspace(*landscape.y, 200))
    heights = landscape.value(torch.from_numpy(np.stack([x, y], -1)), 0).numpy()
    axes.contour(x, y, heights, levels=25, cmap="Greys", alpha=0.5, linewidths=0.8)
    for name, make in optimizers.items():
        path = trajectory(make, landscape, steps).numpy()
        axes.plot(path[:, 0], path[:, 1], marker=".", markersize=4, linewidth=1.2, label=name)
    axes.plot(*landscape.start, marker="o", color="black")
    axes.set(xlim=landscape.x, ylim=landscape.y, xlabel="x", ylabel="y", title=f"{landscape.title}, {steps} steps")
    axes.legend(loc="upper right")
    return figure
