"""Lists of tensors with the methods of one tensor, so that a rule is written once for both.

`w.add_(g, alpha=-lr)` adds to one tensor if `w` is a Tensor. If it is a `TensorList`, it adds to each tensor of the
list by `internals.foreach_add_`: an accelerator then launches one kernel instead of one for each tensor.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

import cvcc_zoo.internals.torch as internals


class TensorList:
    """Tensors treated as one: each method does for all of them what the method of a Tensor does for one.

    The other operand is a number or a TensorList of the same length; tensors without dimensions are broadcast.
    """

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self.tensors = list(tensors)

    @property
    def dtype(self) -> torch.dtype:
        return self.tensors[0].dtype

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self.tensors)

    # In place, as for a Tensor: names end with an underscore

    def add_(self, other: "float | TensorList", alpha: "float | Tensor" = 1) -> "TensorList":
        if isinstance(other, TensorList):
            internals.foreach_add_(self.tensors, other.tensors, alpha=alpha)  # type: ignore[arg-type]  # takes 0-d tensors
        else:
            internals.foreach_add_(self.tensors, other)
        return self

    def sub_(self, other: "TensorList") -> "TensorList":
        internals.foreach_sub_(self.tensors, other.tensors)
        return self

    def mul_(self, other: "float | Tensor | TensorList") -> "TensorList":
        internals.foreach_mul_(self.tensors, _plain(other))
        return self

    def div_(self, other: "float | Tensor | TensorList") -> "TensorList":
        internals.foreach_div_(self.tensors, _plain(other))
        return self

    def lerp_(self, end: "TensorList", weight: "float | TensorList") -> "TensorList":
        internals.foreach_lerp_(self.tensors, end.tensors, _plain(weight))  # type: ignore[arg-type]  # takes both
        return self

    def addcmul_(self, first: "TensorList", second: "TensorList", value: float = 1) -> "TensorList":
        internals.foreach_addcmul_(self.tensors, first.tensors, second.tensors, value)
        return self

    def addcdiv_(self, top: "TensorList", bottom: "TensorList", value: "float | Tensor" = 1) -> "TensorList":
        internals.foreach_addcdiv_(self.tensors, top.tensors, bottom.tensors, float(value))
        return self

    def copy_(self, source: "TensorList") -> "TensorList":
        internals.foreach_copy_(self.tensors, source.tensors)
        return self

    # These return a new list

    def add(self, other: "float | TensorList", alpha: float = 1) -> "TensorList":
        if isinstance(other, TensorList):
            return TensorList(internals.foreach_add(self.tensors, other.tensors, alpha=alpha))
        return TensorList(internals.foreach_add(self.tensors, other))

    def lerp(self, end: "TensorList", weight: float) -> "TensorList":
        return TensorList(internals.foreach_lerp(self.tensors, end.tensors, weight))

    def addcmul(self, first: "TensorList", second: "TensorList", value: float = 1) -> "TensorList":
        return TensorList(internals.foreach_addcmul(self.tensors, first.tensors, second.tensors, value))

    def maximum(self, other: "TensorList") -> "TensorList":
        return TensorList(internals.foreach_maximum(self.tensors, other.tensors))

    def sqrt(self) -> "TensorList":
        return TensorList(internals.foreach_sqrt(self.tensors))

    def clone(self) -> "TensorList":
        return TensorList([tensor.clone() for tensor in self.tensors])

    def __neg__(self) -> "TensorList":
        return TensorList(internals.foreach_neg(self.tensors))

    def __add__(self, other: "float | TensorList") -> "TensorList":
        return self.add(other)

    def __radd__(self, number: float) -> "TensorList":
        return self.add(number)

    def __sub__(self, number: float) -> "TensorList":
        return self.add(-number)

    def __mul__(self, other: "float | Tensor | TensorList") -> "TensorList":
        return TensorList(internals.foreach_mul(self.tensors, _plain(other)))

    def __truediv__(self, other: "float | Tensor | TensorList") -> "TensorList":
        return TensorList(internals.foreach_div(self.tensors, _plain(other)))

    def __pow__(self, exponent: float) -> "TensorList":
        return TensorList(internals.foreach_pow(self.tensors, exponent))

    def __rpow__(self, base: float) -> "TensorList":
        return TensorList(internals.foreach_pow(base, self.tensors))

    def __rsub__(self, number: float) -> "TensorList":
        return (-self).add_(number)

    def __rtruediv__(self, number: "float | Tensor") -> "TensorList":
        return TensorList(internals.foreach_reciprocal(self.tensors)).mul_(number)


def _plain(other: "float | Tensor | TensorList") -> "float | Tensor | list[Tensor]":
    return other.tensors if isinstance(other, TensorList) else other


T = TypeVar("T", Tensor, TensorList)
"""A tensor or a list of tensors: the type of the arguments of a rule."""

Number = float | Tensor | TensorList
"""A number in a rule: a float, or tensors without dimensions if nothing may be read back from the device."""


def subtract(w: T, rate: Number, top: T, bottom: T | None = None, *, capturable: bool) -> None:
    """Subtract rate * top / bottom from `w`; a rate on a device stays there if a graph may capture the step."""
    if not isinstance(rate, TensorList) and not (capturable and isinstance(rate, Tensor)):
        number: Any = -rate
        if bottom is None:
            w.add_(top, alpha=number)
        else:
            w.addcdiv_(top, bottom, value=number)
    else:
        factor: Any = rate
        w.sub_(top * factor if bottom is None else top / bottom * factor)


def each(function: Callable[..., Tensor], *arguments: T) -> T:
    """Return the function of tensors, or the list of its values if the arguments are lists."""
    first = arguments[0]
    if isinstance(first, TensorList):
        return TensorList([function(*tensors) for tensors in zip(*arguments, strict=True)])
    return function(*arguments)


def as_matrix(t: Tensor) -> Tensor:
    """Return a filter (out, in, kh, kw) as a matrix (out, in kh kw), whatever its memory layout."""
    return t.flatten(1)


def distributed(t: Tensor) -> bool:
    """Return True for a DTensor, of which a process may have only a part, as with FSDP2; fast for other tensors."""
    if type(t) in (Tensor, torch.nn.Parameter):
        return False
    from torch.distributed.tensor import DTensor  # takes half a second to import

    return isinstance(t, DTensor)


def local(tensors: list[Tensor]) -> list[Tensor]:
    """Return the part of each tensor that this process has, sharing its memory."""
    return [t.to_local() if distributed(t) else t for t in tensors]  # type: ignore[attr-defined]


def are_contiguous(tensors: list[Tensor]) -> bool:
    """Return True if all tensors are contiguous; fast, because every step asks."""
    return all(map(Tensor.is_contiguous, tensors))


def fit_kernel(params: list[Tensor], devices: tuple[str, ...], *, contiguous: bool) -> bool:
    """Return True if a fused kernel for these devices can take the parameters: it reads memory without gaps."""
    if not all(p.is_floating_point() and (p.is_cpu or p.device.type in devices) for p in params):
        return False
    return contiguous or all(torch.empty_like(p, device="meta").stride() == p.stride() for p in params)


def laid_out_as(value: Tensor, p: Tensor) -> Tensor:
    """Return the tensor, or a copy of it, with the strides and the type of a parameter."""
    if value.stride() == p.stride() and value.dtype == p.dtype:
        return value
    return torch.empty_like(p, requires_grad=False).copy_(value)
