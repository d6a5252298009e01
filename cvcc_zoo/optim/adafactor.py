"""Adafactor: Adam with a state of few numbers. https://arxiv.org/abs/1804.04235 (Shazeer & Stern 2018).

    r = beta2 r + (1 - beta2) mean over columns of G^2       a number for each row of the gradient G (out, in kh kw)
    c = beta2 c + (1 - beta2) mean over rows of G^2          a number for each column
    U = G / sqrt(r c^T / mean(r))                            exactly Adam's without momentum if G^2 has rank one
    W = W - rate U / max(1, RMS(U) / d)                      with rate = max(eps2, RMS(W)) min(lr, 1 / sqrt(t))

with beta2 = 1 - t^beta2_decay. Vectors have a moving average of their squares. The filters of convolutions are first
flattened to matrices. torch's Adafactor factors the last two dimensions, the 3x3 pixels of a filter: for a ResNet-18
its state has 69 % as many numbers as there are parameters, this one's less than 1 %.

Units: `lr` is a share of the parameters' size per step. The state is m + n numbers for m n parameters.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from cvcc_zoo.optim.optimizer import RuleOptimizer
from cvcc_zoo.optim.options import are_numbers, at_least_zero
from cvcc_zoo.optim.paths import Group
from cvcc_zoo.optim.tensors import T, as_matrix, each, subtract


def factored(g: T, row: T, column: T, share: float, eps: float) -> T:
    """Move `row` and `column`, in place, by `share` towards the mean squares of `g`; return their estimate (m, n)."""

    def mean_square(g: Tensor, dim: int) -> Tensor:
        mean: Tensor = torch.linalg.vector_norm(g, dim=dim, keepdim=True).square_().div_(g.size(dim))
        return mean

    row.lerp_(each(lambda g: mean_square(g, -1), g), share)
    column.lerp_(each(lambda g: mean_square(g, -2), g), share)
    estimate = each(torch.matmul, row, column)
    estimate.div_(each(lambda row: row.mean(dim=-2, keepdim=True).clamp_(min=eps), row))
    return estimate


def averaged(g: T, variance: T, share: float) -> T:
    """Move `variance`, in place, by `share` towards the squares of `g`; return a copy."""
    variance.lerp_(g * g, share)
    return variance.clone()


def smaller(lr: float | Tensor, rate: Any) -> Any:
    """Return the smaller one of two rates; the second may be tensors without dimensions."""
    if isinstance(rate, float):
        return min(lr, rate)
    limit = torch.as_tensor(lr, dtype=torch.float32)
    return each(lambda rate: torch.minimum(limit, rate), rate)


def root_mean_square(t: Tensor) -> Tensor:
    """Return the root mean square of all elements, without dimensions."""
    length: Tensor = torch.linalg.vector_norm(t)
    size: float = t.numel() ** 0.5
    return length / size


class Adafactor(RuleOptimizer):
    """Adafactor: Adam's second moment as a row and a column for each matrix, without the first moment.

    Args:
        params: Parameters, named parameters, or groups of them.
        lr: Largest relative step, at least 0; a number, or a tensor with one element.
        beta2_decay: The weight of the old average is 1 - t^beta2_decay; at most 0.
        eps: The smallest divisor (None: the rounding error of the type), and the smallest size of a parameter.
        d: Largest root mean square of an update, at least 1; longer updates are shortened.
        weight_decay: The parameters shrink by the share lr * weight_decay in a step.
        maximize: Maximize the loss instead of minimizing it.
        foreach: Run the rule on lists of tensors; `cvcc_zoo.optim.paths` says what is chosen by default.

    Raises ValueError for options out of range.

    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-2,
        beta2_decay: float = -0.8,
        eps: tuple[float | None, float] = (None, 1e-3),
        d: float = 1.0,
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
    ) -> None:
        options = {"lr": lr, "beta2_decay": beta2_decay, "eps": eps, "d": d, "weight_decay": weight_decay}
        super().__init__(params, options, maximize=maximize, foreach=foreach)

    def check(self, options: Group) -> None:
        """Raise ValueError for options out of range."""
        are_numbers(options, "beta2_decay", "d")
        if not options["beta2_decay"] <= 0:
            raise ValueError(f"beta2_decay must be at most 0, got {options['beta2_decay']}")
        if not options["d"] >= 1:
            raise ValueError(f"d must be at least 1, got {options['d']}")
        if not isinstance(options["eps"], Sequence) or len(options["eps"]) != 2:
            raise ValueError(f"eps must be two numbers, of which the first may be None, got {options['eps']!r}")
        for eps in options["eps"]:
            at_least_zero({"eps": 0 if eps is None else eps}, "eps")

    def check_params(self, group: Group) -> None:
        """Raise ValueError for parameters that are split over processes."""
        super().check_params(group)
        self.refuse_distributed(group["params"])

    def update_group(self, group: Group, params: list[Tensor], grads: list[Tensor]) -> None:
        """Make one step: the state of matrices and filters is factored, that of vectors is not."""
        for matrices in (True, False):
            if chosen := [i for i, p in enumerate(params) if (p.ndim > 1) == matrices]:
                options = {**group, "factored": matrices}
                super().update_group(options, [params[i] for i in chosen], [grads[i] for i in chosen])

    def state_names(self, group: Group) -> tuple[str, ...]:
        """Return the names of row and column for matrices, of the average for vectors."""
        return ("row_var", "col_var") if group["factored"] else ("variance",)

    def initial(self, name: str, group: Group, p: Tensor) -> Tensor:
        """Return zeros: a number for each row, for each column, or, for other names, for each element."""
        if p.ndim < 2 or name not in ("row_var", "col_var"):
            return super().initial(name, group, p)
        rows, columns = as_matrix(p).shape
        return p.new_zeros((rows, 1) if name == "row_var" else (1, columns))

    def rule(self, group: Group, w: T, g: T, kept: dict[str, T], step: Any, *, first: bool) -> None:
        """Apply the rule at the top of this file."""
        smallest, size = group["eps"]
        eps = float(torch.finfo(w.dtype).eps) if smallest is None else smallest
        share, rate = step ** group["beta2_decay"], smaller(group["lr"], 1 / step**0.5)
        lengths = each(lambda w: root_mean_square(w).clamp(min=size), w) * rate
        if group["weight_decay"]:
            w.mul_(1 - group["lr"] * group["weight_decay"])
        if group["factored"]:
            g = each(as_matrix, g)
            estimate = factored(g, kept["row_var"], kept["col_var"], share, eps)
        else:
            estimate = averaged(g, kept["variance"], share)
        update = each(lambda v, g: v.clamp_(min=eps * eps).rsqrt_().mul_(g), estimate, g)
        longer = each(lambda u: (root_mean_square(u) / group["d"]).clamp(min=1.0), update)
        update = each(lambda u, w: u.reshape(w.shape), update, w)
        subtract(w, lengths / longer, update, capturable=group["capturable"])
