"""Schedules from a name and options, `{"name": "QuarterCosine", "warmup": 0.1}`; their length is filled in.

The schedules of this package are closed forms (`curves.py`); every schedule of torch has a name too. OneCycleLR,
CyclicLR, and schedules that span the whole training run are stepped after every optimizer step, others after each
epoch. `interval` ("step" or "epoch") overrides this; `monitor` names the metric that ReduceLROnPlateau watches.
"""

import inspect
from typing import Any

from torch.optim import Optimizer, lr_scheduler

from cvcc_zoo.kinds import is_number
from cvcc_zoo.optim.curves import CURVES, check_warmup, make_factor
from cvcc_zoo.registry import Spec, as_typed, check_known, check_options, imported_class, unknown

LR_SCHEDULERS: dict[str, type[lr_scheduler.LRScheduler]] = {
    name: value
    for name, value in vars(lr_scheduler).items()
    if inspect.isclass(value)
    and issubclass(value, lr_scheduler.LRScheduler)
    and not name.startswith("_")
    and value is not lr_scheduler.LRScheduler
}

SCHEDULES = (*CURVES, *LR_SCHEDULERS)
"""The names of all schedules: those of this package and of torch."""

INTERVALS = ("epoch", "step")
LENGTH = {
    "CosineAnnealingLR": "T_max",
    "LinearLR": "total_iters",
    "OneCycleLR": "total_steps",
    "PolynomialLR": "total_iters",
}
"""The option of each whole-training schedule that holds its length."""

CYCLES = (lr_scheduler.OneCycleLR, lr_scheduler.CyclicLR)
"""Schedules that torch documents as stepped after every batch."""

DIVISORS = ("step_size", "T_max")
"""Options that torch divides by only after the first epoch."""


def find_lr_scheduler(name: str) -> type[lr_scheduler.LRScheduler]:
    """Return a torch schedule by its class name, or an imported one by its import path; import no module.

    Raises ValueError with the nearest names.
    """
    if (meant := as_typed(name, LR_SCHEDULERS)) is not None:
        return LR_SCHEDULERS[meant]
    if "." in name:
        found: type[lr_scheduler.LRScheduler] = imported_class("lr_scheduler", name, lr_scheduler.LRScheduler)
        return found
    raise unknown("lr_scheduler", name, SCHEDULES)


def check_lr_scheduler(spec: Spec) -> None:
    """Raise ValueError if `make_lr_scheduler` would refuse this; an import path is not followed yet."""
    name = spec["name"]
    if name in CURVES:
        _check_curve(spec)
    elif "." not in name:
        filled = ("optimizer", "self", LENGTH.get(name, ""), "max_lr" if name == "OneCycleLR" else "")
        options = {k: v for k, v in spec.items() if k not in ("name", "interval", "monitor", *filled)}
        check_options(f"lr_scheduler {name}", find_lr_scheduler(name), options, skip=filled)


def filled_length(spec: Spec) -> str | None:
    """Return the option of a schedule of torch that is filled in with the length of the training, or None."""
    length = LENGTH.get(spec["name"])
    return None if length is None or length in spec or "epochs" in spec else length


def has_other_length(spec: Spec | None, config: Any, total_steps: int, total_epochs: int) -> bool:
    """Return whether a schedule, in a config of Lightning's, was filled in with the length of another training."""
    if spec is None or (option := filled_length(spec)) is None:
        return False
    length = total_steps if config.interval == "step" else total_epochs
    return bool(getattr(config.scheduler, option, length) != length)


