"""From a name and options to a torch optimizer: `{"name": "SGD", "lr": 0.1, "momentum": 0.9}`."""

import functools
import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from cvcc_zoo.optim.param_groups import param_groups
from cvcc_zoo.registry import Spec, as_spec, check_options, import_class, unknown

OPTIMIZERS: dict[str, type[Optimizer]] = {
    name: value
    for name, value in vars(torch.optim).items()
    if inspect.isclass(value) and issubclass(value, Optimizer) and value is not Optimizer
}


OWN_OPTIONS = ("decay_norms_and_biases",)


def plain_spec(kind: str, value: Any) -> Spec:
    """A name, a dict, a class or a `functools.partial` of one as plain data that a checkpoint can hold."""
    options: dict[str, Any] = {}
    if isinstance(value, functools.partial):
        if value.args:
            raise ValueError(f"{kind}: give the options of {value.func} by keyword in the partial")
        value, options = value.func, dict(value.keywords)
    if inspect.isclass(value):
        plain_torch = value.__module__.startswith("torch.optim")
        return {"name": value.__name__ if plain_torch else f"{value.__module__}.{value.__qualname__}", **options}
    if not isinstance(value, str | Mapping):
        raise ValueError(f"{kind} must be a name, a dict with a name, a class or a functools.partial, not {value!r}")
    return as_spec(kind, value)


def find_optimizer(name: str) -> Callable[..., Optimizer]:
    """A torch optimizer by its class name, timm's as "timm.lamb", or any by its import path.

    Raises ValueError with the nearest names.
    """
    if name in OPTIMIZERS:
        return OPTIMIZERS[name]
    if re.fullmatch(r"timm\.\w+", name):
        return _timm_optimizer(name.removeprefix("timm."))
    if "." in name:
        found: type[Optimizer] = import_class("optimizer", name, Optimizer)
        return found
    raise unknown("optimizer", name, OPTIMIZERS)


def _timm_optimizer(name: str) -> Callable[..., Optimizer]:
    from timm.optim import get_optimizer_class, list_optimizers  # type: ignore[attr-defined]  # it has no __all__

    known = [str(each) for each in list_optimizers()]
    if name not in known:
        raise unknown("optimizer of timm", name, known)
    found: Callable[..., Optimizer] = get_optimizer_class(name)
    return found


def check_optimizer(spec: Spec) -> None:
    """Raise ValueError now for what `make_optimizer` would not take later; an import path is not followed yet."""
    if "." not in spec["name"] or spec["name"].startswith("timm."):
        options = {k: v for k, v in spec.items() if k not in ("name", *OWN_OPTIONS)}
        check_options(f"optimizer {spec['name']}", find_optimizer(spec["name"]), options, skip=("params", "self"))


def make_optimizer(spec: Spec, model: nn.Module) -> Optimizer:
    """Build the optimizer over the trainable parameters of a model.

    Options are those of the class, and `decay_norms_and_biases` (default false): whether `weight_decay` also
    holds for norms and biases, as in the papers of 2015 to 2017. Raises ValueError for unknown options or values.
    """
    options = dict(spec)
    name = options.pop("name")
    decay_all = bool(options.pop("decay_norms_and_biases", False))
    kind = f"optimizer {name}"
    optimizer_class = find_optimizer(name)
    check_options(kind, optimizer_class, options, skip=("params", "self"))
    default = inspect.signature(optimizer_class).parameters.get("weight_decay")
    weight_decay = options.get("weight_decay", default.default if default else 0.0)
    trainable = [p for p in model.parameters() if p.requires_grad]
    if not trainable:
        raise ValueError("the model has no trainable parameter; unfreeze one (requires_grad_(True)) before training")
    groups = trainable if decay_all or not weight_decay else param_groups(model, weight_decay)
    try:
        return optimizer_class(groups, **options)
    except (ValueError, TypeError, RuntimeError) as error:
        raise ValueError(f"{kind} refuses these parameters or options: {error}") from error
