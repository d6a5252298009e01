"""From a name and options to a learning-rate schedule: `{"name": "CosineAnnealingLR"}`, its length filled in.

A schedule over the whole training is stepped after every optimizer step; every other one after each epoch, as torch
documents it. `interval` ("step" or "epoch") says otherwise, `monitor` names what ReduceLROnPlateau watches.
"""

import inspect
from typing import Any

from torch.optim import Optimizer, lr_scheduler

from cvcc_zoo.registry import Spec, check_options, import_class, unknown

LR_SCHEDULERS: dict[str, type[lr_scheduler.LRScheduler]] = {
    name: value
    for name, value in vars(lr_scheduler).items()
    if inspect.isclass(value)
    and issubclass(value, lr_scheduler.LRScheduler)
    and not name.startswith("_")
    and value is not lr_scheduler.LRScheduler
}

LENGTH = {
    "CosineAnnealingLR": "T_max",
    "LinearLR": "total_iters",
    "OneCycleLR": "total_steps",
    "PolynomialLR": "total_iters",
}
"""The option of each whole-training schedule that holds its length."""


def find_lr_scheduler(name: str) -> type[lr_scheduler.LRScheduler]:
    """A torch schedule by its class name, or any by its import path. Raises ValueError with the nearest names."""
    if name in LR_SCHEDULERS:
        return LR_SCHEDULERS[name]
    if "." in name:
        found: type[lr_scheduler.LRScheduler] = import_class("lr_scheduler", name, lr_scheduler.LRScheduler)
        return found
    raise unknown("lr_scheduler", name, LR_SCHEDULERS)


def check_lr_scheduler(spec: Spec) -> None:
    """Raise ValueError now for what `make_lr_scheduler` would not take later; an import path is not followed yet."""
    name = spec["name"]
    if "." not in name:
        filled = ("optimizer", "self", LENGTH.get(name, ""), "max_lr" if name == "OneCycleLR" else "")
        options = {k: v for k, v in spec.items() if k not in ("name", "interval", "monitor", *filled)}
        check_options(f"lr_scheduler {name}", find_lr_scheduler(name), options, skip=filled)


def make_lr_scheduler(spec: Spec, optimizer: Optimizer, total_steps: int, total_epochs: int) -> dict[str, Any]:
    """Build the schedule, as the dict that Lightning's `configure_optimizers` returns.

    `total_steps` counts optimizer steps, `total_epochs` epochs, both of the whole training. Filled in where left out:
    the length of a whole-training schedule, and `max_lr` of OneCycleLR from the optimizer's `lr`.
    """
    options = dict(spec)
    name = options.pop("name")
    kind = f"lr_scheduler {name}"
    scheduler_class = find_lr_scheduler(name)
    plateau = issubclass(scheduler_class, lr_scheduler.ReduceLROnPlateau)
    length = LENGTH.get(name)
    fill = length is not None and length not in options and "epochs" not in options
    interval = options.pop("interval", "step" if fill else "epoch")
    if interval not in ("step", "epoch"):
        raise ValueError(f'{kind}: interval must be "step" or "epoch", not {interval!r}')
    placing: dict[str, Any] = {"interval": interval}
    if plateau:
        placing["monitor"] = options.pop("monitor", "val/loss")
    if length is not None and fill:
        options[length] = total_steps if interval == "step" else total_epochs
    if name == "OneCycleLR":
        options.setdefault("max_lr", [float(group["lr"]) for group in optimizer.param_groups])
    check_options(kind, scheduler_class, options, skip=("optimizer", "self"))
    try:
        return {"scheduler": scheduler_class(optimizer, **options), **placing}
    except (ValueError, TypeError, RuntimeError) as error:
        raise ValueError(f"{kind} refuses these options: {error}") from error
