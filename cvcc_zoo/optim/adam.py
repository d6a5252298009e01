"""Adam (https://arxiv.org/abs/1412.6980, algorithm 1, Kingma & Ba 2014), and AdamW, which decouples the decay.

    m = beta1 m + (1 - beta1) g            moving average of the gradients: momentum, normalised
    v = beta2 v + (1 - beta2) g^2          moving average of their squares, as in RMSprop
    w = w - lr m' / (sqrt(v') + eps)       with m' = m / (1 - beta1^t), v' = v / (1 - beta2^t)

The averages start at zero; divided by the sum of their weights, they are unbiased from the first step t = 1: under a
constant gradient every step is lr. `amsgrad` takes the largest v so far (https://arxiv.org/abs/1904.09237), so that
a rare, large gradient is not forgotten. As in torch, the largest is corrected, too: the rate of a coordinate may grow
while 1 - beta2^t does, but not later.

AdamW (https://arxiv.org/abs/1711.05101, Loshchilov & Hutter 2017) decouples the weight decay:

    w = w - lr weight_decay w              the parameters themselves shrink, by the same share for all gradients
    then Adam

In Adam the decay goes through the averages and is divided by sqrt(v) like every gradient, so parameters with large
gradients are hardly decayed. Decoupled decay is no longer the gradient of a penalty lambda ||w||^2: since a step of
Adam is at most about lr, it keeps the parameters within |w| <= 1 / weight_decay. As in torch, the current rate
multiplies the decay; the paper's lambda is lr_0 weight_decay. A schedule therefore changes the regularisation.

Units: `lr` is parameters per step, AdamW's `weight_decay` a share per step and rate. The state is two numbers per
parameter, three with `amsgrad`.
"""

from typing import Any

from torch import Tensor
from torch.optim.adam import adam as torch_adam
from torch.optim.optimizer import ParamsT

from cvcc_zoo.optim.optimizer import RuleOptimizer
from cvcc_zoo.optim.options import are_several, at_least_zero, in_unit_interval
from cvcc_zoo.optim.paths import Group, Kernel, Lists
from cvcc_zoo.optim.tensors import T, subtract


class Adam(RuleOptimizer):
    """Adam: momentum, divided by the root mean square of recent gradients.

    Args:
        params: Parameters, named parameters, or groups of them.
        lr: Learning rate, at least 0; a number, or a tensor with one element.
        betas: Weights of the old averages of gradients and of squares, in [0, 1).
        eps: Added to the root.
        weight_decay: Factor on the parameters, which are then added to the gradient, unlike in AdamW.
        amsgrad: Divide by the root of the largest average so far.
        maximize: Maximize the loss instead of minimizing it.
        foreach: Run the rule on lists of tensors; `cvcc_zoo.optim.paths` says what is chosen by default.
        fused: Run torch's fused kernel.
        capturable: Keep all numbers on the device, for CUDA graphs.

    Raises ValueError for options out of range.

    """

    decoupled = False
    """True if weight decay shrinks the parameters themselves."""

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        fused: bool | None = None,
        capturable: bool = False,
    ) -> None:
        options = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "amsgrad": amsgrad}
        super().__init__(params, options, maximize=maximize, foreach=foreach, fused=fused, capturable=capturable)

    def check(self, options: Group) -> None:
        """Raise ValueError for options out of range."""
        at_least_zero(options, "eps")
        are_several(options, "betas", 2)
        in_unit_interval(options, "betas")
        tensors = [isinstance(beta, Tensor) for beta in options["betas"]]
        if tensors[0] != tensors[1]:
            raise ValueError(f"betas must be either both floats or both Tensors, got {options['betas']}")
        if tensors[0] and options["foreach"] and not options.get("capturable"):
            raise ValueError("betas[0] as a Tensor is not supported for capturable=False and foreach=True; take floats")

    def state_names(self, group: Group) -> tuple[str, ...]:
        """Return the averages of gradients and of squares and, with amsgrad, the largest of the latter."""
        return ("exp_avg", "exp_avg_sq", *(["max_exp_avg_sq"] if group["amsgrad"] else []))

    def rule(self, group: Group, w: T, g: T, kept: dict[str, T], step: Any, *, first: bool) -> None:
        """Update `w` and the averages from the gradients `g`, in place; `step` counts from 1."""
        if group["weight_decay"]:
            if self.decoupled:
                w.mul_(1 - group["lr"] * group["weight_decay"])
            else:
                g = g.add(w, alpha=group["weight_decay"])
        m, v, (beta1, beta2), lr = kept["exp_avg"], kept["exp_avg_sq"], group["betas"], group["lr"]
        m.lerp_(g, 1 - beta1)
        v.mul_(beta2).addcmul_(g, g, value=1 - beta2)
        if (largest := kept.get("max_exp_avg_sq")) is not None:
            v = largest.copy_(largest.maximum(v))
        root = (v.sqrt() / (1 - beta2**step) ** 0.5).add_(group["eps"])
        subtract(w, lr / (1 - beta1**step), m, root, capturable=group["capturable"])

    def kernel(self, group: Group) -> Kernel | None:
        """Return torch's fused Adam."""
        return self._run_adam

    def _run_adam(self, group: Group, params: list[Tensor], grads: list[Tensor], kept: Lists, first: bool) -> None:
        beta1, beta2 = group["betas"]
        torch_adam(
            params,
            grads,
            kept["exp_avg"],
            kept["exp_avg_sq"],
            kept.get("max_exp_avg_sq", []),
            kept["step"],
            fused=True,
            decoupled_weight_decay=self.decoupled,
            beta1=beta1,
            beta2=beta2,
            **{name: group[name] for name in ("lr", "weight_decay", "eps", "amsgrad", "maximize")},
        )


class AdamW(Adam):
    """AdamW: Adam whose weight decay shrinks the parameters themselves.

    Args:
        params: Parameters, named parameters, or groups of them.
        lr: Learning rate, at least 0; a number, or a tensor with one element.
        betas: Weights of the old averages of gradients and of squares, in [0, 1).
        eps: Added to the root.
        weight_decay: The parameters shrink by the share lr * weight_decay in a step.
        amsgrad: Divide by the root of the largest average so far.
        maximize: Maximize the loss instead of minimizing it.
        foreach: Run the rule on lists of tensors; `cvcc_zoo.optim.paths` says what is chosen by default.
        fused: Run torch's fused kernel.
        capturable: Keep all numbers on the device, for CUDA graphs.

    Raises ValueError for options out of range.

    """

    decoupled = True

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        fused: bool | None = None,
        capturable: bool = False,
    ) -> None:
        super().__init__(
            params, lr, betas, eps, weight_decay, amsgrad,
            maximize=maximize, foreach=foreach, fused=fused, capturable=capturable,
        )  # fmt: skip
