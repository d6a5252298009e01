"""What the optimizers share: options, state, and a step that runs a rule on all parameters with a gradient."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, overload

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.optimizer import ParamsT

from cvcc_zoo.optim.options import check_options
from cvcc_zoo.optim.paths import Group, Kernel, Lists, Members, State, choose_path, foreach, fused, loop
from cvcc_zoo.optim.tensors import T, are_contiguous, distributed, laid_out_as, local


class RuleOptimizer(Optimizer, ABC):
    """An optimizer with one rule for all tensors of a group.

    A subclass has `check` (its options), `state_names` (the tensors that it keeps for each parameter), the `rule`, and
    torch's fused `kernel` where there is one. All options stand in `param_groups`, all state is tensors, both under
    torch's names, so that state dicts can be exchanged with torch and load with `weights_only=True`.
    """

    counts_steps = True
    kernel_devices: tuple[str, ...] = ("cpu", "cuda")
    complex_as_pairs = True
    """Whether a complex parameter is taken as twice as many real ones; else it is refused."""
    takes_sparse = False
    """Whether a sparse gradient, as of nn.Embedding(sparse=True), is taken for the dense one that it stands for."""

    def __init__(
        self,
        params: ParamsT,
        options: Group,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        fused: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
    ) -> None:
        how = {"maximize": maximize, "foreach": foreach, "fused": fused}
        options = {**options, **how, "capturable": capturable, "differentiable": differentiable}
        self._check(options)
        super().__init__(params, options)

    def _check(self, options: Group) -> None:
        check_options(options)
        if options["fused"] and not self.kernel(options):
            raise ValueError(f"torch has no fused kernel for {type(self).__name__} with these options; leave fused out")
        self.check(options)

    def add_param_group(self, param_group: Group) -> None:
        """Take one more group. Raises ValueError for options out of range, RuntimeError for complex parameters.

        Before anything changes.
        """
        if isinstance(param_group, dict):
            param_group = dict(param_group)
            self._check({**self.defaults, **param_group})
        before = len(self.param_groups)
        super().add_param_group(param_group)
        for group in self.param_groups[before:]:
            try:
                self.check_params(group)
            except (ValueError, RuntimeError):
                self.param_groups.pop()
                raise

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Read what torch or an older version saved: options that were unknown then get their defaults."""
        super().__setstate__(state)
        for group in self.param_groups:
            for name, value in self.defaults.items():
                group.setdefault(name, value)
            for p in group["params"]:
                if p in self.state:
                    self.state[p] = {k: _as_now(k, v, p) for k, v in self.state[p].items() if v is not None}

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Update all parameters that have a gradient; `closure` computes the loss again and returns it.

        Raises ValueError, before any parameter is changed, for sparse gradients of an optimizer that takes none.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        members = [self._gradients(group) for group in self.param_groups]
        with torch.set_grad_enabled(self.defaults["differentiable"]):
            for group, (params, grads, rows) in zip(self.param_groups, members, strict=True):
                if params:
                    self.update_group(group, params, grads)
                for p, g in rows:
                    self.update_rows(group, p, g)
        return loss

    def check_params(self, group: Group) -> None:
        """Raise ValueError, for complex parameters RuntimeError as torch, for what this optimizer cannot take."""
        name, params = type(self).__name__, group["params"]
        if not self.complex_as_pairs and any(p.is_complex() for p in params):
            raise RuntimeError(f"{name} takes no complex parameters; view them as real ones (torch.view_as_real)")
        params = [p for p in local(params) if not p.is_meta]  # which get memory, and are checked, by the first step
        if params:
            choose_path(group, params, self.kernel_devices, contiguous=are_contiguous(params))

    def refuse_distributed(self, params: list[Tensor]) -> None:
        """Raise ValueError for matrices of which a process has a part alone."""
        if any(map(distributed, params)):
            raise ValueError(
                f"{type(self).__name__} needs whole matrices, and these are distributed over processes (fully_shard, "
                "tensor parallelism); train with DDP, which keeps them whole, or choose AdamW, Adam or SGD"
            )

    # What a subclass says

    @abstractmethod
    def check(self, options: Group) -> None:
        """Raise ValueError for options out of range."""

    @abstractmethod
    def state_names(self, group: Group) -> tuple[str, ...]:
        """The tensors, as large as the parameter, that are kept for each parameter."""

    @abstractmethod
    def rule(self, group: Group, w: T, g: T, kept: dict[str, T], step: Any, *, first: bool) -> None:
        """Update the parameters `w` and what is kept from the gradients `g`, in place.

        `step` counts from 1: a float, or tensors without dimensions if it must stay one (capturable, differentiable).
        `first`: what is kept was made just now.
        """

    def initial(self, name: str, group: Group, p: Tensor) -> Tensor:
        """What a kept tensor is before the first step: zeros in the parameter's layout."""
        return torch.zeros_like(p, memory_format=torch.preserve_format)

    def kernel(self, group: Group) -> Kernel | None:
        """The fused kernel of torch for these options, if it has one: a function that also counts the steps."""
        return None

    def moves_rows_alone(self, group: Group) -> bool:
        """Whether a row with a gradient of zeros stays as it is, so that a sparse gradient needs its own rows alone."""
        return not (group["weight_decay"] or group["differentiable"])

    # How it is run

    def update_group(self, group: Group, params: list[Tensor], grads: list[Tensor]) -> None:
        """One step of those parameters of a group that have a gradient."""
        names = self.state_names(group)
        states = [self._state(p, names) for p in params]
        new: set[int] = set()
        try:
            kept, steps = self._kept(states, names)
        except KeyError:  # in the first step, and for parameters that had no gradient yet
            new = {i for i, p in enumerate(params) if self._complete(states[i], group, names, p)}
            kept, steps = self._kept(states, names)
        if any(map(distributed, params)):  # each number moves by itself, so a process can step its part alone
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

    def update_rows(self, group: Group, p: Tensor, g: Tensor) -> None:
        """One step of the rows of `p` that the sparse gradient `g` has; all others would not move."""
        g = g.coalesce()
        where = tuple(g.indices())
        names = self.state_names(group)
        state = self._state(p, names)
        new = {0} if self._complete(state, group, names, p) else set()
        kept, steps = self._kept([state], names)
        rows = {name: [value[where]] for name, (value,) in kept.items()}
        w = p[where]
        loop(self.rule, group, Members([w], [g.values()], [{}], rows, steps, new, contiguous=True))
        p[where] = w
        for name, (value,) in rows.items():
            state[name][where] = value

    def _gradients(self, group: Group) -> tuple[list[Tensor], list[Tensor], list[tuple[Tensor, Tensor]]]:
        """The parameters with dense gradients, these gradients, and the pairs of which rows alone move.

        Raises ValueError for sparse gradients that this optimizer does not take.
        """
        params, grads, rows = [], [], []
        for p in group["params"]:
            if (g := p.grad) is None:
                continue
            if g.layout is torch.strided:
                params.append(p)
                grads.append(g)
            elif not (self.takes_sparse and g.is_sparse and not group["fused"]):
                raise ValueError(
                    f"{type(self).__name__} takes no sparse gradients{' with fused=True' * self.takes_sparse}; build "
                    "the embedding with sparse=False, or use torch.optim.SparseAdam"
                )
            elif self.moves_rows_alone(group):
                rows.append((p, g))
            else:
                params.append(p)
                grads.append(g.to_dense())
        return params, grads, rows

    def _state(self, p: Tensor, names: tuple[str, ...]) -> State:
        """What is kept for a parameter, and nothing for one of which nothing is kept."""
        state: State = self.state[p] if names or self.counts_steps else {}
        return state

    def _kept(self, states: list[State], names: tuple[str, ...]) -> tuple[Lists, list[Tensor]]:
        """What is kept, and the steps, as lists. Raises KeyError for what is not kept yet."""
        lists = {name: [state[name] for state in states] for name in names}
        return lists, [state["step"] for state in states] if self.counts_steps else []

    def _complete(self, state: State, group: Group, names: tuple[str, ...], p: Tensor) -> bool:
        """Make what is not kept yet; whether there was anything to make."""
        if self.counts_steps and "step" not in state:
            state["step"] = torch.zeros((), dtype=torch.float32, device=p.device if group["capturable"] else "cpu")
        missing = [name for name in names if name not in state]
        for name in missing:
            state[name] = self.initial(name, group, p)
        return bool(missing)


def _as_now(name: str, value: Any, p: Tensor) -> Any:
    """A kept value as this version keeps it: steps as tensors, tensors of the parameter's shape in its layout."""
    if name == "step":
        return torch.as_tensor(value, dtype=torch.float32)
    return laid_out_as(value, p) if isinstance(value, Tensor) and value.shape == p.shape else value
