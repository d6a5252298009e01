"""RMSprop: https://www.cs.toronto.edu/~tijmen/csc321/slides/lecture_slides_lec6.pdf, slide 29 (Tieleman & Hinton 2012).

    v = alpha v + (1 - alpha) g^2          AdaGrad's sum as a moving average, so that old gradients are forgotten
    w = w - lr g / (sqrt(v) + eps)

The average starts at zero and is not corrected: under a constant gradient step t is lr / sqrt(1 - alpha^t), the first
one ten times lr at alpha = 0.99. `centered` subtracts the squared mean, so that v is a variance. With `momentum` the
steps are summed up as in SGD. `eps_inside` has sqrt(v + eps), as TensorFlow does.

Units: `lr` is parameters a step. The state is one number a parameter, one more each for `centered` and `momentum`.
"""

import math
from typing import Any

import torch
from torch import Tensor
from torch.optim.adam import adam as torch_adam
from torch.optim.optimizer import ParamsT

from cvcc_zoo.optim.optimizer import RuleOptimizer
from cvcc_zoo.optim.options import at_least_zero, in_unit_interval
from cvcc_zoo.optim.paths import Group, Kernel, Lists
from cvcc_zoo.optim.tensors import T, root, subtract


def rmsprop(
    w: T,
    g: T,
    v: T,
    mean: T | None,
    b: T | None,
    step: Any,
    *,
    lr: Any,
    alpha: float = 0.99,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    momentum: float = 0.0,
    eps_inside: bool = False,
) -> None:
    """Update the parameters `w` and the averages from the gradients `g`, in place.

    `v` of squares, `mean` of the gradients if centered, `b` the buffer if there is momentum.
    """
    if weight_decay:
        g = g.add(w, alpha=weight_decay)
    v.mul_(alpha).addcmul_(g, g, value=1 - alpha)
    variance = v
    if mean is not None:
        mean.lerp_(g, 1 - alpha)
        variance = v.addcmul(mean, mean, value=-1)
    number = isinstance(step, float)
    divisor = (variance + eps).sqrt() if eps_inside else root(variance, eps, readable=number)
    if b is None:
        subtract(w, lr, g, divisor, readable=number or isinstance(lr, float))
    else:
        b.mul_(momentum).addcdiv_(g, divisor)
        subtract(w, lr, b, readable=number or isinstance(lr, float))


class RMSprop(RuleOptimizer):
    """Each coordinate's rate is that of its recent gradients.

    Args:
        params: Parameters, named parameters, or groups of them.
        lr: Learning rate, at least 0; a number, or a tensor with one element.
        alpha: Weight of the old average, in [0, 1).
        eps: Added to the root.
        weight_decay: Added to the gradient, times the parameter.
        momentum: Weight of the last steps, at least 0.
        centered: Divide by the standard deviation instead of the root mean square.
        eps_inside: Add eps under the root.
        maximize: Go up instead of down.
        foreach: Run the rule on lists of tensors; see `cvcc_zoo.optim.paths` for what is chosen by default.
        fused: Run torch's kernel of Adam, which can neither be `centered` nor have `eps_inside`.
        capturable: Keep all numbers on the device, for CUDA graphs.
        differentiable: Let the step itself be differentiated.

    Raises ValueError for options out of range.

    """

    kernel_devices = ("cpu",)

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        centered: bool = False,
        *,
        eps_inside: bool = False,
        maximize: bool = False,
        foreach: bool | None = None,
        fused: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
    ) -> None:
        options = {"lr": lr, "alpha": alpha, "eps": eps, "weight_decay": weight_decay, "momentum": momentum}
        options |= {"centered": centered, "eps_inside": eps_inside}
        how: dict[str, Any] = {"maximize": maximize, "foreach": foreach, "fused": fused}
        how |= {"capturable": capturable, "differentiable": differentiable}
        super().__init__(params, options, **how)

    def check(self, options: Group) -> None:
        """Raise ValueError for options out of range."""
        at_least_zero(options, "eps", "momentum")
        in_unit_interval(options, "alpha")

    def state_names(self, group: Group) -> tuple[str, ...]:
        """The average of squares, that of gradients, the buffer."""
        names = {"square_avg": True, "grad_avg": group["centered"], "momentum_buffer": group["momentum"]}
        return tuple(name for name, needed in names.items() if needed)

    def rule(self, group: Group, w: T, g: T, kept: dict[str, T], step: Any, *, first: bool) -> None:
        """`rmsprop` with the options of the group."""
        options = {k: group[k] for k in ("lr", "alpha", "eps", "weight_decay", "momentum", "eps_inside")}
        rmsprop(w, g, kept["square_avg"], kept.get("grad_avg"), kept.get("momentum_buffer"), step, **options)

    def kernel(self, group: Group) -> Kernel | None:
        """There is none, but torch's fused Adam is RMSprop where beta1 = 0 and the step is infinite."""
        return None if group["centered"] or group["eps_inside"] else _kernel


def _kernel(group: Group, params: list[Tensor], grads: list[Tensor], kept: Lists, first: bool) -> None:
    """Adam with m = g and without corrections, which vanish with beta^step. One scratch tensor serves as all m.

    The kernel takes one parameter after the other; what it reads from the scratch tensor is multiplied by zero. With
    momentum it steps the buffers instead of the parameters: AdamW with lr = -1 and weight_decay = momentum - 1 is
    b = momentum b + g / (sqrt(v) + eps).
    """
    torch._foreach_add_(kept["step"], 1)
    buffers = kept.get("momentum_buffer")
    if buffers and group["weight_decay"]:
        grads = list(torch._foreach_neg(grads) if group["maximize"] else torch._foreach_mul(grads, 1.0))
        torch._foreach_add_(grads, params, alpha=group["weight_decay"])
    for dtype in {p.dtype for p in params}:
        chosen = [i for i, p in enumerate(params) if p.dtype == dtype]
        scratch = torch.zeros(max(params[i].numel() for i in chosen), dtype=dtype)
        torch_adam(
            [(buffers or params)[i] for i in chosen],
            [grads[i] for i in chosen],
            [scratch.as_strided(params[i].size(), params[i].stride()) for i in chosen],
            [kept["square_avg"][i] for i in chosen],
            [],
            [torch.tensor(math.inf)] * len(chosen),
            fused=True,
            amsgrad=False,
            beta1=0.0,
            beta2=group["alpha"],
            lr=-1.0 if buffers else group["lr"],
            weight_decay=group["momentum"] - 1 if buffers else group["weight_decay"],
            decoupled_weight_decay=bool(buffers),
            eps=group["eps"],
            maximize=group["maximize"] and not (buffers and group["weight_decay"]),
        )
    if buffers:
        torch._foreach_add_(params, buffers, alpha=-group["lr"])
