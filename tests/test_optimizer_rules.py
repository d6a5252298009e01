"""The optimizers follow their definitions, and have the properties that their files claim."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cvcc_zoo.optim import SGD, Adafactor, Adagrad, Adam, AdamW, LowRankAdam, Muon, RMSprop
from cvcc_zoo.optim.build import OWN
from cvcc_zoo.optim.low_rank_adam import leading_directions
from cvcc_zoo.optim.newton_schulz import MUON, by_gram, coefficients_of, orthogonalise, step_by_step
from cvcc_zoo.zoo.creation import create
from tests.optimizer_checks import STEPS, VARIANTS, Subject, gradients, parameters, train
from tests.optimizer_rules import RULES

CASES = [(name, options) for name, variants in VARIANTS.items() for options in variants]


def follows_its_definition(subject: Subject) -> None:
    """With rates that change from step to step."""
    rates = {name: value for name, value in subject.options.items() if name in ("lr", "adamw_lr", "bias_lr", "sgd_lr")}
    rule = RULES[subject.cls.__name__]
    for path in subject.paths:
        params = parameters()
        expected, kept = [p.detach().numpy().copy() for p in params], [dict[str, Any]() for _ in params]
        optimizer = subject.build(params, **path)
        start = [group["lr"] for group in optimizer.param_groups]
        for step in range(STEPS):
            factor = 1 / (1 + step)
            options = {**subject.options, **{name: factor * value for name, value in rates.items()}}
            for group, lr in zip(optimizer.param_groups, start, strict=True):
                group["lr"] = factor * lr
            for i, (p, g) in enumerate(zip(params, gradients(step, params), strict=True)):
                p.grad = g
                expected[i] = np.asarray(rule(expected[i], g.numpy(), step + 1, kept[i], **options))
            optimizer.step()
        for p, w in zip(params, expected, strict=True):
            np.testing.assert_allclose(p.detach().numpy(), w, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(("name", "options"), CASES, ids=str)
def test_it_follows_its_definition(name: str, options: dict[str, Any]) -> None:
    follows_its_definition(Subject(OWN[name], options))


# Momentum


def positions(optimizer: Any, p: Tensor, steps: int, rate: Any = None, gradient: Any = None) -> Tensor:
    """Where a parameter is after each step; the gradient is that of |p|^2 / 2 unless given."""
    visited = []
    for t in range(steps):
        if rate is not None:
            optimizer.param_groups[0]["lr"] = rate(t)
        p.grad = p.detach().clone() if gradient is None else gradient(t)
        optimizer.step()
        visited.append(p.detach().clone())
    return torch.stack(visited)


def falling(t: int) -> float:
    return 0.1 * (0.1 if t >= 20 else 1.0)


def noise(t: int) -> Tensor:
    return torch.randn(5, generator=torch.Generator().manual_seed(t), dtype=torch.float64)


def test_momentum_is_the_courses_sum_also_when_the_rate_falls() -> None:
    p = nn.Parameter(torch.zeros(5, dtype=torch.float64))
    found = positions(SGD([p], 1.0, momentum=0.9), p, 60, falling, noise)
    sums = [falling(t) * sum(0.9**k * noise(t - k) for k in range(t + 1)) for t in range(60)]
    assert torch.allclose(found, -torch.stack([torch.as_tensor(s) for s in sums]).cumsum(0), atol=1e-12, rtol=0)


def test_nesterov_visits_sutskevers_points_of_look_ahead() -> None:
    p = nn.Parameter(torch.ones(5, dtype=torch.float64))
    found = positions(SGD([p], 0.1, momentum=0.9, nesterov=True), p, 40)
    theta, velocity = torch.ones(5, dtype=torch.float64), torch.zeros(5, dtype=torch.float64)
    ahead = []
    for _ in range(40):
        velocity = 0.9 * velocity - 0.1 * (theta + 0.9 * velocity)
        theta = theta + velocity
        ahead.append(theta + 0.9 * velocity)
    assert torch.allclose(found, torch.stack(ahead), atol=1e-12, rtol=0)


def test_weight_decay_is_twice_the_courses_lambda() -> None:
    p, q = (nn.Parameter(torch.ones(3, dtype=torch.float64)) for _ in range(2))
    plain, decayed = SGD([p], 0.1), SGD([q], 0.1, weight_decay=2 * 0.3)
    for _ in range(20):
        loss = (p - 2).square().sum() + 0.3 * p.square().sum()
        (p.grad,) = torch.autograd.grad(loss, p)
        (q.grad,) = torch.autograd.grad((q - 2).square().sum(), q)
        plain.step()
        decayed.step()
    assert torch.allclose(p, q, atol=1e-12)


# Adaptive rates


@pytest.mark.parametrize("size", [1e-3, 1.0, 1e3])
def test_step_sizes_under_a_constant_gradient(size: float) -> None:
    def steps(optimizer: type, **options: Any) -> Tensor:
        p = nn.Parameter(torch.zeros(1, dtype=torch.float64))
        path = positions(optimizer([p], lr=0.1, eps=0.0, **options), p, 20, gradient=lambda t: torch.full_like(p, size))
        return -torch.diff(path[:, 0], prepend=torch.zeros(1, dtype=torch.float64)) / 0.1

    t = torch.arange(1, 21, dtype=torch.float64)
    assert torch.allclose(steps(Adam), torch.ones(20, dtype=torch.float64), atol=1e-12)
    assert torch.allclose(steps(Adagrad), t**-0.5, atol=1e-12)
    assert torch.allclose(steps(RMSprop, alpha=0.99), (1 - 0.99**t) ** -0.5, atol=1e-12)
    assert steps(RMSprop, alpha=0.99)[0] == pytest.approx(10)


def test_amsgrad_lives_where_adam_fails() -> None:
    """Gradients 4, -1, -1 in turn on [-1, 1], where -1 is best: https://arxiv.org/abs/1904.09237, theorem 1."""

    def end(**options: Any) -> float:
        p = nn.Parameter(torch.zeros(1, dtype=torch.float64))
        optimizer = Adam([p], lr=0.5, betas=(0.0, 1 / (1 + 4**2)), eps=0.0, **options)
        for t in range(1, 3001):
            for group in optimizer.param_groups:
                group["lr"] = 0.5 / math.sqrt(t)
            p.grad = torch.full_like(p, 4.0 if t % 3 == 1 else -1.0)
            optimizer.step()
            p.data.clamp_(-1, 1)
        return p.item()

    assert end() > 0.9 and end(amsgrad=True) < -0.9


