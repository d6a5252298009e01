"""Luck finds weights of a linear classifier, steps of luck find better ones, the gradient the best."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.random_search import descend, draw, images_and_labels, plot, step_at_random


@pytest.fixture(scope="module")
def images() -> tuple[Tensor, Tensor]:
    return images_and_labels(200)[0]


def test_the_gradient_is_worth_more_than_as_many_looks_at_the_loss(images: tuple[Tensor, Tensor]) -> None:
    asked = 0

    def loss(weights: Tensor) -> Tensor:
        nonlocal asked
        asked += 1
        return F.cross_entropy(images[0] @ weights, images[1])

    start, budget = torch.zeros(785, 10), 90
    drawn = draw(loss, start, budget, torch.Generator().manual_seed(0))
    assert asked == budget
    stepped = step_at_random(loss, start, budget, torch.Generator().manual_seed(0))
    assert asked == 2 * budget
    descended = descend(loss, start, budget)
    assert asked == 2 * budget + budget // 3
    for found in (drawn, stepped, descended):
        assert found.losses == sorted(found.losses, reverse=True) and found.evaluations[-1] == budget
        assert float(loss(found.weights)) == pytest.approx(found.losses[-1], abs=1e-5)
    assert descended.losses[-1] < 0.5 * stepped.losses[-1] < 0.5 * drawn.losses[-1]
    again = step_at_random(loss, start, budget, torch.Generator().manual_seed(0))
    assert torch.equal(again.weights, stepped.weights)
    assert len(plot({"drawn": drawn, "stepped": stepped, "descended": descended}).axes) == 4


def test_pixels_are_standardised_by_the_training_images(images: tuple[Tensor, Tensor]) -> None:
    rows, labels = images
    assert rows.shape == (200, 785) and labels.shape == (200,)
    assert torch.all(rows[:, -1] == 1) and rows[:, :-1].mean(0).abs().max() < 1e-4
    varied = rows[:, :-1].std(0) > 0.99
    assert varied.float().mean() > 0.9