def make_lr_scheduler(spec: Spec, optimizer: Optimizer, total_steps: int, total_epochs: int) -> dict[str, Any]:
    """Build the schedule, as the dict that Lightning's `configure_optimizers` returns.

    `total_steps` counts optimizer steps, `total_epochs` epochs, both of the whole training run. Filled in if missing:
    the length of a schedule that spans the run, and `max_lr` of OneCycleLR from the optimizer's `lr`. `cycle_momentum`
    of OneCycleLR and CyclicLR is false by default. Raises ValueError for unknown or invalid options, and for an
    optimizer without `lr`.
    """
    if any(group.get("lr") is None for group in optimizer.param_groups):
        raise ValueError(
            f"a schedule changes the lr of an optimizer, and {type(optimizer).__name__} has none; give one, or leave "
            "the schedule out"
        )
    if spec["name"] in CURVES:
        return _make_curve(spec, optimizer, total_steps, total_epochs)
    options = dict(spec)
    name = options.pop("name")
    kind = f"lr_scheduler {name}"
    scheduler_class = find_lr_scheduler(name)
    plateau = issubclass(scheduler_class, lr_scheduler.ReduceLROnPlateau)
    length = filled_length(spec)
    by_step = length is not None or issubclass(scheduler_class, CYCLES)
    interval = options.pop("interval", "step" if by_step else "epoch")
    check_known(f"interval of {kind}", INTERVALS, interval)
    placing: dict[str, Any] = {"interval": interval}
    if plateau:
        placing["monitor"] = options.pop("monitor", "val/loss")
    if length is not None:
        options[length] = total_steps if interval == "step" else total_epochs
    if name == "OneCycleLR":
        options.setdefault("max_lr", [float(group["lr"]) for group in optimizer.param_groups])
    if name in ("OneCycleLR", "CyclicLR"):
        options.setdefault("cycle_momentum", False)  # torch's default would change the momentum that the user chose
    check_options(kind, scheduler_class, options, skip=("optimizer", "self"))
    try:
        for option in DIVISORS:
            if option in options and not options[option] > 0:
                raise ValueError(f"{option} must be above 0, not {options[option]}")
        if options.get("cycle_momentum"):
            _check_momentum(optimizer)
        return {"scheduler": scheduler_class(optimizer, **options), **placing}
    except ZeroDivisionError as error:
        raise ValueError(
            f"{kind} divides by 0 in a training of {total_steps} steps and {total_epochs} epochs; choose a larger "
            "pct_start (of OneCycleLR) or step_size_up (of CyclicLR)"
        ) from error
    except (ValueError, TypeError, RuntimeError) as error:
        raise ValueError(f"{kind} refuses these options: {error}") from error


def _check_momentum(optimizer: Optimizer) -> None:
    """Raise ValueError unless torch changes the momentum of each group: `momentum`, or Adam's first beta."""
    name = type(optimizer).__name__
    for group in optimizer.param_groups:
        problem = "" if (group["betas"][0] if "betas" in group else group.get("momentum")) else f"this {name} has none"
        if "betas" in group and "momentum" in group:  # Muon, with the betas of its AdamW
            problem = f"torch would change that of AdamW alone in {name}"
        if problem:
            raise ValueError(
                f"cycle_momentum=true changes the momentum, and {problem}; set lr_scheduler.cycle_momentum=false"
            )


def _check_curve(spec: Spec) -> None:
    options = {k: v for k, v in spec.items() if k not in ("name", "interval", "warmup")}
    kind = f"lr_scheduler {spec['name']}"
    check_options(kind, CURVES[spec["name"]], options, skip=("t", "total"))
    numbers = dict(options)
    if not isinstance(milestones := numbers.pop("milestones", []), list | tuple) or not all(map(is_number, milestones)):
        raise ValueError(f"{kind}: milestones must be a list of numbers, not {milestones!r}")
    for option in ("warmup", *numbers):
        if not isinstance(spec.get(option, 0), int | float):
            raise ValueError(f"{kind}: {option} must be a number, not {spec[option]!r}")
    try:
        check_warmup(spec["name"], spec.get("warmup", 0), options)
    except ValueError as error:
        raise ValueError(f"{kind}: {error}") from error


def _make_curve(spec: Spec, optimizer: Optimizer, total_steps: int, total_epochs: int) -> dict[str, Any]:
    """Build a closed form; `Step` and `MultiStep` count epochs, others optimizer steps, unless `interval` is given."""
    _check_curve(spec)
    options = dict(spec)
    name = options.pop("name")
    interval = options.pop("interval", "epoch" if name in ("Step", "MultiStep") else "step")
    check_known(f"interval of lr_scheduler {name}", INTERVALS, interval)
    try:
        factor = make_factor(name, total_steps if interval == "step" else total_epochs, **options)
    except ValueError as error:
        raise ValueError(f"lr_scheduler {name}: {error}") from error
    return {"scheduler": lr_scheduler.LambdaLR(optimizer, factor), "interval": interval}
