"""AdaGrad: https://jmlr.org/papers/v12/duchi11a.html (Duchi, Hazan & Singer 2011).

    s = s + g^2                            all squared gradients of each coordinate so far
    w = w - lr g / (sqrt(s) + eps)

A coordinate with large gradients so far gets smaller steps; one that rarely has a gradient keeps large ones. Under a
constant gradient of any size, step t is lr / sqrt(t). The sum only grows, so the rate only falls. The rates are those
of the axes: if the landscape is rotated against them, they do not help.

Units: `lr` is parameters per step. The state is one number per parameter.
"""

from typing import Any

import torch
from torch import Tensor
from torch.optim.adagrad import adagrad as torch_adagrad
from torch.optim.optimizer import ParamsT

from cvcc_zoo.optim.optimizer import RuleOptimizer
from cvcc_zoo.optim.options import at_least_zero
from cvcc_zoo.optim.paths import Group, Kernel, Lists
from cvcc_zoo.optim.tensors import T, subtract


class Adagrad(RuleOptimizer):
    """AdaGrad: the rate of each coordinate falls with the squared gradients so far.

    Args:
        params: Parameters, named parameters, or groups of them.
        lr: Learning rate, at least 0; a number, or a tensor with one element.
        lr_decay: The rate of step t is lr / (1 + (t - 1) lr_decay), in addition to what AdaGrad does.
        weight_decay: Factor on the parameters, which are then added to the gradient.
        initial_accumulator_value: Initial value of the sum, at least 0.
        eps: Added to the root of the sum.
        maximize: Maximize the loss instead of minimizing it.
        foreach: Run the rule on lists of tensors; `cvcc_zoo.optim.paths` says what is chosen by default.
        fused: Run torch's fused kernel, on a CPU.

    Raises ValueError for options out of range.

    """

    kernel_devices = ("cpu",)

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-2,
        lr_decay: float = 0.0,
        weight_decay: float = 0.0,
        initial_accumulator_value: float = 0.0,
        eps: float = 1e-10,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        fused: bool | None = None,
    ) -> None:
        options = {"lr": lr, "lr_decay": lr_decay, "weight_decay": weight_decay, "eps": eps}
        options |= {"initial_accumulator_value": initial_accumulator_value}
        super().__init__(params, options, maximize=maximize, foreach=foreach, fused=fused)

    def check(self, options: Group) -> None:
        """Raise ValueError for options out of range."""
        at_least_zero(options, "lr_decay", "initial_accumulator_value", "eps")

    def state_names(self, group: Group) -> tuple[str, ...]:
        """Return the sum of squared gradients."""
        return ("sum",)

    def initial(self, name: str, group: Group, p: Tensor) -> Tensor:
        """Return the sum before the first step."""
        return torch.full_like(p, group["initial_accumulator_value"], requires_grad=False)

    def rule(self, group: Group, w: T, g: T, kept: dict[str, T], step: Any, *, first: bool) -> None:
        """Update `w` and the sum from the gradients `g`, in place; `step` counts from 1."""
        s, lr_decay, weight_decay = kept["sum"], group["lr_decay"], group["weight_decay"]
        if weight_decay:
            g = g.add(w, alpha=weight_decay)
        s.addcmul_(g, g)
        rate = group["lr"] / (1 + (step - 1) * lr_decay)
        subtract(w, rate, g, s.sqrt().add_(group["eps"]), capturable=group["capturable"])

    def kernel(self, group: Group) -> Kernel | None:
        """Return torch's fused AdaGrad."""
        return _kernel


def _kernel(group: Group, params: list[Tensor], grads: list[Tensor], kept: Lists, first: bool) -> None:
    options = {name: group[name] for name in ("lr", "lr_decay", "weight_decay", "eps", "maximize")}
    torch_adagrad(params, grads, kept["sum"], kept["step"], fused=True, **options)
