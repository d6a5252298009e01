"""Muon: momentum, orthogonalised. https://kellerjordan.github.io/posts/muon/ (Jordan et al. 2024).

    b = momentum b + (1 - momentum) g      matrices (out, in); filters (out, in, kh, kw) flattened to (out, in kh kw)
    u = g + momentum (b - g)               Nesterov's step ahead
    w = (1 - lr weight_decay) w - lr scale UV^T(u)

`UV^T` sets all singular values of the update to about one (`newton_schulz`), so that no direction is neglected because
its gradients are small. `scale` is sqrt(max(1, out / in)) of the flattened shape. Muon orthogonalises; it does not
approximate the optimizer's state, as the course says: Adafactor and LowRankAdam do that. Its state is one number per
parameter, half of Adam's.

With `unit_norm` a matrix is scaled to Frobenius norm sqrt(out) before each of its steps, as in airbench94
(https://github.com/KellerJordan/cifar10-airbench): the mean squared length of its rows is 1. If a norm follows, the
length of the weights does not change what the network computes, only the angle by which a step turns them. With a fixed
length, `lr` alone sets this angle, and it does not shrink as weights grow.

An orthogonal update makes sense for a matrix between hidden layers. Biases, norms, and the first and the last layer
are updated by AdamW, in the same optimizer: `cvcc_zoo.optim.param_groups(model, ..., muon=True)` makes the groups. With
`sgd_lr` they are updated by SGD with Nesterov's momentum instead, as in airbench94.

Units: `lr` times the scale is about the spectral norm of an update; `adamw_lr` and `bias_lr` are parameters per step;
`sgd_lr`, and `bias_lr` with it, are parameters per gradient.
"""

import functools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from cvcc_zoo.kinds import check_whole
from cvcc_zoo.optim.adam import AdamW
from cvcc_zoo.optim.newton_schulz import MUON, coefficients_of, orthogonalise
from cvcc_zoo.optim.optimizer import RuleOptimizer
from cvcc_zoo.optim.options import are_several, at_least_zero, in_unit_interval
from cvcc_zoo.optim.paths import Group
from cvcc_zoo.optim.replay import Replay, can_replay
from cvcc_zoo.optim.sgd import SGD
from cvcc_zoo.optim.tensors import T, TensorList, as_matrix, subtract
from cvcc_zoo.registry import unknown

BATCHED = 2**16
"""Largest number of elements for which a CPU is faster with all matrices of a shape in one batch."""
ADAMW_BETAS = (0.9, 0.95)
"""Of AdamW for what Muon does not update: https://github.com/KellerJordan/Muon"""

SCALES = {
    "original": lambda out, into: math.sqrt(max(1.0, out / into)),  # https://kellerjordan.github.io/posts/muon/
    "match_rms_adamw": lambda out, into: 0.2 * math.sqrt(max(out, into)),  # https://arxiv.org/abs/2502.16982
    "spectral_unclamped": lambda out, into: math.sqrt(out / into),  # https://jeremybernste.in/writing/deriving-muon
}
"""Factors on an update (out, in). With "match_rms_adamw" a parameter moves as far as with AdamW at the same rate."""


def momentum_update(g: T, b: T, *, momentum: float, nesterov: bool) -> T:
    """Add the gradients `g` to the buffer `b`, in place, and return the update before it is orthogonalised."""
    b.lerp_(g, 1 - momentum)
    return g.lerp(b, momentum) if nesterov else b


