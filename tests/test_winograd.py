"""Winograd's algorithm: the convolution against torch's, and the callback that uses it in training."""

from itertools import product

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from cvcc_zoo.models.winograd import AT, BT, G, gain, winograd_conv2d


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def assert_close(ours: Tensor, expected: Tensor) -> None:
    assert ours.shape == expected.shape
    ours, expected = ours.detach(), expected.detach()
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-4 * float(expected.abs().max()))


def test_matrices_filter_exactly() -> None:
    """In exact arithmetic the tile of a 6x6 window equals the 16 sums of products, for each unit window and filter."""
    at, bt, g = (each.double() for each in (AT, BT, G))
    windows, filters = torch.eye(36).double().view(36, 6, 6), torch.eye(9).double().view(9, 3, 3)
    for window, filter_ in product(windows, filters):
        tile = at @ ((g @ filter_ @ g.T) * (bt @ window @ bt.T)) @ at.T
        expected = F.conv2d(window[None, None], filter_[None, None])[0, 0]
        torch.testing.assert_close(tile, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("padding", [0, 1, 2])
@pytest.mark.parametrize("size", [(3, 3), (4, 4), (5, 9), (7, 8), (16, 16), (1, 6), (31, 2)])
def test_equals_torch(padding: int, size: tuple[int, int]) -> None:
    if min(size) + 2 * padding < 3:
        pytest.skip("too small for the window")
    x, w = random(5, 6, *size).requires_grad_(), random(7, 6, 3, 3, seed=1).requires_grad_()
    ours, expected = winograd_conv2d(x, w, padding), F.conv2d(x, w, padding=padding)
    assert_close(ours, expected)
    grad = random(*expected.shape, seed=2)
    for mine, its in zip(
        torch.autograd.grad(ours, (x, w), grad), torch.autograd.grad(expected, (x, w), grad), strict=True
    ):
        assert_close(mine, its)


def test_many_blocks() -> None:
    """Tiles are transformed in blocks of images; the last block has fewer."""
    x, w = random(75, 4, 16, 16), random(4, 4, 3, 3, seed=1)
    assert_close(winograd_conv2d(x, w), F.conv2d(x, w, padding=1))
    assert winograd_conv2d(x[:0], w).shape == (0, 4, 16, 16)


def test_keeps_the_memory_format() -> None:
    x, w = random(2, 8, 9, 9), random(8, 8, 3, 3, seed=1)
    assert winograd_conv2d(x, w).is_contiguous()
    last = winograd_conv2d(x.contiguous(memory_format=torch.channels_last), w)
    assert last.is_contiguous(memory_format=torch.channels_last)
    assert_close(last, F.conv2d(x, w, padding=1))
    crossed = winograd_conv2d(x.transpose(2, 3)[:, :, ::2], w)  # strides of neither format
    assert_close(crossed, F.conv2d(x.transpose(2, 3)[:, :, ::2], w, padding=1))


def test_output_can_be_changed_in_place() -> None:
    x, w = random(2, 8, 8, 8).requires_grad_(), random(8, 8, 3, 3, seed=1)
    (ours,) = torch.autograd.grad(F.relu(winograd_conv2d(x, w), inplace=True).sum(), x)
    (expected,) = torch.autograd.grad(F.relu(F.conv2d(x, w, padding=1)).sum(), x)
    assert_close(ours, expected)


def test_second_derivatives() -> None:
    """A penalty on the gradient, as in gradient-penalty losses, is differentiated again."""
    results = []
    for convolve in (winograd_conv2d, lambda x, w: F.conv2d(x, w, padding=1)):
        x, w = random(2, 3, 6, 6).requires_grad_(), random(4, 3, 3, 3, seed=1).requires_grad_()
        (first,) = torch.autograd.grad(convolve(x, w).tanh().sum(), x, create_graph=True)
        results.append(torch.autograd.grad(first.square().sum(), (x, w)))
    for mine, its in zip(*results, strict=True):
        assert_close(mine, its)


@pytest.mark.parametrize("wanted", ["input", "weight"])
def test_gradient_of_one_alone(wanted: str) -> None:
    x, w = random(2, 3, 6, 6), random(4, 3, 3, 3, seed=1)
    leaf = {"input": x, "weight": w}[wanted].requires_grad_()
    (ours,) = torch.autograd.grad(winograd_conv2d(x, w).square().sum(), leaf)
    (expected,) = torch.autograd.grad(F.conv2d(x, w, padding=1).square().sum(), leaf)
    assert_close(ours, expected)


def test_gain() -> None:
    """More channels gain more, outputs beyond the image cost."""
    assert gain(64, 64, 32, 32) == pytest.approx(3.2 / (1 + 39 / 32))
    assert gain(256, 256, 15, 15) == pytest.approx(3.2 / (1 + 39 / 128) * 225 / 256)
    assert gain(16, 16, 32, 32) < 1 < gain(512, 512, 4, 4)
    assert gain(512, 512, 1, 1) < 1


@pytest.mark.parametrize(
    ("x", "w", "padding", "message"),
    [
        (torch.zeros(1, 3, 8, 8).double(), torch.zeros(4, 3, 3, 3).double(), 1, "computes in float32"),
        (torch.zeros(1, 3, 8, 8).bfloat16(), torch.zeros(4, 3, 3, 3), 1, "not in torch.bfloat16"),
        (torch.zeros(3, 8, 8), torch.zeros(4, 3, 3, 3), 1, r"not \(3, 8, 8\)"),
        (torch.zeros(1, 3, 8, 8), torch.zeros(4, 2, 3, 3), 1, r"\(4, 2, 3, 3\)"),
        (torch.zeros(1, 3, 8, 8), torch.zeros(4, 3, 5, 5), 1, r"\(4, 3, 5, 5\)"),
        (torch.zeros(1, 3, 8, 8), torch.zeros(4, 3, 3, 3), 3, "a padding of 0, 1 or 2"),
        (torch.zeros(1, 3, 2, 8), torch.zeros(4, 3, 3, 3), 0, "2x8 pixels are too small"),
    ],
)
def test_refuses(x: Tensor, w: Tensor, padding: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        winograd_conv2d(x, w, padding)
