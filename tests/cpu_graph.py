"""A double of a CUDA graph on the CPU, for tests: it goes wrong where a CUDA graph would, for reasons of Python.

`record` lets a function run once under a TorchDispatchMode that writes down each operation of torch with its very
tensors. Then it undoes what the function did to tensors and to random numbers, because a CUDA graph executes nothing
while it records. A replay calls the operations again, on the same tensors, and writes their results into the memory of
the recorded ones. No Python of the function runs: numbers are those of the recording, and tensors too. What a CUDA
graph refuses, because the host would wait for the device or copy to it, is refused with the name of the operation.

Not imitated: streams, memory that is used again after a tensor died in the recording, and kernels that torch does not
dispatch, such as those of torch.compile.
"""

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

FROM_HOST = {torch.ops.aten.lift_fresh.default}  # torch.tensor(number), which on a GPU copies from the host
WAITS = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}


class RefusedError(RuntimeError):
    """Error of an operation that cannot be in a CUDA graph."""


class CpuGraph(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """The operations of one call of a function, and the memory that they read and write."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: list[tuple[Any, Any, Any, Any]] = []
        self.refused = ""
        self._before: dict[int, tuple[Tensor, Tensor]] = {}  # outer tensors, and what was in their memory
        self._inner: set[int] = set()

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        given = [each for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor)]
        waits = bool(WAITS & set(operation.tags))
        if operation is torch.ops.aten.index.Tensor:  # only a mask gives as many numbers as it has ones
            waits = any(each.dtype == torch.bool for each in given[1:])
        devices = {torch.device(kwargs.get("device") or "cpu"), *(each.device for each in given)}
        if waits or operation in FROM_HOST or devices != {torch.device("cpu")}:
            self.refused = f"{operation} cannot be recorded: it waits for the device, or copies from the host"
            raise RefusedError(self.refused)
        for each in given:
            place = each.untyped_storage().data_ptr()
            if place and place not in self._inner and place not in self._before:
                self._before[place] = each, whole(each).clone()
        args, kwargs = (tree_map(lambda each: each, some) for some in (args, kwargs))  # lists may change later
        results = operation(*args, **kwargs)
        made = [each for each in tree_leaves(results) if isinstance(each, Tensor)]
        self._inner |= {each.untyped_storage().data_ptr() for each in made} - set(self._before)
        self.calls.append((operation, args, kwargs, results))
        return results

    def undo(self) -> None:
        """Give the tensors that the function found their values back."""
        for tensor, values in self._before.values():
            whole(tensor).copy_(values)

    @torch.no_grad()
    def replay(self) -> None:
        """Run the operations again."""
        for operation, args, kwargs, results in self.calls:
            again = tree_leaves(operation(*args, **kwargs))
            for old, new in zip(tree_leaves(results), again, strict=True):
                if isinstance(old, Tensor) and old.untyped_storage().data_ptr() != new.untyped_storage().data_ptr():
                    assert old.shape == new.shape and old.stride() == new.stride()
                    old.detach().copy_(new)


def whole(tensor: Tensor) -> Tensor:
    """All bytes of the memory that a tensor is a part of."""
    return torch.tensor([], dtype=torch.uint8).set_(tensor.untyped_storage())


class CpuGraphs:
    """Records and replays training steps on a CPU, in place of `cvcc_zoo.runs.recording.CudaGraphs`."""

    number = torch.float64  # kernels on a CPU take rates in float64

    made: ClassVar[list["CpuGraphs"]] = []
    """All of them so far, for tests that count recordings."""

    def __init__(self, device: torch.device) -> None:
        self.recorded: list[CpuGraph] = []
        self.made.append(self)

    def warm_up(self, step: Callable[[], Tensor]) -> Tensor:
        return step()

    def record(self, step: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
        graph, state = CpuGraph(), torch.get_rng_state()
        with graph:
            result = step()
        if graph.refused:  # a CUDA graph is lost even if the error was caught
            raise RefusedError(graph.refused)
        graph.undo()
        torch.set_rng_state(state)
        self.recorded.append(graph)
        return graph.replay, result

    def wait(self) -> None:
        pass