class Muon(AdamW):
    """Muon for matrices and filters, AdamW or SGD for everything else.

    Muon updates the groups with `use_muon` true, AdamW or SGD those with false; if the key is missing, it is true if
    all parameters of the group have two dimensions or more.

    Args:
        params: Groups of parameters, best made by `cvcc_zoo.optim.param_groups(model, muon=True)`.
        lr: Times the scale about the spectral norm of an update, at least 0; a number, or a tensor with one element.
        weight_decay: The parameters shrink by the share lr * weight_decay in a step.
        momentum: Weight of the old buffer, in [0, 1).
        nesterov: Use the gradient as if the next step of the momentum had already been made.
        ns_coefficients: Three numbers, or "polar_express", which converges to exactly orthogonal updates.
        ns_steps: Number of Newton-Schulz steps.
        adjust_lr_fn: The scale of an update: original (None means the same), match_rms_adamw or spectral_unclamped.
        unit_norm: Scale each of Muon's matrices to Frobenius norm sqrt(out) before its step, unless `lr` is 0. Only for
            layers that a norm follows: in others the length of the weights matters.
        adamw_lr: Learning rate of the groups without `use_muon` that have no `lr` of their own.
        bias_lr: The same for groups of vectors, such as biases and norms. None means sgd_lr if given, else adamw_lr.
        eps: Added to AdamW's root; the smallest norm that Muon divides by.
        sgd_lr: Update the groups without `use_muon` by SGD instead of AdamW, at this rate if they have no `lr`.
        sgd_momentum: Momentum of that SGD, in [0, 1); Nesterov's if `nesterov`. Its weight decay is torch's.
        maximize: Maximize the loss instead of minimizing it.
        foreach: Orthogonalise all matrices of one shape in one batch, and run AdamW on lists of tensors. None does so
            on an accelerator, and on a CPU for small matrices.

    Raises ValueError for options out of range, for groups with both matrices and vectors, and for vectors alone.

    """

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
        unit_norm: bool = False,
        adamw_lr: float = 0.003,
        bias_lr: float | None = None,
        eps: float = 1e-8,
        sgd_lr: float | None = None,
        sgd_momentum: float = 0.9,
        maximize: bool = False,
        foreach: bool | None = None,
    ) -> None:
        options: dict[str, Any] = {"lr": lr, "weight_decay": weight_decay, "momentum": momentum, "nesterov": nesterov}
        options |= {"ns_coefficients": ns_coefficients, "ns_steps": ns_steps, "adjust_lr_fn": adjust_lr_fn}
        options |= {"unit_norm": unit_norm, "adamw_lr": adamw_lr, "bias_lr": bias_lr, "eps": eps, "use_muon": None}
        options |= {"sgd_lr": sgd_lr, "sgd_momentum": sgd_momentum, "betas": ADAMW_BETAS, "amsgrad": False}
        params = list(params) if isinstance(params, Iterator) else params
        RuleOptimizer.__init__(self, params, options, maximize=maximize, foreach=foreach)
        chosen = any(isinstance(each, dict) and ("use_muon" in each or "lr" in each) for each in params)
        if not chosen and not any(group["use_muon"] for group in self.param_groups):
            raise ValueError("Muon leaves vectors to AdamW, at adamw_lr; set use_muon=False for them, or choose AdamW")

    def check(self, options: Group) -> None:
        """Raise ValueError for options out of range."""
        super().check(options)
        at_least_zero(options, "adamw_lr", *(name for name in ("bias_lr", "sgd_lr") if options[name] is not None))
        in_unit_interval(options, "momentum", "sgd_momentum")
        check_whole("ns_steps", options["ns_steps"], 1, 100)
        if isinstance(named := options["ns_coefficients"], str) and named != "polar_express":
            raise ValueError(f'ns_coefficients are three numbers or "polar_express", got {named}')
        if not isinstance(named, str):
            are_several(options, "ns_coefficients", 3)
        if options["adjust_lr_fn"] not in (None, *SCALES):
            raise unknown("adjust_lr_fn", options["adjust_lr_fn"], SCALES)

    def check_params(self, group: Group) -> None:
        """Raise ValueError for a group with both matrices and vectors."""
        super().check_params(group)
        matrices = [p.ndim >= 2 for p in group["params"]]
        if group["use_muon"] is None and any(matrices) and not all(matrices):
            raise ValueError(
                "a group has matrices for Muon and vectors for AdamW; make groups by "
                "cvcc_zoo.optim.param_groups(model, muon=True), or set use_muon in each of your groups"
            )
        if group["use_muon"] and not all(matrices):
            raise ValueError("use_muon needs parameters of two dimensions or more; set it to False for vectors")
        if group["use_muon"] is not False and all(matrices):
            self.refuse_distributed(group["params"])

    def add_param_group(self, param_group: Group) -> None:
        """Add a group; the class says what its `use_muon` means. Raises ValueError before anything changes."""
        own_rate = isinstance(param_group, dict) and "lr" in param_group
        super().add_param_group(param_group)
        group = _routed(self.param_groups[-1])
        if not group["use_muon"] and not own_rate:
            vectors = group["bias_lr"] is not None and all(p.ndim <= 1 for p in group["params"])
            others = group["adamw_lr"] if group["sgd_lr"] is None else group["sgd_lr"]
            group["lr"] = group["bias_lr"] if vectors else others

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Load a state, also one that torch's Muon saved."""
        super().__setstate__(state)
        for group in self.param_groups:
            _routed(group)

    def update_group(self, group: Group, params: list[Tensor], grads: list[Tensor]) -> None:
        """Make one step of the parameters of a group that have a gradient."""
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
        if group["foreach"] is not False and not group["capturable"] and can_replay(params):
            self._orthogonal_step(group, shapes, self._replay)
        else:
            for shape in shapes:
                self._orthogonal_step(group, [shape])

    @functools.cached_property
    def _sgd(self) -> SGD:
        """The SGD that steps groups with `sgd_lr`, with the options and the state of this optimizer."""
        return SGD([torch.zeros(1)])

    @functools.cached_property
    def _replay(self) -> Replay:
        """The Newton-Schulz steps as a CUDA graph."""
        return Replay()

    def _orthogonal_step(
        self, group: Group, shapes: list[tuple[list[Tensor], list[Tensor]]], replay: Replay | None = None
    ) -> None:
        """Update parameters from gradients; each pair of lists holds those whose matrices have one shape."""
        how = {"momentum": group["momentum"], "nesterov": group["nesterov"]}
        updates = []
        for params, grads in shapes:
            g, b = TensorList(grads), TensorList([self.state[p]["momentum_buffer"] for p in params])
            flat = [as_matrix(u) for u in momentum_update(-g if group["maximize"] else g, b, **how)]
            updates.append(torch.stack(flat) if len(flat) > 1 else flat[0])
        dtype = precision(updates[0])
        steps = coefficients_of(group["ns_coefficients"], group["ns_steps"])

        def orthogonal(matrices: list[Tensor]) -> list[Tensor]:
            return [orthogonalise(each, steps, dtype=dtype, eps=group["eps"]) for each in matrices]

        found = orthogonal(updates) if replay is None else replay(orthogonal, updates, (*steps, dtype, group["eps"]))
        for (params, _), orthogonalised in zip(shapes, found, strict=True):
            directions = orthogonalised if len(params) > 1 else orthogonalised[None]
            rate = group["lr"] * SCALES[group["adjust_lr_fn"] or "original"](*(max(1, n) for n in directions[0].shape))
            for p, direction in zip(params, directions, strict=True):
                if group["unit_norm"]:
                    _normalise(p, group)
                if group["weight_decay"]:
                    p.mul_(1 - group["lr"] * group["weight_decay"])
                step = direction.reshape(p.shape)
                subtract(p, rate, step.to(p.dtype) if group["capturable"] else step, capturable=group["capturable"])


def precision(p: Tensor) -> torch.dtype:
    """Return the type of the Newton-Schulz steps: bfloat16 on a CUDA device, otherwise at least float32.

    The original has bfloat16 everywhere, but many CPUs emulate it, and the Gram matrix needs float32.
    """
    return torch.bfloat16 if p.device.type == "cuda" else torch.promote_types(p.dtype, torch.float32)


def _normalise(p: Tensor, group: Group) -> None:
    """Scale a matrix to Frobenius norm sqrt(out), in place, unless the learning rate is 0."""
    if not group["capturable"] and not group["lr"]:
        return
    factor = math.sqrt(len(p)) / p.norm().clamp(min=group["eps"])
    p.mul_(torch.where(group["lr"] > 0, factor, 1.0) if group["capturable"] else factor)


def _routed(group: Group) -> Group:
    """Fill in `use_muon` of a group, in place, and return the group."""
    if group["use_muon"] is None:
        group["use_muon"] = all(p.ndim >= 2 for p in group["params"])
    return group