def test_with_amsgrad_a_rate_grows_only_by_the_correction_of_the_start() -> None:
    p = nn.Parameter(torch.zeros(1, dtype=torch.float64))
    optimizer = Adam([p], lr=1.0, betas=(0.0, 0.9), eps=0.0, amsgrad=True)
    gradients = torch.tensor([1.0, *[1e-3] * 99], dtype=torch.float64)  # the first stays the largest
    path = positions(optimizer, p, 100, gradient=lambda t: gradients[t : t + 1])[:, 0]
    rates = -torch.diff(path, prepend=torch.zeros(1, dtype=torch.float64)) / gradients
    expected = ((1 - 0.9 ** torch.arange(1, 101, dtype=torch.float64)) / (1 - 0.9)).sqrt()
    assert torch.allclose(rates, expected, rtol=1e-9)


def minimum(optimizer: Any, p: Tensor, steps: int = 4000) -> float:
    """Where (p - 5)^2 / 2 is held by weight decay."""
    for t in range(steps):
        optimizer.param_groups[0]["lr"] = 0.05 * (1 - t / steps)
        p.grad = p.detach() - 5
        optimizer.step()
    return p.item()


def test_decoupled_decay_is_a_bound_and_coupled_decay_a_penalty() -> None:
    def new() -> Tensor:
        return nn.Parameter(torch.zeros((), dtype=torch.float64))

    p, q, r = new(), new(), new()
    assert minimum(AdamW([p], weight_decay=0.5), p) == pytest.approx(2, abs=0.02)  # |w| <= 1 / 0.5
    assert minimum(Adam([q], weight_decay=0.5), q) == pytest.approx(5 / 1.5, abs=0.02)
    assert minimum(SGD([r], weight_decay=2 * 0.5), r) == pytest.approx(2.5, abs=0.02)


# Muon


