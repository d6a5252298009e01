"""A rule is written once, and runs in a loop, on lists of tensors, or as torch's kernel.

`loop`     the rule on one parameter after the other. It may be differentiated.
`foreach`  the rule on lists of parameters: one call, on an accelerator one kernel, for each operation instead of one
           for each operation and parameter. All intermediate results live at once, so on a CPU it is faster than the
           loop only while they stay in the cache.
`fused`    torch's kernel for the whole rule, where it has one: every number is read and written once. Optimizers are
           bound by memory, so this is 3 to 6 times faster than the loop on a CPU, and the fastest on a GPU.

Unless the user chooses, the fastest that fits is taken: `fused` for dense floating-point parameters on a CPU or a CUDA
device, if torch has a kernel for the rule; else `foreach` on an accelerator, and on a CPU for up to 2^22 numbers; else
`loop`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cvcc_zoo.optim.tensors import TensorList, are_contiguous, fit_kernel, laid_out_as

Group = dict[str, Any]
"""The options of a group of parameters, as in `Optimizer.param_groups`."""
State = dict[str, Tensor]
"""What is kept for a parameter, by name."""
Lists = dict[str, list[Tensor]]
"""What is kept for several parameters, by name."""
Rule = Callable[..., None]
"""Of a group, parameters, gradients, what is kept, the step, and whether what is kept is new."""
Kernel = Callable[[Group, list[Tensor], list[Tensor], Lists, bool], None]
"""Of a group, parameters, gradients, what is kept, and whether that is new. It also counts the steps."""

CACHED = 2**22
"""Numbers of parameters up to which lists of intermediate results stay in the cache: 16 MB each in float32."""


class NoKernelError(ValueError, RuntimeError):
    """`fused=True` for parameters without a kernel, where torch raises RuntimeError with the same first words."""


@dataclass(frozen=True)
class Members:
    """The parameters of a group that have a gradient, with their states, and what is in these as lists."""

    params: list[Tensor]
    grads: list[Tensor]
    states: list[State]
    kept: Lists
    steps: list[Tensor]
    """Empty if steps are not counted."""
    new: set[int]
    """Indices of the parameters for which what is kept was made just now."""
    contiguous: bool
    """Whether all parameters are."""


def choose_path(group: Group, params: list[Tensor], kernel_devices: tuple[str, ...], *, contiguous: bool) -> str:
    """The fastest way that fits, or the one that the user chose; without a kernel `kernel_devices` is empty.

    Raises ValueError if the user chose a kernel that cannot take the parameters.
    """
    if group["differentiable"]:
        return "loop"
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
    """Run the rule on one parameter after the other; complex ones are seen as pairs of real ones."""
    for i, (p, g) in enumerate(zip(members.params, members.grads, strict=True)):
        kept = {name: values[i] for name, values in members.kept.items()}
        if group["differentiable"]:  # what a step has saved for its derivative must not be changed by the next
            kept = {name: value.clone() for name, value in kept.items()}
            members.states[i].update(kept)
        step: Any = members.steps[i].add_(1) if members.steps else 0.0
        if members.steps and not (group["capturable"] or group["differentiable"]):
            step = step.item()
        if p.is_complex():
            p, g = torch.view_as_real(p), torch.view_as_real(g)
            kept = {name: torch.view_as_real(value) for name, value in kept.items()}
        rule(group, p, -g if group["maximize"] else g, kept, step, first=i in members.new)


def foreach(rule: Rule, group: Group, members: Members) -> None:
    """Run the rule on lists of parameters of one kind: the same device, type, and number of steps."""
    steps = members.steps
    if steps:
        torch._foreach_add_(steps, 1)
    kinds: dict[Any, list[int]] = {}
    for i, p in enumerate(members.params):
        step = steps[i].item() if steps and not group["capturable"] else 0.0
        kinds.setdefault((p.device, p.dtype, i in members.new, step), []).append(i)
    for (_, dtype, first, step), chosen in kinds.items():

        def gather(tensors: list[Tensor], chosen: list[int] = chosen, pairs: bool = dtype.is_complex) -> TensorList:
            return TensorList([torch.view_as_real(tensors[i]) if pairs else tensors[i] for i in chosen])

        kept = {name: gather(values) for name, values in members.kept.items()}
        count = TensorList([steps[i] for i in chosen]) if steps and group["capturable"] else step
        w, g = gather(members.params), gather(members.grads)
        rule(group, w, -g if group["maximize"] else g, kept, count, first=first)


def fused(kernel: Kernel, group: Group, members: Members) -> None:
    """Run torch's kernel. It takes memory as it lies, unchecked, so all tensors must lie as the parameter does.

    Raises ValueError for a state of other shapes, before anything changes.
    """
    params, lists = members.params, dict(members.kept)
    sizes = [*map(Tensor.numel, params)]

    def laid_out(values: list[Tensor]) -> list[Tensor]:
        if members.contiguous and are_contiguous(values):  # the usual case, fast
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
