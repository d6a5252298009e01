"""The rules of the optimizers in NumPy, as their papers have them: one parameter, one step at a time."""

from collections.abc import Callable
from typing import Any

import numpy as np

Array = Any
"""A numpy array of float64, in the parameter's shape."""
Memory = dict[str, Array]
Rule = Callable[..., Array]


def sgd(
    w: Array, g: Array, t: int, kept: Memory, *, lr: float, momentum: float = 0, dampening: float = 0,
    weight_decay: float = 0, nesterov: bool = False,
) -> Array:  # fmt: skip
    g = g + weight_decay * w
    if momentum:
        kept["b"] = g if t == 1 else momentum * kept["b"] + (1 - dampening) * g
        g = g + momentum * kept["b"] if nesterov else kept["b"]
    return w - lr * g


def adagrad(
    w: Array, g: Array, t: int, kept: Memory, *, lr: float, lr_decay: float = 0, weight_decay: float = 0,
    initial_accumulator_value: float = 0, eps: float = 1e-10,
) -> Array:  # fmt: skip
    g = g + weight_decay * w
    kept["s"] = kept.get("s", initial_accumulator_value) + g**2
    return w - lr / (1 + (t - 1) * lr_decay) * g / (np.sqrt(kept["s"]) + eps)


def rmsprop(
    w: Array, g: Array, t: int, kept: Memory, *, lr: float, alpha: float = 0.99, eps: float = 1e-8,
    weight_decay: float = 0, momentum: float = 0, centered: bool = False,
) -> Array:  # fmt: skip
    g = g + weight_decay * w
    kept["v"] = alpha * kept.get("v", 0) + (1 - alpha) * g**2
    kept["m"] = alpha * kept.get("m", 0) + (1 - alpha) * g
    variance = kept["v"] - kept["m"] ** 2 if centered else kept["v"]
    step = g / (np.sqrt(variance) + eps)
    kept["b"] = momentum * kept.get("b", 0) + step
    return w - lr * (kept["b"] if momentum else step)


def adam(
    w: Array, g: Array, t: int, kept: Memory, *, lr: float, betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8, weight_decay: float = 0, amsgrad: bool = False,
) -> Array:  # fmt: skip
    g = g + weight_decay * w
    kept["m"] = betas[0] * kept.get("m", 0) + (1 - betas[0]) * g
    kept["v"] = betas[1] * kept.get("v", 0) + (1 - betas[1]) * g**2
    kept["top"] = np.maximum(kept.get("top", 0), kept["v"])
    second = (kept["top"] if amsgrad else kept["v"]) / (1 - betas[1] ** t)
    change = lr * kept["m"] / (1 - betas[0] ** t) / (np.sqrt(second) + eps)
    return w - change


def adamw(w: Array, g: Array, t: int, kept: Memory, *, weight_decay: float = 0.01, **options: Any) -> Array:
    return adam(w, g, t, kept, **options) - options["lr"] * weight_decay * w


def orthogonal(x: Array, steps: list[tuple[float, float, float]]) -> Array:
    """The polynomials on the singular values themselves."""
    u, s, vt = np.linalg.svd(x / np.linalg.norm(x), full_matrices=False)
    for a, b, c in steps:
        s = a * s + b * s**3 + c * s**5
    return u * s @ vt


POLAR_EXPRESS = [  # https://github.com/NoahAmsel/PolarExpress
    (8.237312490495555, -23.157747414558198, 16.680568411445915),
    (4.082441999064835, -2.893047735332586, 0.5252849256975648),
    (3.9263479922546582, -2.8547468034765298, 0.5318022422894988),
    (3.2982187133085143, -2.424541981026706, 0.48632008358844075),
    (2.2970369434552573, -1.63662558125903, 0.4002628455953627),
]


