"""Test-time augmentation of the time to accuracy, the same for both sides."""

import torch
from torch import Tensor

from benchmarks import accuracy_time
from benchmarks.airbench import accuracies, views
from benchmarks.sides import Settings
from cvcc_zoo import create

POINT = torch.zeros(1, 1, 8, 8, dtype=torch.uint8)
POINT[..., 3, 2] = 255
"""A black image with one white pixel."""


def points(x: Tensor) -> Tensor:
    """Return where the white pixel is, (N, 2)."""
    return (x[:, 0] == 1).nonzero()[:, 1:]


def test_the_six_views_are_an_image_its_two_shifts_and_their_mirror_images() -> None:
    seen = [points(view)[0].tolist() for view in views(POINT.float() / 255)]
    assert seen == [[3, 2], [3, 5], [4, 3], [4, 4], [2, 1], [2, 6]]


def test_accuracies_say_what_each_way_of_testing_adds() -> None:
    def score(x: Tensor) -> Tensor:  # class 1 is right, and seen on all images but the first
        row, column = points(x)[0].tolist()
        return torch.tensor([[{(3, 2): 4.0, (3, 5): -3.0}.get((row, column), -2.0), 0.0]])

    found = accuracies(score, POINT, torch.tensor([1]))
    assert found == {"plain": 0.0, "mirrored": 0.0, "six_views": 1.0}


def test_our_side_is_tested_with_the_same_views() -> None:
    model = create("linear", image_size=28, in_channels=1, whitening="none")
    found = accuracy_time.tested(Settings("fashion-mini", None, 1, 1), model, seconds=2.5)
    assert found["seconds"] == 2.5
    assert set(found) == {"seconds", "plain", "mirrored", "six_views"}
