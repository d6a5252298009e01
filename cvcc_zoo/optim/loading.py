"""States that an optimizer loads: brought into the form that a step expects, or refused for other parameters."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from cvcc_zoo.optim.paths import Group
from cvcc_zoo.optim.tensors import laid_out_as

Initial = Callable[[str, Group, Tensor], Tensor]


def check_shapes(state: Mapping[str, Any], defaults: Group, initial: Initial) -> None:
    """Raise ValueError if a tensor of a state has not the shape of the one that `initial` returns for its parameter.

    `state` is what `Optimizer.__setstate__` takes. Numbers, such as counts of steps, are not looked at.
    """
    for number, group in enumerate(state["param_groups"]):
        for place, p in enumerate(group["params"]):
            like = torch.empty(p.shape, dtype=p.dtype, device="meta")
            for name, value in state["state"].get(p, {}).items():
                if not isinstance(value, Tensor) or not value.ndim:
                    continue
                needed = tuple(initial(name, {**defaults, **group}, like).shape)
                if value.shape != needed:
                    names = group.get("param_names")
                    which = names[place] if names else f"parameter {place} of group {group.get('name', number)}"
                    raise ValueError(
                        f"the optimizer's state is not that of these parameters: {name} is {tuple(value.shape)}, but "
                        f"{which}, of shape {tuple(p.shape)}, needs {needed}; load a state that was saved with the "
                        "same parameters in the same order, or train without one"
                    )


def converted(name: str, value: Any, p: Tensor) -> Any:
    """Return a loaded value as a step expects it: steps as tensors, tensors of the parameter's shape in its layout."""
    if name == "step":
        return torch.as_tensor(value, dtype=torch.float32)
    return laid_out_as(value, p) if isinstance(value, Tensor) and value.shape == p.shape else value
