"""Receptive fields: the pixels that each value of a network depends on, tracked through every operation.

A window of k values that are `jump` pixels apart adds (k - 1) jump pixels to the field, and a stride multiplies jump:
https://distill.pub/2019/computing-receptive-fields/. The field of a sum or another combination is the union of its
inputs' fields. Means over all pixels, layer and group norms, and linear layers of flattened maps see the whole image;
batch norm, in evaluation mode, sees one value.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

import torch
from torch import Tensor

from cvcc_zoo.internals.torch import BATCH_NORMS, CAST, VIEWS, TorchDispatchMode, default_arguments

aten = torch.ops.aten


@dataclass(frozen=True)
class Span:
    """A window along one axis: value i depends on pixels first + i jump to last + i jump, both included."""

    first: int = 0
    last: int = 0
    jump: int = 1

    @property
    def size(self) -> int:
        """The number of pixels, including those beyond the border of the image."""
        return self.last - self.first + 1


class Seen(Enum):
    """A receptive field that is not a window of pixels."""

    EVERYTHING = "the whole image"
    FLATTENED = "a flattened map, each of whose values has its own window"
    UNKNOWN = "not tracked"


Field = tuple[Span, Span] | Seen
PIXEL: Field = (Span(), Span())

ELEMENTWISE = {
    aten.native_batch_norm,
    *BATCH_NORMS,
    aten.clone,
    aten.detach,
    aten.alias,
    CAST,
    aten.native_dropout,
}
"""Operations that see one pixel of each map, in addition to those that torch tags as pointwise."""
REDUCTIONS = {aten.mean, aten.amax, aten.sum}
ADAPTIVE = {aten.adaptive_max_pool2d}
"""Pooling to maps of a given size, with windows that depend on it; tracked for a single value."""
RESHAPES = {aten.view, *VIEWS}
PRODUCTS = {aten.mm, aten.addmm}


class Fields(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Track the field of everything computed from an image (N, C, H, W) while this mode is active."""

    def __init__(self, image: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._found: dict[int, tuple[Tensor, Field]] = {}  # holds the tensor, so that its id is not used again
        self._set(image, PIXEL)

    def of(self, tensor: Tensor) -> Field:
        """Return the field of a tensor that was computed from the image."""
        return self._found[id(tensor)][1] if id(tensor) in self._found else Seen.UNKNOWN

    def _set(self, tensor: Tensor, field: Field) -> None:
        self._found[id(tensor)] = (tensor, field)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation, and record the fields of its outputs."""
        out = func(*args, **(kwargs or {}))
        inputs = [self.of(each) for each in _tensors(args) if id(each) in self._found]
        if inputs:
            outputs = list(_tensors(out if isinstance(out, tuple | list) else [out]))
            field = (
                _output_field(func, _named_arguments(func, args, kwargs or {}), inputs, outputs[0])
                if outputs
                else Seen.UNKNOWN
            )
            for each in outputs:
                self._set(each, field)
        return out


def _tensors(values: Iterable[Any]) -> Iterable[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)


def _named_arguments(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of an operation by name, including defaults."""
    defaults = default_arguments(func)
    return {**defaults, **dict(zip(defaults, args, strict=False)), **kwargs}


def _output_field(func: Any, given: Mapping[str, Any], inputs: list[Field], out: Tensor) -> Field:
    """Return the field of an operation's output, given those of its inputs."""
    kind, joined, image = func.overloadpacket, union(inputs), next(iter(given.values()))
    if joined is Seen.EVERYTHING:
        return joined
    largest = func is aten.max.dim and given["dim"] % image.ndim == image.ndim - 1
    if kind in PRODUCTS or largest:
        return Seen.EVERYTHING if joined is Seen.FLATTENED else Seen.UNKNOWN
    if torch.Tag.pointwise in func.tags or kind in ELEMENTWISE or (kind is aten.cat and given["dim"] == 1):
        return joined
    if isinstance(joined, Seen) or not isinstance(image, Tensor) or image.ndim != 4:
        return Seen.UNKNOWN
    over_pixels = kind in REDUCTIONS and {dim % 4 for dim in given.get("dim") or ()} >= {2, 3}
    if over_pixels or (kind in ADAPTIVE and out.shape[2:] == (1, 1)) or kind is aten.native_group_norm:
        return Seen.EVERYTHING
    if kind in RESHAPES and out.ndim in (2, 3) and out.shape[:-1] == image.shape[: out.ndim - 1]:
        return Seen.FLATTENED
    rows, columns = (_output_span(axis, span, kind, given) for axis, span in enumerate(joined))
    return Seen.UNKNOWN if rows is None or columns is None else (rows, columns)


def _output_span(axis: int, span: Span, kind: Any, given: Mapping[str, Any]) -> Span | None:
    """Return the span after a convolution, pooling, slice or padding; None for operations that are not tracked."""
    if kind is aten.slice:
        sliced = given["dim"] % 4 == 2 + axis
        return window(span, 1, given["step"], -(given["start"] or 0)) if sliced else span
    if kind is aten.constant_pad_nd:
        before = [*given["pad"], 0, 0, 0, 0][2 - 2 * axis]  # torch lists the padding of the last axis first
        return window(span, 1, 1, before)
    if kind is aten.convolution and not given["transposed"]:
        size = given["weight"].shape[2 + axis]
    elif kind in (aten.max_pool2d_with_indices, aten.avg_pool2d):
        size = _at(given["kernel_size"], axis)
    else:
        return None
    steps = _at(given["stride"] or size, axis)  # the default stride of pooling is its window
    return window(span, size, steps, _at(given["padding"], axis), _at(given.get("dilation", 1), axis))


def _at(values: int | Sequence[int], axis: int) -> int:
    return values if isinstance(values, int) else values[axis % len(values)]


def window(span: Span, size: int, stride: int, padding: int, dilation: int = 1) -> Span:
    """Return the span of a window of `size` values that moves by `stride` over values with this span."""
    first = span.first - padding * span.jump
    return Span(first, first + span.last - span.first + (size - 1) * dilation * span.jump, span.jump * stride)


def union(fields: Sequence[Field]) -> Field:
    """Return the union of the fields of tensors that are combined value by value."""
    if Seen.EVERYTHING in fields:
        return Seen.EVERYTHING
    if all(field is Seen.FLATTENED for field in fields):
        return Seen.FLATTENED
    windows = [field for field in fields if not isinstance(field, Seen)]
    if len(windows) < len(fields):
        return Seen.UNKNOWN
    rows, columns = (_span_union(spans) for spans in zip(*windows, strict=True))
    return Seen.UNKNOWN if rows is None or columns is None else (rows, columns)


def _span_union(spans: Sequence[Span]) -> Span | None:
    jumps = {span.jump for span in spans}
    ends = min(span.first for span in spans), max(span.last for span in spans)
    return Span(*ends, spans[0].jump) if len(jumps) == 1 else None
