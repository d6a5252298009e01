"""LowRankAdam: Adam in the few directions that matter. https://arxiv.org/abs/2403.03507 (GaLore, Zhao et al. 2024).

    P = the first r left singular vectors of the gradient G (m, n), m <= n, computed again every `update_every` steps
    R = P^T G                              (r, n): the gradient in these directions
    D = the step of Adam for R             with a state as small as R
    W = (1 - lr weight_decay) W + scale P D

The update has rank r, and the state m r + 2 r n numbers instead of 2 m n. At full rank this is Adam in a rotated basis.
When the directions change, the averages are kept as they are, as in the paper. A filter (out, in, kh, kw) is a matrix
(out, in kh kw), and one that is higher than wide is transposed. Vectors, and matrices with at most `rank` rows or
columns, are updated by AdamW itself.

Units: `lr` is parameters per step along a direction, before `scale`.
"""

import math
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from cvcc_zoo.kinds import check_whole
from cvcc_zoo.optim.adam import AdamW
from cvcc_zoo.optim.optimizer import RuleOptimizer
from cvcc_zoo.optim.options import at_least_zero
from cvcc_zoo.optim.paths import Group, Kernel
from cvcc_zoo.optim.tensors import T, as_matrix, each


def wide(t: Tensor) -> Tensor:
    """Return a parameter or gradient as a matrix (m, n) with m <= n."""
    matrix = as_matrix(t)
    return matrix.mT if matrix.size(0) > matrix.size(1) else matrix


def leading_directions(g: Tensor, rank: int) -> Tensor:
    """Return the left singular vectors (m, rank) of a matrix (m, n) with the largest singular values.

    They are the eigenvectors of G G^T, which is small, computed at least in float32. Their largest components are
    positive: a direction has no sign, but the averages, which outlive it, do. They are NaN if `g` is not finite.
    """
    if not g.isfinite().all():  # LAPACK would raise an error in the middle of the step
        return g.new_full((g.size(0), rank), math.nan)
    g = g.to(torch.promote_types(g.dtype, torch.float32))
    directions: Tensor = torch.linalg.eigh(g @ g.mT).eigenvectors[:, -rank:]
    return directions * directions.gather(0, directions.abs().argmax(0, keepdim=True)).sign()


class LowRankAdam(AdamW):
    """AdamW in the leading directions of each matrix's gradient (GaLore).

    Args:
        params: Parameters, named parameters, or groups of them.
        lr: Learning rate, at least 0; a number, or a tensor with one element.
        weight_decay: The parameters shrink by the share lr * weight_decay in a step.
        rank: Number of directions of a matrix.
        update_every: Number of steps between computations of the directions.
        scale: Factor on the updates of matrices.
        maximize: Maximize the loss instead of minimizing it.
        foreach: Run the rule on lists of tensors; `cvcc_zoo.optim.paths` says what is chosen by default.

    Raises ValueError for options out of range.

    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-2,
        weight_decay: float = 1e-2,
        rank: int = 32,
        update_every: int = 200,
        scale: float = 0.25,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
    ) -> None:
        options: Group = {"lr": lr, "weight_decay": weight_decay, "rank": rank, "update_every": update_every}
        options |= {"scale": scale, "betas": (0.9, 0.999), "eps": 1e-8, "amsgrad": False}
        RuleOptimizer.__init__(self, params, options, maximize=maximize, foreach=foreach)

    def check(self, options: Group) -> None:
        """Raise ValueError for options out of range."""
        super().check(options)
        at_least_zero(options, "scale")
        for name in ("rank", "update_every"):
            check_whole(name, options[name], 1)

    def check_params(self, group: Group) -> None:
        """Raise ValueError for large matrices that are split over processes."""
        super().check_params(group)
        self.refuse_distributed([p for p in group["params"] if _large(p, group)])

    def update_group(self, group: Group, params: list[Tensor], grads: list[Tensor]) -> None:
        """Make one step: large matrices in few directions, everything else by AdamW."""
        large = [_large(p, group) for p in params]
        for low_rank in {*large}:
            chosen = [i for i, value in enumerate(large) if value == low_rank]
            options = {**group, "low_rank": low_rank}
            super().update_group(options, [params[i] for i in chosen], [grads[i] for i in chosen])

    def state_names(self, group: Group) -> tuple[str, ...]:
        """Return AdamW's names and, for large matrices, that of the directions."""
        return (*super().state_names(group), *(["projection"] if group["low_rank"] else []))

    def initial(self, name: str, group: Group, p: Tensor) -> Tensor:
        """Return zeros: the averages (rank, n) and the directions (m, rank) of a matrix; for other names its shape."""
        own = name in ("projection", "exp_avg", "exp_avg_sq")
        if not (own and group.get("low_rank", _large(p, group))):
            return super().initial(name, group, p)
        rows, columns = wide(p).shape
        return p.new_zeros((rows, group["rank"]) if name == "projection" else (group["rank"], columns))

    def kernel(self, group: Group) -> Kernel | None:
        """Return AdamW's kernel for the parameters that AdamW updates."""
        return None if group.get("low_rank") else super().kernel(group)

    def rule(self, group: Group, w: T, g: T, kept: dict[str, T], step: Any, *, first: bool) -> None:
        """Apply the rule at the top of this file, or AdamW's."""
        if not group["low_rank"]:
            super().rule(group, w, g, kept, step, first=first)
            return
        g, directions = each(wide, g), kept["projection"]
        if (step - 1) % group["update_every"] == 0:
            each(lambda p, g: p.copy_(leading_directions(g, p.size(1))), directions, g)
        if group["weight_decay"]:
            w.mul_(1 - group["lr"] * group["weight_decay"])
        small = each(lambda p, g: p.mT @ g, directions, g)
        change = small * 0.0
        how = {**group, "lr": group["lr"] * group["scale"], "weight_decay": 0.0}
        super().rule(how, change, small, kept, step, first=first)
        each(_add_projected, w, directions, change)


def _large(p: Tensor, group: Group) -> bool:
    return p.ndim > 1 and min(len(p), p.numel() // max(1, len(p))) > group["rank"]


def _add_projected(w: Tensor, directions: Tensor, change: Tensor) -> Tensor:
    full = directions @ change
    rows = as_matrix(w).size(0)
    return w.add_((full if full.size(0) == rows else full.mT).reshape(w.shape))
