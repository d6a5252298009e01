"""SGD: gradient descent with momentum. https://www.cs.toronto.edu/~hinton/absps/momentum.pdf (Sutskever et al. 2013).

    g = g + weight_decay w                     the gradient of weight_decay / 2 ||w||^2: twice the course's lambda
    b = momentum b + (1 - dampening) g         a sum of all gradients, the one of k steps ago weighted by momentum^k
    w = w - lr b                               or, with Nesterov, w - lr (g + momentum b)

The sum is not normalised: under a constant gradient the step grows to lr / (1 - momentum), ten times lr at 0.9. The
rate is outside of it, as in the course and in torch, so a change of the rate also applies to old gradients. Sutskever's
paper and Caffe have it inside, b = momentum b + lr g, w = w - b: the same for a constant rate, but after the rate
drops, the old, larger steps continue for about 1 / (1 - momentum) steps.

Units: `lr` is parameters per gradient: the best one scales inversely with the loss. The state is one number per
parameter, none without momentum.
"""

from typing import Any

from torch import Tensor
from torch.optim.optimizer import ParamsT
from torch.optim.sgd import sgd as torch_sgd

import cvcc_zoo.internals.torch as internals
from cvcc_zoo.optim.optimizer import RuleOptimizer
from cvcc_zoo.optim.options import are_numbers, at_least_zero
from cvcc_zoo.optim.paths import Group, Kernel, Lists
from cvcc_zoo.optim.tensors import T, subtract


class SGD(RuleOptimizer):
    """Stochastic gradient descent, with momentum or Nesterov's momentum.

    Args:
        params: Parameters, named parameters, or groups of them.
        lr: Learning rate, at least 0; a number, or a tensor with one element.
        momentum: Weight of the last step's buffer in the next, at least 0, below 1 for the sum to converge.
        dampening: Share of each gradient that does not go into the buffer.
        weight_decay: Factor on the parameters, which are then added to the gradient; twice the course's lambda.
        nesterov: Use the gradient as if the next step of the momentum had already been made.
        maximize: Maximize the loss instead of minimizing it.
        foreach: Run the rule on lists of tensors; `cvcc_zoo.optim.paths` says what is chosen by default.
        fused: Run torch's fused kernel.

    Raises ValueError for options out of range.

    """

    counts_steps = False

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        fused: bool | None = None,
    ) -> None:
        options = {"lr": lr, "momentum": momentum, "dampening": dampening, "weight_decay": weight_decay}
        options |= {"nesterov": nesterov}
        super().__init__(params, options, maximize=maximize, foreach=foreach, fused=fused)

    def check(self, options: Group) -> None:
        """Raise ValueError for options out of range."""
        at_least_zero(options, "momentum")
        are_numbers(options, "dampening")
        if options["nesterov"] and (options["momentum"] == 0 or options["dampening"] != 0):
            raise ValueError("nesterov needs a momentum above 0 and no dampening")

    def state_names(self, group: Group) -> tuple[str, ...]:
        """Return the buffer if there is momentum."""
        return ("momentum_buffer",) if group["momentum"] else ()

    def rule(self, group: Group, w: T, g: T, kept: dict[str, T], step: Any, *, first: bool) -> None:
        """Update `w` and the buffer, which is zero before the `first` step, from the gradients `g`, in place.

        The first gradient enters the buffer undamped; dampening starts with the second.
        """
        momentum, dampening, weight_decay = group["momentum"], group["dampening"], group["weight_decay"]
        if weight_decay:
            g = g.add(w, alpha=weight_decay)
        if (b := kept.get("momentum_buffer")) is not None:
            if first:
                b.add_(g)
            else:
                b.mul_(momentum).add_(g, alpha=1 - dampening)
            g = g.add(b, alpha=momentum) if group["nesterov"] else b
        subtract(w, group["lr"], g, capturable=group["capturable"])

    def kernel(self, group: Group) -> Kernel | None:
        """Return torch's fused SGD."""
        return _kernel


def _kernel(group: Group, params: list[Tensor], grads: list[Tensor], kept: Lists, first: bool) -> None:
    zeros = kept.get("momentum_buffer", [])
    buffers: list[Tensor | None] = [*zeros] if zeros and not first else [None] * len(params)
    names = ("lr", "momentum", "dampening", "weight_decay", "nesterov", "maximize")
    torch_sgd(params, grads, buffers, fused=True, **{name: group[name] for name in names})
    if first:  # for None the kernel makes buffers of its own, with the first gradient undamped
        internals.foreach_copy_(zeros, [buffer for buffer in buffers if buffer is not None])
