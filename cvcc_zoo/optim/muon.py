"""Muon: momentum, orthogonalised. https://kellerjordan.github.io/posts/muon/ (Jordan et al. 2024).

    b = momentum b + (1 - momentum) g      matrices (out, in); filters (out, in, kh, kw) flattened to (out, in kh kw)
    u = g + momentum (b - g)               Nesterov's step ahead
    w = (1 - lr weight_decay) w - lr scale UV^T(u)

`UV^T` sets all singular values of the update to about one (`newton_schulz`), so that no direction is neglected
because its gradients are small. `scale` is sqrt(max(1, out / in)) of the flattened shape. It orthogonalises; it does
not approximate the optimizer's state, as the course has it: that is what Adafactor and LowRankAdam do. Its state is
one number a parameter, half of Adam's.

With `unit_norm` a matrix is scaled to Frobenius norm sqrt(out) before each of its steps, as airbench94 does
(https://github.com/KellerJordan/cifar10-airbench): its rows have length 1 in the mean. Where a norm follows, the length
changes nothing but how far a step turns the weights: that share is now `lr`, and does not shrink while they grow.

An orthogonal update makes sense for a matrix between hidden layers. Biases, norms, and the first and the last layer
go to AdamW, in the same optimizer: `cvcc_zoo.optim.param_groups(model, ..., muon=True)` makes the groups. With `sgd_lr`
they go to SGD with Nesterov's momentum instead, as airbench94 has it.

Units: `lr` is the spectral norm of an update; `adamw_lr` and `bias_lr` are parameters a step; `sgd_lr`, and `bias_lr`
beside it, are parameters per gradient.
"""

import functools
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from cvcc_zoo.optim.adamw import AdamW
from cvcc_zoo.optim.newton_schulz import MUON, coefficients_of, orthogonalise
from cvcc_zoo.optim.optimizer import RuleOptimizer
from cvcc_zoo.optim.options import at_least_zero, in_unit_interval
from cvcc_zoo.optim.paths import Group
from cvcc_zoo.optim.replay import Replay, can_replay
from cvcc_zoo.optim.sgd import SGD
from cvcc_zoo.optim.tensors import T, TensorList, as_matrix
from cvcc_zoo.registry import unknown

BATCHED = 2**16
"""Numbers of a matrix up to which a CPU is faster with all matrices of a shape at once."""
DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32, "float64": torch.float64}

SCALES = {
    "original": lambda out, into: math.sqrt(max(1.0, out / into)),  # https://kellerjordan.github.io/posts/muon/
    "match_rms_adamw": lambda out, into: 0.2 * math.sqrt(max(out, into)),  # https://arxiv.org/abs/2502.16982
    "spectral_unclamped": lambda out, into: math.sqrt(out / into),  # https://jeremybernste.in/writing/deriving-muon
}
"""Of the flattened shape. With "match_rms_adamw" a parameter moves as far as with AdamW at the same rate."""


def momentum_update(g: T, b: T, *, momentum: float, nesterov: bool) -> T:
    """Add the gradients `g` to the buffer `b`, in place, and return what is to be orthogonalised."""
    b.lerp_(g, 1 - momentum)
    return g.lerp(b, momentum) if nesterov else b


