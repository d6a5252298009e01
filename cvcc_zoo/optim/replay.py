"""Functions of many small tensors as CUDA graphs, which launch all of their kernels at once.

The step of a small network on a GPU waits for kernel launches, some microseconds each, and Newton-Schulz has a dozen
for each matrix. A graph launches all of them at once. It computes the same, but needs memory of its own for the
arguments, the results and everything in between.
"""

from collections.abc import Callable, Hashable, Sequence

import torch
from torch import Tensor

import cvcc_zoo.internals.torch as internals

Function = Callable[[list[Tensor]], list[Tensor]]
LARGEST = 2**23
"""Largest number of elements of the arguments for which a graph is made, so that its memory is small (32 MiB)."""


class Replay:
    """A caller of functions of tensors: from the second call with the same kinds of tensors, as a CUDA graph.

    It records on streams of its own, and all of its graphs end with it: torch keeps the workspace in which cuBLAS works
    on a stream, whose address is part of a graph, only until the first graph that was recorded on that stream is freed
    (https://github.com/pytorch/pytorch/issues/193402), be it that of another optimizer.
    """

    def __init__(self) -> None:
        self._seen: set[Hashable] = set()
        self._streams: dict[torch.device, torch.cuda.Stream] = {}
        self._graphs: dict[Hashable, tuple[torch.cuda.CUDAGraph, list[Tensor], list[Tensor]]] = {}

    def __call__(self, function: Function, tensors: Sequence[Tensor], key: Hashable) -> list[Tensor]:
        """Return `function(tensors)`; the next call overwrites it. `key` holds whatever else the function depends on.

        The function must read only its arguments, and must not wait for the GPU.
        """
        arguments = list(tensors)
        if not can_replay(arguments):
            return function(arguments)
        kind = (key, *((each.shape, each.stride(), each.dtype, each.device) for each in arguments))
        if kind not in self._seen:  # libraries set themselves up in a first call, which a graph cannot record
            self._seen.add(kind)
            return function(arguments)
        if kind not in self._graphs:
            self._graphs[kind] = self._recorded(function, arguments)
        graph, places, results = self._graphs[kind]
        internals.foreach_copy_(places, arguments)
        graph.replay()
        return results

    def _recorded(
        self, function: Function, arguments: list[Tensor]
    ) -> tuple[torch.cuda.CUDAGraph, list[Tensor], list[Tensor]]:
        """Return a graph of a function, the tensors from which it takes its arguments, and those of its results."""
        places, device = [torch.empty_like(each) for each in arguments], arguments[0].device
        if device not in self._streams:
            self._streams[device] = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        graph, stream = torch.cuda.CUDAGraph(), self._streams[device]
        with (
            torch.cuda.device(device),
            torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"),  # lets other threads use CUDA
        ):
            results = function(places)
        return graph, places, results


def can_replay(tensors: Sequence[Tensor]) -> bool:
    """Return True if a graph is worthwhile and possible: not within another graph, nor while torch compiles."""
    return (
        all(each.is_cuda and each.device == tensors[0].device for each in tensors)
        and sum(each.numel() for each in tensors) <= LARGEST
        and not torch.compiler.is_compiling()
        and not torch.cuda.is_current_stream_capturing()
    )
