"""The base class of the optimizers: options, state, and a step that runs a rule on all parameters with a gradient."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Self, overload

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from cvcc_zoo.internals.torch import without_autocast
from cvcc_zoo.optim.loading import StateLoading
from cvcc_zoo.optim.options import check_options, refuse_differentiable, scalar_rate
from cvcc_zoo.optim.paths import Group, Kernel, Lists, Members, State, choose_path, foreach, fused, loop
from cvcc_zoo.optim.tensors import T, are_contiguous, distributed, local


class RuleOptimizer(StateLoading, ABC):
    """An optimizer with one rule for all tensors of a group.

    A subclass defines `check` (of its options), `state_names` (the tensors that it keeps for each parameter), the
    `rule`, and torch's fused `kernel` if there is one. All options are in `param_groups`, all state is tensors, both
    under torch's names, so that state dicts can be exchanged with torch and load with `weights_only=True`.
    """

    counts_steps = True
    """True if the state has the number of steps of each parameter."""
    kernel_devices: tuple[str, ...] = ("cpu", "cuda")
    """Types of devices on which torch has the fused kernel."""

    def __new__(cls, *args: Any, **options: Any) -> Self:
        """Raise ValueError, with advice, for `differentiable`, an option of torch that does not exist here."""
        refuse_differentiable(cls.__name__, options)
        return super().__new__(cls)

    def __init__(
        self,
        params: ParamsT,
        options: Group,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        fused: bool | None = None,
        capturable: bool = False,
    ) -> None:
        shared = {"maximize": maximize, "foreach": foreach, "fused": fused, "capturable": capturable}
        options = options | shared
        self._check(options)
        super().__init__(params, options)

    def _check(self, options: Group) -> None:
        check_options(type(self).__name__, options)
        self.check(options)

    def add_param_group(self, param_group: Group) -> None:
        """Add a group of parameters.

        Raises ValueError for options out of range and RuntimeError for complex parameters, before anything changes.
        """
        if isinstance(param_group, dict):
            param_group = dict(param_group)
            self._check({**self.defaults, **param_group})
        before = len(self.param_groups)
        super().add_param_group(param_group)
        for group in self.param_groups[before:]:
            scalar_rate(group)
            try:
                self.check_params(group)
            except (ValueError, RuntimeError):
                self.param_groups.pop()
                raise

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Update all parameters that have a gradient; `closure` computes the loss again and returns it.

        Raises ValueError for sparse gradients, before any parameter changes.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        members = [self._gradients(group) for group in self.param_groups]
        with torch.no_grad():
            for group, (params, grads) in zip(self.param_groups, members, strict=True):
                if params:
                    with without_autocast(params[0].device):
                        self.update_group(group, params, grads)
        return loss

    def check_params(self, group: Group) -> None:
        """Raise ValueError, or RuntimeError as torch for complex parameters, if the optimizer cannot take a group."""
        name, params = type(self).__name__, group["params"]
        if any(p.is_complex() for p in params):
            raise RuntimeError(f"{name} takes no complex parameters; give it their real views (torch.view_as_real)")
        params = [p for p in local(params) if not p.is_meta]  # those on "meta" are checked by their first step
        if params:  # raises ValueError if the user chose a path that cannot take them
            choose_path(group, params, self.kernel_devices, contiguous=are_contiguous(params))

    def refuse_distributed(self, params: list[Tensor]) -> None:
        """Raise ValueError for matrices that are split over processes."""
        if any(map(distributed, params)):
            raise ValueError(
                f"{type(self).__name__} needs whole matrices, and these are distributed over processes (fully_shard, "
                "tensor parallelism); train with DDP, which keeps them whole, or choose AdamW, Adam or SGD"
            )

    # A subclass defines these

    @abstractmethod
    def check(self, options: Group) -> None:
        """Raise ValueError for options out of range."""

    @abstractmethod
    def state_names(self, group: Group) -> tuple[str, ...]:
        """Return the names of the tensors that are kept for each parameter."""

    @abstractmethod
    def rule(self, group: Group, w: T, g: T, kept: dict[str, T], step: Any, *, first: bool) -> None:
        """Update the parameters `w` and the state `kept` from the gradients `g`, in place.

        `step` counts from 1: a float or, if it must stay on the device (capturable), tensors without dimensions.
        `first` is true if the state was created in this step.
        """

    def initial(self, name: str, group: Group, p: Tensor) -> Tensor:
        """Return a tensor of the state before the first step: zeros in the parameter's layout."""
        return torch.zeros_like(p, memory_format=torch.preserve_format)

    def kernel(self, group: Group) -> Kernel | None:
        """Return torch's fused kernel for the options, which also counts the steps, or None if there is none."""
        return None

    # The step

    def update_group(self, group: Group, params: list[Tensor], grads: list[Tensor]) -> None:
        """Make one step of the parameters of a group that have a gradient."""
        names = self.state_names(group)
        states = [self._state(p, names) for p in params]
        new: set[int] = set()
        try:
            kept, steps = self._kept(states, names)
        except KeyError:  # the first step, or a parameter that had no gradient before
            new = {i for i, p in enumerate(params) if self._complete(states[i], group, names, p)}
            kept, steps = self._kept(states, names)
        if any(map(distributed, params)):  # each number moves independently, so a process can step its part alone
            params, grads = local(params), local(grads)
            kept = {name: local(values) for name, values in kept.items()}
        contiguous = are_contiguous(params)
        members = Members(params, grads, states, kept, steps, new, contiguous)
        kernel = self.kernel(group)
        path = choose_path(group, params, self.kernel_devices if kernel else (), contiguous=contiguous)
        if path == "fused":
            assert kernel is not None
            fused(kernel, group, members)
        elif path == "foreach":
            foreach(self.rule, group, members)
        else:
            loop(self.rule, group, members)

    def _gradients(self, group: Group) -> tuple[list[Tensor], list[Tensor]]:
        """Return the parameters with gradients, and these gradients. Raises ValueError for sparse gradients."""
        params = [p for p in group["params"] if p.grad is not None]
        grads = [p.grad for p in params]
        if any(g.layout is not torch.strided for g in grads):
            raise ValueError(
                f"{type(self).__name__} takes no sparse gradients; build the embedding with sparse=False, or use "
                "torch.optim.SGD, Adagrad or SparseAdam"
            )
        return params, grads

    def _state(self, p: Tensor, names: tuple[str, ...]) -> State:
        """Return the state of a parameter, without creating an entry if the optimizer keeps none."""
        state: State = self.state[p] if names or self.counts_steps else {}
        return state

    def _kept(self, states: list[State], names: tuple[str, ...]) -> tuple[Lists, list[Tensor]]:
        """Return the state and the steps as lists. Raises KeyError if the state has not been created."""
        lists = {name: [state[name] for state in states] for name in names}
        return lists, [state["step"] for state in states] if self.counts_steps else []

    def _complete(self, state: State, group: Group, names: tuple[str, ...], p: Tensor) -> bool:
        """Create the missing tensors of a state; return True if there were any."""
        if self.counts_steps and "step" not in state:
            state["step"] = torch.zeros((), dtype=torch.float32, device=p.device if group["capturable"] else "cpu")
        missing = [name for name in names if name not in state]
        for name in missing:
            state[name] = self.initial(name, group, p)
        return bool(missing)