class Muon(AdamW):
    """Muon for matrices and filters, AdamW or SGD for everything else.

    A group with `use_muon` true takes Muon's update, one with false the other's; without the key it is true if all
    parameters of the group have two dimensions or more.

    Args:
        params: Groups of parameters, best made by `cvcc_zoo.optim.param_groups(model, muon=True)`.
        lr: Spectral norm of an update, at least 0; a number, or a tensor with one element.
        weight_decay: Share by which the parameters shrink in a step, per learning rate.
        momentum: Weight of the old buffer, in [0, 1).
        nesterov: Take the gradient as if the next step of the momentum were already made.
        ns_coefficients: Three numbers, or "polar_express", which converges to exactly orthogonal updates.
        ns_steps: How many Newton-Schulz steps are made.
        adjust_lr_fn: The scale of an update: original (None means the same), match_rms_adamw or spectral_unclamped.
        ns_dtype: Precision of the Newton-Schulz steps: bfloat16, float32 or float64. None takes bfloat16 on a CUDA
            device, and on others float32, or float64 for float64 parameters: then they run on the Gram matrix.
        unit_norm: Scale each of Muon's matrices to Frobenius norm sqrt(out) before its step, unless `lr` is 0. Only for
            layers that a norm follows: others lose what the length of their weights says.
        adamw_lr: Learning rate of the groups without `use_muon` that have none of their own.
        bias_lr: The same for those that hold vectors alone: biases, scales and shifts of norms. None takes adamw_lr, or
            sgd_lr where that is given.
        betas: AdamW's weights of the old averages, in [0, 1).
        eps: Added to AdamW's root; the smallest norm that Muon divides by.
        sgd_lr: Give the groups without `use_muon` to SGD, not to AdamW, at this rate if they have none of their own.
        sgd_momentum: Of that SGD, in [0, 1); Nesterov's if `nesterov`. Its `weight_decay` is added to the gradient.
        maximize: Go up instead of down.
        foreach: Orthogonalise all matrices of one shape at once, and run AdamW on lists of tensors. None does so on an
            accelerator, and on a CPU with small matrices.
        fused: Run torch's kernel for AdamW's groups; Muon has none.

    Raises ValueError for options out of range, and for groups that hold both matrices and vectors.

    """

    complex_as_pairs = False

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 0.02,
        weight_decay: float = 0.0,
        momentum: float = 0.95,
        nesterov: bool = True,
        ns_coefficients: Sequence[float] | str = MUON,
        ns_steps: int = 5,
        adjust_lr_fn: str | None = None,
        *,
        ns_dtype: str | None = None,
        unit_norm: bool = False,
        adamw_lr: float = 0.003,
        bias_lr: float | None = None,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-8,
        sgd_lr: float | None = None,
        sgd_momentum: float = 0.9,
        maximize: bool = False,
        foreach: bool | None = None,
        fused: bool | None = None,
    ) -> None:
        options: dict[str, Any] = {"lr": lr, "weight_decay": weight_decay, "momentum": momentum, "nesterov": nesterov}
        options |= {"ns_coefficients": ns_coefficients, "ns_steps": ns_steps, "ns_dtype": ns_dtype}
        options |= {"adjust_lr_fn": adjust_lr_fn, "unit_norm": unit_norm, "adamw_lr": adamw_lr, "bias_lr": bias_lr}
        options |= {"betas": betas, "eps": eps, "amsgrad": False, "use_muon": None}
        options |= {"sgd_lr": sgd_lr, "sgd_momentum": sgd_momentum}
        RuleOptimizer.__init__(self, params, options, maximize=maximize, foreach=foreach, fused=fused)

    def check(self, options: Group) -> None:
        """Raise ValueError for options out of range."""
        super().check(options)
        at_least_zero(options, "adamw_lr")
        at_least_zero(options, *(name for name in ("bias_lr", "sgd_lr") if options[name] is not None))
        in_unit_interval(options, "momentum", "sgd_momentum")
        if not (isinstance(options["ns_steps"], int) and 1 <= options["ns_steps"] <= 100):
            raise ValueError(f"ns_steps must be a number from 1 to 100, got {options['ns_steps']}")
        named = options["ns_coefficients"]
        if named != "polar_express" and (isinstance(named, str) or len(named) != 3):
            raise ValueError(f'ns_coefficients are three numbers or "polar_express", got {named}')
        for option, known in (("adjust_lr_fn", SCALES), ("ns_dtype", DTYPES)):
            if options[option] is not None and options[option] not in known:
                raise unknown(option, options[option], known)

    def check_params(self, group: Group) -> None:
        """Raise ValueError for a group of matrices and vectors together."""
        super().check_params(group)
        matrices = [p.ndim >= 2 for p in group["params"]]
        if group["use_muon"] is None:
            if any(matrices) and not all(matrices):
                raise ValueError(
                    "a group has matrices for Muon and vectors for AdamW; make groups by "
                    "cvcc_zoo.optim.param_groups(model, muon=True), or set use_muon in each of yours"
                )
        elif group["use_muon"] and not all(matrices):
            raise ValueError("use_muon needs parameters of two dimensions or more; set it to False for vectors")
        if group["use_muon"] is not False and all(matrices):
            self.refuse_distributed(group["params"])

    def add_param_group(self, param_group: Group) -> None:
        """Take one more group; see the class for what its `use_muon` is. Raises ValueError before anything changes."""
        own_rate = isinstance(param_group, dict) and "lr" in param_group
        super().add_param_group(param_group)
        group = _routed(self.param_groups[-1])
        if not group["use_muon"] and not own_rate:
            vectors = group["bias_lr"] is not None and all(p.ndim <= 1 for p in group["params"])
            others = group["adamw_lr"] if group["sgd_lr"] is None else group["sgd_lr"]
            group["lr"] = group["bias_lr"] if vectors else others

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Read what torch's Muon saved, too."""
        super().__setstate__(state)
        for group in self.param_groups:
            _routed(group)

    def update_group(self, group: Group, params: list[Tensor], grads: list[Tensor]) -> None:
        """One step of those parameters of a group that have a gradient."""
        if not group["use_muon"]:
            if group["sgd_lr"] is None:
                super().update_group(group, params, grads)
            else:
                self._sgd.state = self.state
                how = {**self._sgd.defaults, **group, "momentum": group["sgd_momentum"]}
                self._sgd.update_group(how, params, grads)
            return
        kinds: dict[Any, list[int]] = {}
        for i, p in enumerate(params):
            if "momentum_buffer" not in self.state[p]:
                self.state[p]["momentum_buffer"] = self.initial("momentum_buffer", group, p)
            alone = group["foreach"] is False or (p.is_cpu and p.numel() > BATCHED and not group["foreach"])
            kind = i if alone else (as_matrix(p).shape, p.dtype, p.device)
            kinds.setdefault(kind, []).append(i)
        shapes = [([params[i] for i in chosen], [grads[i] for i in chosen]) for chosen in kinds.values()]
        if group["foreach"] is not False and can_replay(params):
            self._orthogonal_step(group, shapes, self._replay)
        else:
            for shape in shapes:
                self._orthogonal_step(group, [shape])

    @functools.cached_property
    def _sgd(self) -> SGD:
        """The rule of groups with `sgd_lr`; options and state are those of this optimizer."""
        return SGD([torch.zeros(1)])

    @functools.cached_property
    def _replay(self) -> Replay:
        """Newton-Schulz as a CUDA graph."""
        return Replay()

    def _orthogonal_step(
        self, group: Group, shapes: list[tuple[list[Tensor], list[Tensor]]], replay: Replay | None = None
    ) -> None:
        """Muon's update of parameters and gradients; each pair holds those whose matrices have one shape."""
        how = {"momentum": group["momentum"], "nesterov": group["nesterov"]}
        updates = []
        for params, grads in shapes:
            g, b = TensorList(grads), TensorList([self.state[p]["momentum_buffer"] for p in params])
            flat = [as_matrix(u) for u in momentum_update(-g if group["maximize"] else g, b, **how)]
            updates.append(torch.stack(flat) if len(flat) > 1 else flat[0])
        dtype = DTYPES[group["ns_dtype"]] if group["ns_dtype"] else _default_dtype(updates[0])
        steps = coefficients_of(group["ns_coefficients"], group["ns_steps"])

        def orthogonal(matrices: list[Tensor]) -> list[Tensor]:
            return [orthogonalise(each, steps, dtype=dtype, eps=group["eps"]) for each in matrices]

        key = (*steps, dtype, group["eps"])
        found = orthogonal(updates) if replay is None else replay(orthogonal, updates, key)
        for (params, _), orthogonalised in zip(shapes, found, strict=True):
            directions = orthogonalised if len(params) > 1 else orthogonalised[None]
            rate = group["lr"] * SCALES[group["adjust_lr_fn"] or "original"](*directions[0].shape)
            for p, direction in zip(params, directions, strict=True):
                if group["unit_norm"] and group["lr"]:
                    p.mul_(math.sqrt(len(p)) / p.norm().clamp(min=group["eps"]))
                if group["weight_decay"]:
                    p.mul_(1 - group["lr"] * group["weight_decay"])
                p.add_(direction.reshape(p.shape), alpha=-rate)


def _default_dtype(p: Tensor) -> torch.dtype:
    if p.device.type == "cuda":
        return torch.bfloat16
    return torch.promote_types(p.dtype, torch.float32)


def _routed(group: Group) -> Group:
    """The group with `use_muon` said."""
    if group["use_muon"] is None:
        group["use_muon"] = all(p.ndim >= 2 for p in group["params"])
    return group
