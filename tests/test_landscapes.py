"""What is known exactly about optimizers on the lecture's three landscapes."""

import math
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from cvcc_zoo.optim import SGD, Adagrad, Adam, AdamW, Muon, RMSprop
from cvcc_zoo.optim.landscapes import BOWL, SADDLE, SELDOM, Landscape, MakeOptimizer, plot_trajectories, trajectory

LR = 0.1


@pytest.mark.parametrize(("lr", "turns"), [(0.01, 0), (0.019, 0), (0.021, 40), (0.035, 40)])
def test_gradient_descent_zigzags_in_the_bowl_beyond_a_rate_of_a_50th(lr: float, turns: int) -> None:
    y = trajectory(partial(SGD, lr=lr), BOWL, 40)[:, 1]
    assert torch.allclose(y, 0.6 * (1 - 50 * lr) ** torch.arange(41, dtype=torch.float64), atol=1e-14)
    assert (y[1:] * y[:-1] < 0).sum() == turns


def test_it_diverges_beyond_two_50ths() -> None:
    assert trajectory(partial(SGD, lr=0.041), BOWL, 200)[-1, 1].abs() > 1e4  # 1.05^200 times 0.6


def test_the_best_constant_rate_contracts_by_the_condition_number() -> None:
    values = BOWL.value(trajectory(partial(SGD, lr=2 / 51), BOWL, 40), 0)
    assert torch.allclose((values[1:] / values[:-1]).sqrt(), torch.tensor(49 / 51, dtype=torch.float64), atol=1e-12)


def test_the_best_heavy_ball_contracts_by_the_root_of_the_condition_number() -> None:
    root = math.sqrt(50)
    lr, momentum = 4 / (root + 1) ** 2, ((root - 1) / (root + 1)) ** 2
    points = trajectory(partial(SGD, lr=lr, momentum=momentum), BOWL, 200).norm(dim=1)
    rate = float((points[180] / points[100]) ** (1 / 80))
    assert rate == pytest.approx(math.sqrt(momentum), abs=0.01)  # a double root: t sqrt(momentum)^t


def test_nesterov_keeps_to_its_bound() -> None:
    root = math.sqrt(50)
    make = partial(SGD, lr=1 / 50, momentum=(root - 1) / (root + 1), nesterov=True)
    values = BOWL.value(trajectory(make, BOWL, 150), 0)
    assert (values <= 2 * values[0] * (1 - 1 / root) ** torch.arange(151)).all()


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_noise_is_averaged_down_to_a_floor_that_grows_with_the_rate(momentum: float) -> None:
    """The variance of w under gradients h w + noise: Mandt, Hoffman & Blei, arXiv 1704.04289, for finite rates."""
    h, lr = 2.0, 0.05
    w = torch.nn.Parameter(torch.zeros(20_000, dtype=torch.float64))
    optimizer = SGD([w], lr=lr, momentum=momentum)
    generator, squares = torch.Generator().manual_seed(0), []
    for step in range(400):
        w.grad = h * w.detach() + torch.randn(w.shape, generator=generator, dtype=torch.float64)
        optimizer.step()
        if step >= 200:
            squares.append(w.detach().square().mean())
    exact = lr * (1 + momentum) / ((1 - momentum) * h * (2 * (1 + momentum) - lr * h))
    assert float(torch.stack(squares).mean()) == pytest.approx(exact, rel=0.02)


def turned(make: MakeOptimizer, angle: float) -> int:
    """Steps until the value of a rotated bowl is below 1e-6."""
    turn = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]], dtype=torch.float64)
    x, y = turn.T @ torch.tensor([3.0, 3.0], dtype=torch.float64)
    bowl = Landscape("rotated", lambda w, step: BOWL.value(w @ turn.T, step), (float(x), float(y)), (-4, 4), (-4, 4))
    return int((bowl.value(trajectory(make, bowl, 1500), 0) > 1e-6).sum())


def test_adaptive_methods_work_along_the_axes_and_gradient_descent_everywhere() -> None:
    assert turned(partial(SGD, lr=0.035), 0) == turned(partial(SGD, lr=0.035), 0.5)
    assert turned(partial(Adagrad, lr=1.0), 0.5) > 5 * turned(partial(Adagrad, lr=1.0), 0)
    assert turned(partial(Adam, lr=0.1), 0.5) > 2 * turned(partial(Adam, lr=0.1), 0)


@pytest.mark.parametrize("optimizer", [AdamW, Muon])
def test_decoupled_weight_decay_bounds_the_parameters(optimizer: Any) -> None:
    """Each entry for AdamW, the singular values for Muon, by 1 / weight_decay: Xie & Li, arXiv 2404.04454."""
    w = torch.nn.Parameter(torch.zeros(3, 4, dtype=torch.float64))
    more = {"ns_coefficients": "polar_express", "ns_steps": 12} if optimizer is Muon else {}
    made = optimizer([w], lr=0.01, weight_decay=0.5, **more)
    pull = torch.randn(3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for _ in range(2000):
        w.grad = -pull
        made.step()
    sizes = torch.linalg.svdvals(w.detach()) if optimizer is Muon else w.detach().abs()
    assert torch.allclose(sizes, torch.tensor(2.0, dtype=torch.float64), atol=0.01)


def escape(make: MakeOptimizer) -> int:
    return int((trajectory(make, SADDLE, 400)[:, 1].abs() < 1).sum())


def test_gradient_descent_leaves_the_saddle_when_it_should() -> None:
    assert escape(partial(SGD, lr=LR)) == math.ceil(math.log(1e6) / math.log(1 + LR)) == 145


def test_momentum_grows_on_the_saddle_by_the_larger_root() -> None:
    y = trajectory(partial(SGD, lr=LR, momentum=0.9), SADDLE, 60)[:, 1].abs()
    b = 1 + 0.9 + LR  # y_{t+1} = (1 + momentum + lr) y_t - momentum y_{t-1}
    assert float(y[50] / y[49]) == pytest.approx((b + math.sqrt(b * b - 4 * 0.9)) / 2, abs=1e-4)
    assert (b + math.sqrt(b * b - 4 * 0.9)) / 2 == pytest.approx(1.3162, abs=1e-4)


def test_noise_frees_gradient_descent_from_the_ridge() -> None:
    """Exactly on the ridge there is no way out, but a thousandth of noise is enough."""
    ridge = Landscape("ridge", SADDLE.value, (-1.0, 0.0), SADDLE.x, SADDLE.y)
    assert trajectory(partial(SGD, lr=LR), ridge, 400)[-1, 1] == 0
    noise = 1e-3 * torch.randn(401, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    noisy = Landscape(
        "noisy", lambda w, step: SADDLE.value(w, step) + w[..., 1] * noise[step], (-1.0, 0.0), SADDLE.x, SADDLE.y
    )
    assert 40 < int((trajectory(partial(SGD, lr=LR), noisy, 400)[:, 1].abs() < 1).sum()) < 145


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


def test_a_picture_shows_the_path_of_each() -> None:
    figure = plot_trajectories({"SGD": partial(SGD, lr=0.02), "Adam": partial(Adam, lr=LR)})
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["SGD", "Adam"]
    for axes, landscape in zip(figure.axes, (BOWL, SADDLE, SELDOM), strict=True):
        assert [len(np.asarray(line.get_xdata())) for line in axes.lines] == [landscape.steps + 1] * 2 + [1]
        assert landscape.title in axes.get_title()
