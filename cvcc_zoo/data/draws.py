"""Random numbers that depend only on (seed, epoch, sample), never on what ran before.

A sample gets the same draws on one process or several, on a CPU or a GPU, in a fresh run or a resumed one.
"""

import math

import torch
from torch import Tensor

_GOLDEN = -7046029254386353131  # 0x9E3779B97F4A7C15, the increment of SplitMix64 (Steele, Lea & Flood 2014)
_MIX_1 = -4658895280553007687  # 0xBF58476D1CE4E5B9
_MIX_2 = -7723592293110705685  # 0x94D049BB133111EB
_ALL = (1 << 64) - 1


def _shift(x: Tensor, bits: int) -> Tensor:
    """Shift int64 right logically; torch's `>>` is an arithmetic shift."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _mix(x: Tensor) -> Tensor:
    """Apply the finaliser of SplitMix64: every input bit affects every output bit."""
    x = (x ^ _shift(x, 30)) * _MIX_1
    x = (x ^ _shift(x, 27)) * _MIX_2
    return x ^ _shift(x, 31)


def mix_seed(*numbers: int) -> int:
    """Combine integers into one 32-bit seed; torch's CPU generator uses only 32 bits of a seed."""
    state = 0
    for number in numbers:  # _mix on Python integers, which is far faster than on small tensors
        x = (state + (number + 1) * _GOLDEN) & _ALL
        x = ((x ^ (x >> 30)) * _MIX_1) & _ALL
        x = ((x ^ (x >> 27)) * _MIX_2) & _ALL
        state = x ^ (x >> 31)
    return state & 0xFFFFFFFF


def seed_torch(seed: int, device: torch.device) -> None:
    """Seed torch's generators of the CPU and of a device.

    `torch.manual_seed` also queues a seed for every kind of device that this machine lacks, and records the caller's
    stack for each: a good part of the overhead of a small model's step.
    """
    torch.default_generator.manual_seed(seed)
    if device.type != "cpu":
        torch.get_device_module(device).manual_seed(seed)


class Draws:
    """A stream of random numbers for each sample of a batch.

    `samples` (N,) are the positions of the samples in the data set; the numbers are on the same device.
    """

    def __init__(self, seed: int, epoch: int, samples: Tensor) -> None:
        self.seed, self.epoch, self.samples = seed, epoch, samples
        self._state = _mix(mix_seed(seed, epoch) ^ _mix(samples.to(torch.int64) * _GOLDEN))  # (N,)

    @property
    def device(self) -> torch.device:
        """The device of the numbers."""
        return self._state.device

    def uniform(self) -> Tensor:
        """Draw (N,) float32 in [0, 1)."""
        self._state = self._state + _GOLDEN
        return _shift(_mix(self._state), 40).to(torch.float32) / (1 << 24)

    def between(self, low: float, high: float) -> Tensor:
        """Draw (N,) float32, uniform from `low` to `high`."""
        return low + (high - low) * self.uniform()

    def integers(self, end: int) -> Tensor:
        """Draw (N,) int64 in 0 .. end - 1."""
        return (self.uniform() * end).to(torch.int64)

    def constant(self) -> Tensor:
        """Return (N,) float32 in [0, 1), the same for a sample in all epochs and at every call."""
        return Draws(self.seed, -1, self.samples).uniform()


class Noise:
    """Random numbers for the images at some positions of a data set; they do not depend on the batches."""

    def __init__(self, seed: int, positions: Tensor) -> None:
        self.seed, self.positions, self.calls = seed, positions.to(torch.int64), 0

    def uniform(self, *shape: int) -> Tensor:
        """Draw (N, *shape) float32, uniform in [0, 1)."""
        self.calls += 1
        size = math.prod(shape)
        places = self.positions[:, None] * size + torch.arange(size, device=self.positions.device)
        return Draws(self.seed, self.calls, places.flatten()).uniform().view(-1, *shape)

    def normal(self, *shape: int) -> Tensor:
        """Draw (N, *shape) float32 with mean 0 and variance 1, by the method of Box and Muller."""
        radius = (-2 * (1 - self.uniform(*shape)).log_()).sqrt_()
        return radius.mul_((2 * math.pi * self.uniform(*shape)).cos_())
