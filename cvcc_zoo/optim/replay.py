"""Functions of many small tensors as CUDA graphs: one start for all of their kernels.

A small network's step on a GPU waits for the starts of its kernels, some microseconds each, and Newton-Schulz has a
dozen for each matrix. A graph starts all of them at once. It computes the same, but needs memory of its own for the
function's arguments, results, and what lies in between.
"""

from collections.abc import Callable, Hashable, Sequence

import torch
from torch import Tensor

Function = Callable[[list[Tensor]], list[Tensor]]
LARGEST = 2**23
"""Numbers in the arguments up to which a graph is made, so that its memory stays small: 32 MiB of them in float32."""


class Replay:
    """Calls a function of tensors, from its second call with tensors of the same kind on as a CUDA graph."""

    def __init__(self) -> None:
        self._seen: set[Hashable] = set()
        self._graphs: dict[Hashable, tuple[torch.cuda.CUDAGraph, list[Tensor], list[Tensor]]] = {}

    def __call__(self, function: Function, tensors: Sequence[Tensor], key: Hashable) -> list[Tensor]:
        """`function(tensors)`; what it returns holds until the next call. `key` names all that it depends on beside.

        It must read nothing but its arguments, and must not wait for the GPU.
        """
        arguments = list(tensors)
        if not can_replay(arguments):
            return function(arguments)
        kind = (key, *((each.shape, each.stride(), each.dtype, each.device) for each in arguments))
        if kind not in self._seen:  # what libraries set up in a first call cannot be in a graph
            self._seen.add(kind)
            return function(arguments)
        if kind not in self._graphs:
            places = [torch.empty_like(each) for each in arguments]
            graph = torch.cuda.CUDAGraph()
            with (
                torch.cuda.device(arguments[0].device),
                torch.cuda.graph(graph, capture_error_mode="thread_local"),  # other threads may go on
            ):
                results = function(places)
            self._graphs[kind] = graph, places, results
        graph, places, results = self._graphs[kind]
        torch._foreach_copy_(places, arguments)
        graph.replay()
        return results


def can_replay(tensors: Sequence[Tensor]) -> bool:
    """Whether a graph pays, and can be made now: not within another one, and not while torch compiles."""
    return (
        all(each.is_cuda and each.device == tensors[0].device for each in tensors)
        and sum(each.numel() for each in tensors) <= LARGEST
        and not torch.compiler.is_compiling()
        and not torch.cuda.is_current_stream_capturing()
    )
