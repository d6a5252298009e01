"""AdamW: Adam with decoupled weight decay. https://arxiv.org/abs/1711.05101 (Loshchilov & Hutter 2017).

    w = w - lr weight_decay w              the parameters themselves shrink, by the same share for all gradients
    then Adam

In Adam the decay goes through the averages and is divided by sqrt(v) like every gradient, so parameters with large
gradients are hardly decayed. Decoupled decay is no longer the gradient of a penalty lambda ||w||^2: since a step of
Adam is at most about lr, it keeps the parameters within |w| <= 1 / weight_decay. As in torch, the current rate
multiplies the decay; the paper's lambda is lr_0 weight_decay. A schedule therefore changes the regularisation.

Units: `lr` is parameters per step, `weight_decay` a share per step and rate. The state is that of Adam.
"""

from torch import Tensor
from torch.optim.optimizer import ParamsT

from cvcc_zoo.optim.adam import Adam


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
