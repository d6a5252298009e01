"""RMSprop: https://www.cs.toronto.edu/~tijmen/csc321/slides/lecture_slides_lec6.pdf, slide 29 (Tieleman & Hinton 2012).

    v = alpha v + (1 - alpha) g^2          AdaGrad's sum as a moving average, so that old gradients are forgotten
    w = w - lr g / (sqrt(v) + eps)

The average starts at zero and is not corrected: under a constant gradient step t is lr / sqrt(1 - alpha^t), the first
one ten times lr at alpha = 0.99. `centered` subtracts the squared mean, so that v is a variance. With `momentum` the
steps are summed up as in SGD. `eps_inside` has sqrt(v + eps), as TensorFlow does.

Units: `lr` is parameters a step. The state is one number a parameter, one more each for `centered` and `momentum`.
"""

from typing import Any

from torch import Tensor
from torch.optim.optimizer import ParamsT

from cvcc_zoo.optim.optimizer import RuleOptimizer
from cvcc_zoo.optim.options import at_least_zero, in_unit_interval
from cvcc_zoo.optim.paths import Group
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
        capturable: Keep all numbers on the device, for CUDA graphs.
        differentiable: Let the step itself be differentiated.

    Raises ValueError for options out of range.

    """

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
        capturable: bool = False,
        differentiable: bool = False,
    ) -> None:
        options = {"lr": lr, "alpha": alpha, "eps": eps, "weight_decay": weight_decay, "momentum": momentum}
        options |= {"centered": centered, "eps_inside": eps_inside}
        how: dict[str, Any] = {"maximize": maximize, "foreach": foreach}
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
