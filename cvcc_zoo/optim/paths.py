"""Three ways to run a rule that is written once: in a loop, on lists of tensors, or by torch's kernel.

`loop`     the rule on one parameter after the other.
`foreach`  the rule on lists of parameters: one call, and one kernel on an accelerator, for each operation instead of
           one for each operation and parameter. All intermediate results are alive at once, so on a CPU it is faster
           than the loop (up to 1.65 times) only while they stay in the cache.
`fused`    torch's kernel for the whole rule, if there is one: every number is read and written once. Optimizers are
           bound by memory, so this is 2.5 to 5 times as fast as the loop on a CPU.

docs/optimizers.md has the measurements. Unless the user chooses, the fastest way that fits is taken: `fused` for dense
floating-point parameters on a CPU or a CUDA device, if torch has a kernel for the rule; otherwise `foreach` on an
accelerator, and on a CPU for up to 2^22 numbers; otherwise `loop`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

import cvcc_zoo.internals.torch as internals
from cvcc_zoo.optim.tensors import TensorList, are_contiguous, fit_kernel, laid_out_as

Group = dict[str, Any]
"""The options of a group of parameters, as in `Optimizer.param_groups`."""
State = dict[str, Tensor]
"""The state of a parameter, by name."""
Lists = dict[str, list[Tensor]]
"""The state of several parameters, by name."""
Rule = Callable[..., None]
"""Takes a group, parameters, gradients, their state, the step, and whether the state is new."""
Kernel = Callable[[Group, list[Tensor], list[Tensor], Lists, bool], None]
"""Takes a group, parameters, gradients, their state, and whether that is new. Also counts the steps."""

CACHED = 2**22
"""Numbers of parameters up to which lists of intermediate results stay in the cache: 16 MB each in float32."""


class NoKernelError(ValueError, RuntimeError):
    """Error of `fused=True` for parameters without a kernel; torch raises RuntimeError with the same first words."""


@dataclass(frozen=True)
class Members:
    """The parameters of a group that have a gradient, with their states, also as lists by name."""

    params: list[Tensor]
    grads: list[Tensor]
    states: list[State]
    kept: Lists
    steps: list[Tensor]
    """The number of steps of each parameter; empty if steps are not counted."""
    new: set[int]
    """Indices of the parameters whose state was created in this step."""
    contiguous: bool
    """True if all parameters are contiguous."""


def choose_path(group: Group, params: list[Tensor], kernel_devices: tuple[str, ...], *, contiguous: bool) -> str:
    """Return the name of the way that the user chose, or of the fastest that fits.

    `kernel_devices` is empty if there is no kernel. Raises ValueError if the user chose a kernel that cannot take the
    parameters.
    """
    if group["fused"]:
        if not fit_kernel(params, kernel_devices, contiguous=contiguous):
            where = " or ".join(kernel_devices) or "no device with these options"
            raise NoKernelError(
                f"`fused=True` requires all the params to be floating point Tensors, dense, on {where}; leave fused out"
            )
        return "fused"
    if group["foreach"]:
        return "foreach"
    if group["fused"] is None and group["foreach"] is None:
        if kernel_devices and fit_kernel(params, kernel_devices, contiguous=contiguous):
            return "fused"
        if not any(p.is_cpu for p in params) or sum(p.numel() for p in params) <= CACHED:
            return "foreach"
    return "loop"


def loop(rule: Rule, group: Group, members: Members) -> None:
    """Run the rule on one parameter after the other."""
    for i, (p, g) in enumerate(zip(members.params, members.grads, strict=True)):
        kept = {name: values[i] for name, values in members.kept.items()}
        step: Any = members.steps[i].add_(1) if members.steps else 0.0
        if members.steps and not group["capturable"]:
            step = step.item()
        rule(group, p, -g if group["maximize"] else g, kept, step, first=i in members.new)


def foreach(rule: Rule, group: Group, members: Members) -> None:
    """Run the rule on lists of parameters with the same device, type and number of steps."""
    steps = members.steps
    if steps:
        internals.foreach_add_(steps, 1)
    kinds: dict[Any, list[int]] = {}
    for i, p in enumerate(members.params):
        step = steps[i].item() if steps and not group["capturable"] else 0.0
        kinds.setdefault((p.device, p.dtype, i in members.new, step), []).append(i)
    for (_, _, first, step), chosen in kinds.items():

        def gather(tensors: list[Tensor], chosen: list[int] = chosen) -> TensorList:
            return TensorList([tensors[i] for i in chosen])

        kept = {name: gather(values) for name, values in members.kept.items()}
        count = TensorList([steps[i] for i in chosen]) if steps and group["capturable"] else step
        w, g = gather(members.params), gather(members.grads)
        rule(group, w, -g if group["maximize"] else g, kept, count, first=first)


def fused(kernel: Kernel, group: Group, members: Members) -> None:
    """Run torch's kernel, after bringing all tensors into the layout of their parameters: it does not check them.

    Raises ValueError for a state of other shapes, before anything changes.
    """
    params, lists = members.params, dict(members.kept)
    sizes = [*map(Tensor.numel, params)]

    def laid_out(values: list[Tensor]) -> list[Tensor]:
        if members.contiguous and are_contiguous(values):  # the usual case, quick to see
            return values
        return [laid_out_as(value, p) for value, p in zip(values, params, strict=True)]

    for name, values in members.kept.items():
        if [*map(Tensor.numel, values)] != sizes:
            raise ValueError("the optimizer's state is for parameters of other shapes; load that of the same model")
        lists[name] = laid_out(values)
        if lists[name] is not values:
            for state, value in zip(members.states, lists[name], strict=True):
                state[name] = value
    if members.steps:
        lists["step"] = members.steps
        if not all(p.is_cpu for p in params):
            for state, p in zip(members.states, params, strict=True):
                state["step"] = state["step"].to(p.device)
            lists["step"] = [state["step"] for state in members.states]
    grads = laid_out(members.grads)
    if len(members.new) in (0, len(params)):
        kernel(group, params, grads, lists, bool(members.new))
        return
    for first in (False, True):
        chosen = [i for i in range(len(params)) if (i in members.new) == first]
        some = {name: [values[i] for i in chosen] for name, values in lists.items()}
        kernel(group, [params[i] for i in chosen], [grads[i] for i in chosen], some, first)
