"""Optimizers from a name and options: `{"name": "SGD", "lr": 0.1, "momentum": 0.9}`."""

import functools
import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from cvcc_zoo.kinds import is_number
from cvcc_zoo.optim.adafactor import Adafactor
from cvcc_zoo.optim.adagrad import Adagrad
from cvcc_zoo.optim.adam import Adam, AdamW
from cvcc_zoo.optim.low_rank_adam import LowRankAdam
from cvcc_zoo.optim.muon import Muon
from cvcc_zoo.optim.param_groups import by_depth, param_groups
from cvcc_zoo.optim.rmsprop import RMSprop
from cvcc_zoo.optim.sgd import SGD
from cvcc_zoo.registry import Spec, already_imported, as_spec, as_typed, check_options, imported_class, pick, unknown

OWN: dict[str, type[Optimizer]] = {
    found.__name__: found for found in (SGD, Adagrad, RMSprop, Adam, AdamW, Muon, Adafactor, LowRankAdam)
}
"""The optimizers of this package."""

OPTIMIZERS: dict[str, type[Optimizer]] = {
    name: value
    for name, value in vars(torch.optim).items()
    if inspect.isclass(value) and issubclass(value, Optimizer) and value is not Optimizer
} | OWN
"""These and torch's, by class name; torch's optimizers of the same name are `torch.optim.NAME`."""

TIMM = re.compile(r"timm\.\w+")
OWN_OPTIONS = ("decay_norms_and_biases", "layer_decay")


def plain_spec(kind: str, value: Any, known: Iterable[str] = ()) -> Spec:
    """Return a name, a dict, a class or a `functools.partial` of one as plain data that a checkpoint can hold.

    A loss may also be a function. The `known` names are recognised in any spelling (case, `-`, `_`); other names are
    left unchanged. Raises ValueError for a class or function that no import path leads to.
    """
    options: dict[str, Any] = {}
    if isinstance(value, functools.partial):
        if value.args:
            raise ValueError(f"{kind}: give the options of {value.func} by keyword in the partial")
        value, options = value.func, dict(value.keywords)
    if inspect.isclass(value) or (kind == "loss" and inspect.isfunction(value)):
        return {"name": _name_of(kind, value), **options}
    if not isinstance(value, str | Mapping):
        ways = "a class, a function" if kind == "loss" else "a class"
        raise ValueError(f"{kind} must be a name, a dict with a name, {ways} or a functools.partial, not {value!r}")
    spec = as_spec(kind, value)
    return {**spec, "name": as_typed(spec["name"], known) or spec["name"]}


def _name_of(kind: str, found: Any) -> str:
    """Return the shortest name by which a class or function is found again."""
    plain_torch = found.__module__.startswith("torch.optim.")
    if OWN.get(found.__name__) is found or (plain_torch and found.__name__ not in OWN):
        return str(found.__name__)
    if plain_torch:
        return f"torch.optim.{found.__qualname__}"
    if (path := import_path(found)) is None:
        raise ValueError(
            f"the {kind} {found.__qualname__} has no import path, which checkpoints save in its place; define it under "
            "this name at the top level of a module"
        )
    return path


def import_path(found: Any) -> str | None:
    """Return the import path of a class or function; None if it leads elsewhere, as for one inside another."""
    path = f"{found.__module__}.{found.__qualname__}"
    return path if already_imported(path) is found else None


def find_optimizer(name: str) -> Callable[..., Optimizer]:
    """Return an optimizer of this package or of torch by class name, of timm as "timm.lamb", or by import path.

    No module is imported, because a name may come from a checkpoint. Raises ValueError with the nearest names.
    """
    if name == "SparseAdam":
        raise ValueError("SparseAdam needs sparse gradients, which no layer here produces; choose Adam")
    if (meant := as_typed(name, OPTIMIZERS)) is not None:
        return OPTIMIZERS[meant]
    if TIMM.fullmatch(name):
        return _timm_optimizer(name.removeprefix("timm."))
    if "." in name:
        found: type[Optimizer] = imported_class("optimizer", name, Optimizer)
        return found
    raise unknown("optimizer", name, OPTIMIZERS)


def _timm_optimizer(name: str) -> Callable[..., Optimizer]:
    from timm.optim import get_optimizer_class, list_optimizers  # type: ignore[attr-defined]  # it has no __all__

    known = [str(each) for each in list_optimizers()]
    found: Callable[..., Optimizer] = get_optimizer_class(pick("optimizer of timm", name, known))
    return found


def check_optimizer(spec: Spec) -> None:
    """Raise ValueError if `make_optimizer` would refuse this; an import path is not followed yet."""
    _check_own_options(spec)
    if "." not in spec["name"] or TIMM.fullmatch(spec["name"]):
        options = {k: v for k, v in spec.items() if k not in ("name", *OWN_OPTIONS)}
        check_options(f"optimizer {spec['name']}", find_optimizer(spec["name"]), options, skip=("params", "self"))


def _check_own_options(spec: Spec) -> None:
    decay_all, factor = spec.get("decay_norms_and_biases", False), spec.get("layer_decay", 1.0)
    if not isinstance(decay_all, bool):
        raise ValueError(f"optimizer {spec['name']}: decay_norms_and_biases must be true or false, got {decay_all!r}")
    if not is_number(factor) or not 0 < factor <= 1:
        raise ValueError(f"optimizer {spec['name']}: layer_decay must be a factor in (0, 1], got {factor!r}")


def make_optimizer(spec: Spec, model: nn.Module) -> Optimizer:
    """Build the optimizer over the trainable parameters of a model.

    The options are those of the class and two more. `decay_norms_and_biases` (default false) applies `weight_decay` to
    norms and biases too, as in the papers of 2015 to 2017. `layer_decay` (default 1) is the factor on the learning
    rate from each part of the network to the one before it, for fine-tuning. Raises ValueError for unknown options or
    values, and for a model without trainable parameters.
    """
    _check_own_options(spec)
    options = dict(spec)
    name = options.pop("name")
    decay_all = options.pop("decay_norms_and_biases", False)
    layer_decay = options.pop("layer_decay", 1.0)
    kind = f"optimizer {name}"
    optimizer_class = find_optimizer(name)
    check_options(kind, optimizer_class, options, skip=("params", "self"))
    default = inspect.signature(optimizer_class).parameters.get("weight_decay")
    weight_decay = options.get("weight_decay", default.default if default else 0.0)
    trainable = [p for p in model.parameters() if p.requires_grad]
    if not trainable:
        raise ValueError("the model has no trainable parameter; unfreeze one (requires_grad_(True)) before training")
    groups: Any = trainable
    muon = inspect.isclass(optimizer_class) and issubclass(optimizer_class, Muon)
    if muon or (weight_decay and not decay_all):
        groups = param_groups(model, weight_decay, muon=muon, decay_norms_and_biases=decay_all)
    try:
        optimizer = optimizer_class(groups, **options)
        if layer_decay == 1:
            return optimizer
        return optimizer_class(by_depth(optimizer.param_groups, model, layer_decay), **options)
    except (ValueError, TypeError, RuntimeError) as error:
        raise ValueError(f"{kind} refuses these parameters or options: {error}") from error
