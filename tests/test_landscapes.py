"""What is known exactly about optimizers on the lecture's three landscapes."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from torch.optim import SGD, Adagrad, Adam, RMSprop

from cvcc_zoo.optim.landscapes import BOWL, SADDLE, SELDOM, Landscape, MakeOptimizer, plot_trajectories, trajectory

LR = 0.1


@pytest.mark.parametrize(("lr", "turns"), [(0.01, 0), (0.019, 0), (0.021, 40), (0.035, 40)])
def test_gradient_descent_zigzags_in_the_bowl_beyond_a_rate_of_a_50th(lr: float, turns: int) -> None:
    y = trajectory(partial(SGD, lr=lr), BOWL, 40)[:, 1]
    assert torch.allclose(y, 0.6 * (1 - 50 * lr) ** torch.arange(41, dtype=torch.float64), atol=1e-14)
    assert (y[1:] * y[:-1] < 0).sum() == turns


def test_it_diverges_beyond_two_50ths() -> None:
    assert trajectory(partial(SGD, lr=0.041), BOWL, 200)[-1, 1].abs() > 1e4  # 1.05^200 times 0.6


def escape(make: MakeOptimizer) -> int:
    return int((trajectory(make, SADDLE, 400)[:, 1].abs() < 1).sum())


def test_gradient_descent_leaves_the_saddle_when_it_should() -> None:
    assert escape(partial(SGD, lr=LR)) == math.ceil(math.log(1e6) / math.log(1 + LR)) == 145


def test_momentum_leaves_it_earlier_and_adaptive_methods_almost_at_once() -> None:
    steps = [
        escape(partial(SGD, lr=LR, momentum=0.9)),
        escape(partial(SGD, lr=LR, momentum=0.9, nesterov=True)),
        escape(partial(Adam, lr=LR)),
    ]
    assert 145 > steps[0] > steps[1] > steps[2] and steps[2] < 15


def moved(make: MakeOptimizer) -> float:
    """How much further the coordinate goes that is seen in every step."""
    x, y = trajectory(make, SELDOM, 1000)[-1]
    return float(x / y)


def test_a_seldom_seen_coordinate_lags_25_times_without_and_5_times_with_adaptive_rates() -> None:
    sums = [sum(1 / math.sqrt(t) for t in range(1, count + 1)) for count in (1000, 40)]
    assert moved(partial(SGD, lr=LR)) == pytest.approx(25, abs=1e-9)
    assert moved(partial(Adagrad, lr=LR)) == pytest.approx(sums[0] / sums[1], abs=1e-4)
    assert sums[0] / sums[1] == pytest.approx(5.4848, abs=1e-4)
    assert moved(partial(SGD, lr=LR, momentum=0.9)) > 20
    assert moved(partial(RMSprop, lr=LR)) < 10 and moved(partial(Adam, lr=LR)) < 10


@pytest.mark.parametrize("landscape", [BOWL, SADDLE, SELDOM])
def test_a_picture_shows_the_path_of_each(landscape: Landscape) -> None:
    figure = plot_trajectories(landscape, {"SGD": partial(SGD, lr=0.02), "Adam": partial(Adam, lr=LR)}, 30)
    lines = figure.axes[0].lines
    assert [line.get_label() for line in lines][:2] == ["SGD", "Adam"]
    assert len(np.asarray(lines[0].get_xdata())) == 31
