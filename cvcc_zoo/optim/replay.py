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
    """A caller of functions of tensors: from the second call with the same kinds of tensors, as a CUDA graph."""

    def __init__(self) -> None:
        self._seen: set[Hashable] = set()
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
            places = [torch.empty_like(each) for each in arguments]
            graph = torch.cuda.CUDAGraph()
            with (
                torch.cuda.device(arguments[0].device),
                torch.cuda.graph(graph, capture_error_mode="thread_local"),  # lets other threads use CUDA
            ):
                results = function(places)
            self._graphs[kind] = graph, places, results
        graph, places, results = self._graphs[kind]
        internals.foreach_copy_(places, arguments)
        graph.replay()
        return results


def can_replay(tensors: Sequence[Tensor]) -> bool:
    """Return True if a graph is worthwhile and possible: not within another graph, nor while torch compiles."""
    return (
        all(each.is_cuda and each.device == tensors[0].device for each in tensors)
        and sum(each.numel() for each in tensors) <= LARGEST
        and not torch.compiler.is_compiling()
        and not torch.cuda.is_current_stream_capturing()
    )
