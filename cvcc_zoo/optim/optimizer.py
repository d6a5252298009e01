"""What the optimizers share: options, state, and a step that runs a rule on all parameters with a gradient."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, overload

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.optimizer import ParamsT

from cvcc_zoo.optim.paths import Group, Kernel, Lists, Members, State, choose_path, foreach, fused, loop
from cvcc_zoo.optim.tensors import T, are_contiguous, distributed, laid_out_as, local


def at_least_zero(options: Group, *names: str) -> None:
    """Raise ValueError unless these options are numbers from 0 on."""
    for name in names:
        if not isinstance(options[name], int | float | Tensor):
            raise ValueError(f"{name} must be a number, got {options[name]!r}")
        if not options[name] >= 0:
            raise ValueError(f"{name} must be at least 0, got {options[name]}")


def in_unit_interval(options: Group, *names: str) -> None:
    """Raise ValueError unless these options, or all their entries, are in [0, 1)."""
    for name in names:
        value = options[name]
        for share in value if isinstance(value, Sequence) else (value,):
            if not 0 <= share < 1:
                raise ValueError(f"{name} must be in [0, 1), got {value}")


UNDECIDED = ("foreach", "fused")  # None leaves the choice to the optimizer
SWITCHES = ("nesterov", "lr_inside", "unit_norm", "amsgrad", "centered", "eps_inside", "maximize", "capturable",
            "differentiable", *UNDECIDED)  # fmt: skip


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
        lr = options["lr"]
        if isinstance(lr, Tensor) and lr.numel() != 1:
            raise ValueError(f"Tensor lr must be 1-element, and this one has {lr.numel()}")
        at_least_zero(options, "lr", "weight_decay")
        for name in SWITCHES:
            undecided = name in UNDECIDED and options[name] is None
            if not (undecided or isinstance(options.get(name, False), bool)):
                raise ValueError(f"{name} is true or false, got {options[name]!r}")
        chosen = [name for name in ("foreach", "fused", "differentiable") if options[name]]
        if len(chosen) > 1:
            raise ValueError(f"{' and '.join(chosen)} exclude each other; choose one")
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

        Raises ValueError for sparse gradients, before any parameter is changed.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        members = [_with_gradients(group["params"]) for group in self.param_groups]
        with torch.set_grad_enabled(self.defaults["differentiable"]):
            for group, (params, grads) in zip(self.param_groups, members, strict=True):
                if params:
                    self.update_group(group, params, grads)
        return loss

    def check_params(self, group: Group) -> None:
        """Raise ValueError, for complex parameters RuntimeError as torch, for what this optimizer cannot take."""
        name, params = type(self).__name__, group["params"]
        if not self.complex_as_pairs and any(p.is_complex() for p in params):
            raise RuntimeError(f"{name} takes no complex parameters; view them as real ones (torch.view_as_real)")
        if params:
            params = local(params)
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

    # How it is run

    def update_group(self, group: Group, params: list[Tensor], grads: list[Tensor]) -> None:
        """One step of those parameters of a group that have a gradient."""
        names = self.state_names(group)
        states: list[State] = [self.state[p] for p in params]
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


def _with_gradients(params: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """Those that have a gradient, and the gradients. Raises ValueError for a sparse one."""
    chosen, grads = [], []
    for p in params:
        if (g := p.grad) is not None:
            if g.layout is not torch.strided:
                raise ValueError(
                    "this optimizer takes no sparse gradients; build the embedding with sparse=False, or use "
                    "torch.optim.SparseAdam"
                )
            chosen.append(p)
            grads.append(g)
    return chosen, grads


def _as_now(name: str, value: Any, p: Tensor) -> Any:
    """A kept value as this version keeps it: steps as tensors, tensors of the parameter's shape in its layout."""
    if name == "step":
        return torch.as_tensor(value, dtype=torch.float32)
    return laid_out_as(value, p) if isinstance(value, Tensor) and value.shape == p.shape else value