def matrix(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_newton_schulz_keeps_the_singular_vectors() -> None:
    x = matrix(12, 40)
    found = orthogonalise(x, coefficients_of(MUON, 5), dtype=torch.float64, eps=0.0)
    u, _, vt = torch.linalg.svd(x, full_matrices=False)
    inside = u.T @ found @ vt.T
    assert torch.allclose(inside, inside.diagonal().diag(), atol=1e-13)
    assert inside.diagonal().min() > 0.65 and inside.diagonal().max() < 1.21


@pytest.mark.parametrize("shape", [(12, 40), (40, 12), (20, 20), (3, 6, 9), (3, 9, 6)])
def test_polar_express_converges_to_the_nearest_orthogonal_matrix(shape: tuple[int, ...]) -> None:
    x = matrix(*shape)
    found = orthogonalise(x, coefficients_of("polar_express", 14), dtype=torch.float64, eps=0.0)
    u, _, vt = torch.linalg.svd(x, full_matrices=False)
    assert torch.allclose(found, u @ vt, atol=1e-12)


@pytest.mark.parametrize("shape", [(12, 40), (20, 20)])
def test_autocast_leaves_it_in_the_precision_that_is_asked_for(shape: tuple[int, ...]) -> None:
    x, how = matrix(*shape).float(), {"dtype": torch.float32, "eps": 0.0}
    with torch.autocast("cpu", torch.bfloat16):
        inside = orthogonalise(x, coefficients_of(MUON, 5), **how)  # type: ignore[arg-type]
    assert torch.equal(inside, orthogonalise(x, coefficients_of(MUON, 5), **how))  # type: ignore[arg-type]


@pytest.mark.parametrize("steps", [1, 2, 5])
@pytest.mark.parametrize("name", [MUON, "polar_express"])
def test_iterating_on_the_gram_matrix_is_the_same(name: Any, steps: int) -> None:
    x = matrix(4, 10, 50) / 30
    chosen = coefficients_of(name, steps)
    assert torch.allclose(by_gram(x, chosen), step_by_step(x, chosen), atol=1e-12)
    single = x.float()
    assert torch.allclose(by_gram(single, chosen), step_by_step(single, chosen), atol=1e-5)


def test_the_gram_matrix_agrees_in_float32_for_the_gradients_of_a_network() -> None:
    model = create("resnet20", num_classes=10).train()
    images = torch.randint(0, 256, (64, 3, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    nn.functional.cross_entropy(model.network(images / 255), torch.arange(64) % 10).backward()  # type: ignore[no-untyped-call]
    filters = [p.grad.flatten(1) for p in model.network.parameters() if p.ndim == 4 and p.grad is not None]
    assert len(filters) == 21
    for g in filters:
        x = (g if g.size(0) <= g.size(1) else g.T) / g.norm()
        chosen = coefficients_of(MUON, 5)
        assert (by_gram(x, chosen) - step_by_step(x, chosen)).abs().max() < 1e-5


def update_of(shape: tuple[int, ...], g: Tensor, **options: Any) -> Tensor:
    p = nn.Parameter(torch.zeros(shape, dtype=torch.float64))
    p.grad = g
    Muon([p], lr=1.0, **options).step()
    return -p.detach()


def test_muon_does_not_see_scale_and_rotation_and_adam_does() -> None:
    g, turn = matrix(6, 10), torch.linalg.qr(matrix(6, 6, seed=1)).Q
    assert torch.allclose(update_of((6, 10), turn @ g * 1e3), turn @ update_of((6, 10), g), atol=1e-12)
    p, q = (nn.Parameter(torch.zeros(6, 10, dtype=torch.float64)) for _ in range(2))
    p.grad, q.grad = g, turn @ g
    for each in (p, q):
        Adam([each]).step()
    assert not torch.allclose(q, turn @ p, atol=1e-4)


def test_the_scale_of_a_filter_is_that_of_its_flattened_shape() -> None:
    g = matrix(64, 2, 3, 3)
    spectral = torch.linalg.matrix_norm(
        update_of((64, 2, 3, 3), g, ns_coefficients="polar_express", ns_steps=14).flatten(1), 2
    )
    assert spectral == pytest.approx(math.sqrt(64 / 18))
    rms = update_of((64, 2, 3, 3), g, adjust_lr_fn="match_rms_adamw", ns_coefficients="polar_express", ns_steps=14)
    assert rms.square().mean().sqrt() == pytest.approx(0.2)


@pytest.mark.parametrize(("shape", "scale"), [((8, 32), 1.0), ((32, 8), 2.0)])
def test_the_rate_times_the_scale_is_about_the_spectral_norm_of_an_update(shape: tuple[int, int], scale: float) -> None:
    singular = torch.linalg.svdvals(update_of(shape, matrix(*shape)))
    assert 0.65 * scale < singular.min() and singular.max() < 1.25 * scale


def test_a_zero_gradient_is_no_division_by_zero() -> None:
    assert (update_of((4, 5), torch.zeros(4, 5, dtype=torch.float64)) == 0).all()


def test_unit_norm_takes_a_filter_as_long_as_it_may_be_and_leaves_zeros_alone() -> None:
    g, w = matrix(4, 2, 3, 3), matrix(4, 2, 3, 3, seed=1)
    stepped = []
    for length in (1.0, 7.0):
        p = nn.Parameter(length * w)
        p.grad = g
        Muon([p], lr=0.1, unit_norm=True).step()
        stepped.append(p.detach())
    assert torch.allclose(stepped[0], stepped[1], atol=1e-12)
    assert torch.equal(update_of((4, 2, 3, 3), g, unit_norm=True), update_of((4, 2, 3, 3), g))


# Few numbers for the state


def test_adafactor_is_exact_where_the_squares_have_rank_one() -> None:
    g = matrix(6).abs()[:, None] * matrix(9, seed=1).abs() * matrix(6, 9, seed=2).sign()
    p = nn.Parameter(torch.full((6, 9), 0.5, dtype=torch.float64))
    p.grad = g
    optimizer = Adafactor([p], lr=1.0, d=1e9)
    optimizer.step()
    row, column = optimizer.state[p]["row_var"], optimizer.state[p]["col_var"]
    assert torch.allclose(row @ column / row.mean(), g.square(), atol=1e-14)
    assert torch.allclose(p, 0.5 - 0.5 * g.sign(), atol=1e-12)  # Adam's first step, times the size of the parameter


def test_the_directions_are_the_leading_singular_vectors() -> None:
    g = matrix(8, 20)
    found = leading_directions(g, 3)
    u = torch.linalg.svd(g).U[:, :3]
    assert torch.allclose((found.T @ u).abs().sum(), torch.tensor(3.0, dtype=torch.float64))
    assert torch.allclose(leading_directions(-g, 3), found)


def test_at_full_rank_it_is_adam_in_a_rotated_basis() -> None:
    p, q = nn.Parameter(matrix(4, 9)), nn.Parameter(matrix(4, 9))
    turn = leading_directions(gradients(0, [p])[0], 4)
    low_rank = LowRankAdam([p], lr=0.1, weight_decay=0.0, scale=1.0, rank=3)
    low_rank.param_groups[0]["rank"] = 4
    rotated = nn.Parameter(turn.T @ q.detach())
    adam = AdamW([rotated], lr=0.1, weight_decay=0.0)
    # A matrix with no more rows than the rank gets AdamW itself, so the rule is called as for a larger one.
    group = {**low_rank.param_groups[0], "low_rank": True}
    for step in range(STEPS):
        (g,) = gradients(step, [p])
        p.grad, rotated.grad = g, turn.T @ g
        with torch.no_grad():
            AdamW.update_group(low_rank, group, [p], [g])
        adam.step()
    assert torch.allclose(p, turn @ rotated, atol=1e-12)


def test_an_update_has_no_more_than_its_rank() -> None:
    p = nn.Parameter(torch.zeros(12, 5, 3, 3, dtype=torch.float64))
    optimizer = LowRankAdam([p], rank=3)
    for step in range(3):
        before = p.detach().clone()
        (p.grad,) = gradients(step, [p])
        optimizer.step()
        assert torch.linalg.matrix_rank((p.detach() - before).flatten(1)) == 3


def numbers_kept(optimizer: Any) -> float:
    """Numbers in the state, as a multiple of the parameters."""
    kept = sum(v.numel() for state in optimizer.state.values() for k, v in state.items() if k != "step")
    return float(kept / sum(p.numel() for group in optimizer.param_groups for p in group["params"]))


def test_how_much_is_kept_for_convolutions() -> None:
    shapes = ((64, 64, 3, 3), (128, 64, 3, 3), (128,), (128, 128, 3, 3))

    def kept(name: str, **options: Any) -> float:
        params = parameters(shapes, torch.float32)
        optimizer = Subject(OWN[name], options).build(params)
        train(optimizer, params, range(1))
        return numbers_kept(optimizer)

    assert kept("SGD") == 0
    assert kept("SGD", momentum=0.9) == kept("Adagrad") == kept("RMSprop") == 1
    assert kept("RMSprop", centered=True, momentum=0.9) == 3
    assert (kept("Adam"), kept("AdamW"), kept("Adam", amsgrad=True)) == (2, 2, 3)
    assert kept("Muon") == pytest.approx(1.0, abs=0.001)
    assert kept("Adafactor") < 0.015
    low_rank = [8 * m + 2 * 8 * n for m, n in ((64, 576), (128, 576), (128, 1152))] + [2 * 128]
    assert kept("LowRankAdam", rank=8) == pytest.approx(sum(low_rank) / sum(math.prod(shape) for shape in shapes))
