"""RMSprop: https://www.cs.toronto.edu/~tijmen/csc321/slides/lecture_slides_lec6.pdf, slide 29 (Tieleman & Hinton 2012).

    v = alpha v + (1 - alpha) g^2          AdaGrad's sum as a moving average, which forgets old gradients
    w = w - lr g / (sqrt(v) + eps)

The average starts at zero and is not corrected: under a constant gradient step t is lr / sqrt(1 - alpha^t), the first
one ten times lr at alpha = 0.99. `centered` subtracts the squared mean, so that v is a variance. With `momentum` the
steps are summed as in SGD. TensorFlow has sqrt(v + eps) instead.

Units: `lr` is parameters per step. The state is one number per parameter, one more each for `centered` and `momentum`.
"""

from typing import Any

from torch import Tensor
from torch.optim.optimizer import ParamsT

from cvcc_zoo.optim.optimizer import RuleOptimizer
from cvcc_zoo.optim.options import at_least_zero, in_unit_interval
from cvcc_zoo.optim.paths import Group
from cvcc_zoo.optim.tensors import T, subtract


class RMSprop(RuleOptimizer):
    """RMSprop: each gradient is divided by the root mean square of the recent ones.

    Args:
        params: Parameters, named parameters, or groups of them.
        lr: Learning rate, at least 0; a number, or a tensor with one element.
        alpha: Weight of the old average, in [0, 1).
        eps: Added to the root.
        weight_decay: Factor on the parameters, which are then added to the gradient.
        momentum: Weight of the last steps, at least 0.
        centered: Divide by the standard deviation instead of the root mean square.
        maximize: Maximize the loss instead of minimizing it.
        foreach: Run the rule on lists of tensors; `cvcc_zoo.optim.paths` says what is chosen by default.
        capturable: Keep all numbers on the device, for CUDA graphs.

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
        maximize: bool = False,
        foreach: bool | None = None,
        capturable: bool = False,
    ) -> None:
        options = {"lr": lr, "alpha": alpha, "eps": eps, "weight_decay": weight_decay, "momentum": momentum}
        options |= {"centered": centered}
        super().__init__(params, options, maximize=maximize, foreach=foreach, capturable=capturable)

    def check(self, options: Group) -> None:
        """Raise ValueError for options out of range."""
        at_least_zero(options, "eps", "momentum")
        in_unit_interval(options, "alpha")

    def state_names(self, group: Group) -> tuple[str, ...]:
        """Return the averages of squares and of gradients, and the buffer, as far as they are needed."""
        names = {"square_avg": True, "grad_avg": group["centered"], "momentum_buffer": group["momentum"]}
        return tuple(name for name, needed in names.items() if needed)

    def rule(self, group: Group, w: T, g: T, kept: dict[str, T], step: Any, *, first: bool) -> None:
        """Update `w`, the averages, and the buffer if there is momentum, from the gradients `g`, in place."""
        lr, alpha, eps, momentum = (group[name] for name in ("lr", "alpha", "eps", "momentum"))
        if group["weight_decay"]:
            g = g.add(w, alpha=group["weight_decay"])
        v = kept["square_avg"]
        v.mul_(alpha).addcmul_(g, g, value=1 - alpha)
        variance = v  # without `centered`, the mean square itself
        if (mean := kept.get("grad_avg")) is not None:
            mean.lerp_(g, 1 - alpha)
            variance = v.addcmul(mean, mean, value=-1)
        root = variance.sqrt().add_(eps)
        if (b := kept.get("momentum_buffer")) is None:
            subtract(w, lr, g, root, capturable=group["capturable"])
        else:
            b.mul_(momentum).addcdiv_(g, root)
            subtract(w, lr, b, capturable=group["capturable"])
