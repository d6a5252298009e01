"""SGD: gradient descent with momentum. https://www.cs.toronto.edu/~hinton/absps/momentum.pdf (Sutskever et al. 2013).

    g = g + weight_decay w                     the gradient of weight_decay / 2 ||w||^2: twice the course's lambda
    b = momentum b + (1 - dampening) g         a sum of all gradients, the one of k steps ago weighted by momentum^k
    w = w - lr b                               or, with Nesterov, w - lr (g + momentum b)

The sum is not normalised: under a constant gradient the step grows to lr / (1 - momentum), ten times lr at 0.9. The
rate stands outside of it, as in the course and in torch, so that a change of the rate holds for old gradients too.
With `lr_inside` it is b = momentum b + lr g, w = w - b, as Sutskever's paper and Caffe have it: the same for a
constant rate, but after a drop of the rate, the old, larger steps go on for about 1 / (1 - momentum) steps.

Units: `lr` is parameters per gradient: it scales with the loss. The state is one number a parameter, none without
momentum.
"""

from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT
from torch.optim.sgd import sgd as torch_sgd

from cvcc_zoo.optim.optimizer import RuleOptimizer
from cvcc_zoo.optim.options import at_least_zero
from cvcc_zoo.optim.paths import Group, Kernel, Lists
from cvcc_zoo.optim.tensors import Number, T, subtract


def sgd(
    w: T,
    g: T,
    b: T | None,
    *,
    lr: Any,
    momentum: float = 0.0,
    dampening: float = 0.0,
    weight_decay: float = 0.0,
    nesterov: bool = False,
    lr_inside: bool = False,
    first: bool = False,
) -> None:
    """Update the parameters `w` and the buffer `b` (zeros before the `first` step) from the gradients `g`, in place.

    The first gradient is taken whole: dampening starts with the second.
    """
    if weight_decay:
        g = g.add(w, alpha=weight_decay)
    rate: Number = lr
    if lr_inside:
        g, rate = g * lr, 1.0
    if b is not None:
        b.mul_(0.0 if first else momentum).add_(g, alpha=1.0 if first else 1 - dampening)
        g = g.add(b, alpha=momentum) if nesterov else b
    subtract(w, rate, g, readable=not (isinstance(rate, Tensor) and rate.requires_grad))


class SGD(RuleOptimizer):
    """Stochastic gradient descent, with momentum or Nesterov's momentum.

    Args:
        params: Parameters, named parameters, or groups of them.
        lr: Learning rate, at least 0; a number, or a tensor with one element.
        momentum: Weight of the last step's buffer in the next, at least 0, below 1 for the sum to converge.
        dampening: Share of each gradient that does not go into the buffer.
        weight_decay: Added to the gradient, times the parameter. Twice the course's lambda.
        nesterov: Take the gradient as if the next step of the momentum were already made.
        lr_inside: Put the rate into the buffer (Sutskever, Caffe).
        maximize: Go up instead of down.
        foreach: Run the rule on lists of tensors; see `cvcc_zoo.optim.paths` for what is chosen by default.
        fused: Run torch's kernel.
        differentiable: Let the step itself be differentiated.

    Raises ValueError for options out of range.

    """

    counts_steps = False
    takes_sparse = True

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        *,
        lr_inside: bool = False,
        maximize: bool = False,
        foreach: bool | None = None,
        fused: bool | None = None,
        differentiable: bool = False,
    ) -> None:
        options = {"lr": lr, "momentum": momentum, "dampening": dampening, "weight_decay": weight_decay}
        options |= {"nesterov": nesterov, "lr_inside": lr_inside}
        super().__init__(
            params, options, maximize=maximize, foreach=foreach, fused=fused, differentiable=differentiable
        )

    def check(self, options: Group) -> None:
        """Raise ValueError for options out of range."""
        at_least_zero(options, "momentum")
        if options["nesterov"] and (options["momentum"] == 0 or options["dampening"] != 0):
            raise ValueError("nesterov needs a momentum above 0 and no dampening")

    def state_names(self, group: Group) -> tuple[str, ...]:
        """The buffer, if there is momentum."""
        return ("momentum_buffer",) if group["momentum"] else ()

    def moves_rows_alone(self, group: Group) -> bool:
        """Without momentum alone: a buffer goes on moving rows that have a gradient no more."""
        return super().moves_rows_alone(group) and not group["momentum"]

    def rule(self, group: Group, w: T, g: T, kept: dict[str, T], step: Any, *, first: bool) -> None:
        """`sgd` with the options of the group."""
        names = ("lr", "momentum", "dampening", "weight_decay", "nesterov", "lr_inside")
        sgd(w, g, kept.get("momentum_buffer"), **{name: group[name] for name in names}, first=first)

    def kernel(self, group: Group) -> Kernel | None:
        """There is one for torch's form, the rate outside."""
        return None if group["lr_inside"] else _kernel


def _kernel(group: Group, params: list[Tensor], grads: list[Tensor], kept: Lists, first: bool) -> None:
    zeros = kept.get("momentum_buffer", [])
    buffers: list[Tensor | None] = [*zeros] if zeros and not first else [None] * len(params)
    names = ("lr", "momentum", "dampening", "weight_decay", "nesterov", "maximize")
    torch_sgd(params, grads, buffers, fused=True, **{name: group[name] for name in names})
    if first:  # None tells the kernel to take the first gradient whole; it made buffers of its own
        torch._foreach_copy_(zeros, [buffer for buffer in buffers if buffer is not None])