def muon(
    w: Array, g: Array, t: int, kept: Memory, *, lr: float, adamw_lr: float = 0.003, weight_decay: float = 0,
    momentum: float = 0.95, nesterov: bool = True, ns_coefficients: Any = (3.4445, -4.7750, 2.0315), ns_steps: int = 5,
    adjust_lr_fn: str = "original", unit_norm: bool = False,
    bias_lr: float | None = None, sgd_lr: float | None = None, sgd_momentum: float = 0.9,
) -> Array:  # fmt: skip
    if w.ndim < 2 and sgd_lr is not None:
        rate = sgd_lr if bias_lr is None else bias_lr
        return sgd(w, g, t, kept, lr=rate, momentum=sgd_momentum, weight_decay=weight_decay, nesterov=nesterov)
    if w.ndim < 2:
        rate = adamw_lr if bias_lr is None else bias_lr
        return adamw(w, g, t, kept, lr=rate, weight_decay=weight_decay, betas=(0.9, 0.95))
    kept["b"] = momentum * kept.get("b", 0) + g
    u = g + momentum * kept["b"] if nesterov else kept["b"]
    matrix = u.reshape(len(u), -1)
    rows, columns = matrix.shape
    steps = POLAR_EXPRESS if ns_coefficients == "polar_express" else [ns_coefficients] * ns_steps
    scale = {"original": max(1, rows / columns) ** 0.5, "match_rms_adamw": 0.2 * max(rows, columns) ** 0.5}
    change = orthogonal(matrix, steps).reshape(w.shape)
    if unit_norm:
        w = w * (len(w) / (w**2).sum()) ** 0.5
    return w - lr * weight_decay * w - lr * scale[adjust_lr_fn] * change


def rms(x: Array) -> float:
    return float(np.sqrt((x**2).mean()))


def adafactor(
    w: Array, g: Array, t: int, kept: Memory, *, lr: float, beta2_decay: float = -0.8, d: float = 1.0,
    weight_decay: float = 0,
) -> Array:  # fmt: skip
    beta2, eps = 1 - t**beta2_decay, np.finfo(np.float64).eps
    rate = max(1e-3, rms(w)) * min(lr, t**-0.5)
    if w.ndim > 1:
        squares = g.reshape(len(g), -1) ** 2
        kept["r"] = beta2 * kept.get("r", 0) + (1 - beta2) * squares.mean(1)
        kept["c"] = beta2 * kept.get("c", 0) + (1 - beta2) * squares.mean(0)
        estimate = (np.outer(kept["r"], kept["c"]) / max(kept["r"].mean(), eps)).reshape(g.shape)
    else:
        estimate = kept["v"] = beta2 * kept.get("v", 0) + (1 - beta2) * g**2
    u = g / np.sqrt(np.maximum(estimate, eps**2))
    return w - lr * weight_decay * w - rate * u / max(1, rms(u) / d)


def low_rank_adam(
    w: Array, g: Array, t: int, kept: Memory, *, lr: float, rank: int, update_every: int = 200, scale: float = 0.25,
    weight_decay: float = 0.01,
) -> Array:  # fmt: skip
    matrix = g.reshape(len(g), -1) if g.ndim > 1 else np.zeros((1, 1))
    if min(matrix.shape) <= rank:
        return adamw(w, g, t, kept, lr=lr, weight_decay=weight_decay)
    turned = matrix.shape[0] > matrix.shape[1]
    matrix = matrix.T if turned else matrix
    if (t - 1) % update_every == 0:
        p = np.linalg.svd(matrix)[0][:, :rank]
        kept["p"] = p * np.sign(np.take_along_axis(p, np.abs(p).argmax(0)[None], 0))  # the largest is positive
    small = kept["p"].T @ matrix
    change = kept["p"] @ adam(np.zeros_like(small), small, t, kept, lr=lr * scale)
    return w * (1 - lr * weight_decay) + (change.T if turned else change).reshape(w.shape)


RULES: dict[str, Rule] = {
    "SGD": sgd,
    "Adagrad": adagrad,
    "RMSprop": rmsprop,
    "Adam": adam,
    "AdamW": adamw,
    "Muon": muon,
    "Adafactor": adafactor,
    "LowRankAdam": low_rank_adam,
}
