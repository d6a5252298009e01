"""Loading the state of an optimizer: as a step expects it, or refused if it is that of other parameters."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from cvcc_zoo.optim.options import refuse_differentiable, scalar_rate
from cvcc_zoo.optim.paths import Group
from cvcc_zoo.optim.tensors import laid_out_as


class StateLoading(Optimizer):
    """An optimizer that loads states of its class, of an older version of it, and of torch."""

    def initial(self, name: str, group: Group, p: Tensor) -> Tensor:
        """Return a tensor of the state before the first step."""
        raise NotImplementedError

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what `state_dict` returned. Raises ValueError if that is the state of other parameters or groups."""
        try:
            super().load_state_dict(state_dict)
        except ValueError as error:
            if "parameter group" not in str(error):
                raise
            raise ValueError(
                f"{error}; load a state of the same parameters in the same groups: freeze, layer_decay, "
                "decay_norms_and_biases, and whether weight_decay is 0 must be as before, or else train from the "
                "weights alone (--weights=...)"
            ) from None

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Load a state; options that it lacks get their defaults.

        Raises ValueError for `differentiable`, and for a state of parameters of other shapes, before anything changes.
        """
        for group in state["param_groups"]:
            refuse_differentiable(type(self).__name__, group)
        self._check_shapes(state)
        super().__setstate__(state)
        self.defaults.pop("differentiable", None)  # torch adds it to all optimizers
        for group in self.param_groups:
            for name, value in self.defaults.items():
                group.setdefault(name, value)
            scalar_rate(group)
            for p in group["params"]:
                if p in self.state:
                    self.state[p] = {k: converted(k, v, p) for k, v in self.state[p].items() if v is not None}

    def _check_shapes(self, state: Mapping[str, Any]) -> None:
        """Raise ValueError for a tensor of another shape than `initial` returns; counts of steps are not looked at."""
        defaults = {**vars(self).get("defaults", {}), **state.get("defaults", {})}  # none before an object is unpickled
        for number, group in enumerate(state["param_groups"]):
            for place, p in enumerate(group["params"]):
                like = torch.empty(p.shape, dtype=p.dtype, device="meta")
                for name, value in state["state"].get(p, {}).items():
                    if not isinstance(value, Tensor) or not value.ndim:
                        continue
                    needed = tuple(self.initial(name, {**defaults, **group}, like).shape)
                    if value.shape != needed:
                        names = group.get("param_names")
                        which = names[place] if names else f"parameter {place} of group {group.get('name', number)}"
                        raise ValueError(
                            f"the optimizer's state is not that of these parameters: {name} is {tuple(value.shape)}, "
                            f"but {which}, of shape {tuple(p.shape)}, needs {needed}; load a state that was saved with "
                            "the same parameters in the same order, or train without one"
                        )


def converted(name: str, value: Any, p: Tensor) -> Any:
    """Return a loaded value as a step expects it: steps as tensors, tensors of the parameter's shape in its layout."""
    if name == "step":
        return torch.as_tensor(value, dtype=torch.float32)
    return laid_out_as(value, p) if isinstance(value, Tensor) and value.shape == p.shape else value
