"""Checks of the options that an optimizer is given."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from cvcc_zoo.optim.paths import Group

UNDECIDED = ("foreach", "fused")  # None leaves the choice to the optimizer
SWITCHES = ("nesterov", "unit_norm", "amsgrad", "centered", "maximize", "capturable", *UNDECIDED)


def are_numbers(options: Group, *names: str) -> None:
    """Raise ValueError unless these options are numbers; YAML reads 1e-3 as a text, and 1.0e-3 as a number."""
    for name in names:
        value = options[name]
        if isinstance(value, bool) or not isinstance(value, int | float | Tensor):
            exponent = re.fullmatch(r"(\d+)(e-?\d+)", str(value))
            hint = f"; write it with a point: {exponent[1]}.0{exponent[2]}" if exponent else ""
            raise ValueError(f"{name} must be a number, got {value!r}{hint}")


def are_several(options: Group, name: str, count: int) -> None:
    """Raise ValueError unless an option is a list or tuple of that many numbers."""
    values = options[name]
    if not isinstance(values, Sequence) or len(values) != count:
        raise ValueError(f"{name} must be {count} numbers, got {values!r}")
    for value in values:
        are_numbers({name: value}, name)


def at_least_zero(options: Group, *names: str) -> None:
    """Raise ValueError unless these options are numbers and at least 0."""
    are_numbers(options, *names)
    for name in names:
        if not options[name] >= 0:
            raise ValueError(f"{name} must be at least 0, got {options[name]}")


def in_unit_interval(options: Group, *names: str) -> None:
    """Raise ValueError unless these options, or all their entries, are in [0, 1)."""
    for name in names:
        value = options[name]
        for share in value if isinstance(value, Sequence) and not isinstance(value, str) else (value,):
            are_numbers({name: share}, name)
            if not 0 <= share < 1:
                raise ValueError(f"{name} must be in [0, 1), got {value}")


def scalar_rate(group: Group) -> None:
    """Give a learning rate that is a tensor with one element no dimensions, in place: a rule multiplies by it."""
    if isinstance(lr := group["lr"], Tensor):
        group["lr"] = lr.reshape(())  # the same memory


def refuse_differentiable(optimizer: str, options: Mapping[str, Any]) -> None:
    """Raise ValueError for an option of torch's optimizers that those of this package do not have."""
    if options.get("differentiable"):
        raise ValueError(
            f"{optimizer} has no option differentiable: torch.optim has optimizers whose step can be differentiated; "
            "leave it out"
        )


def check_options(optimizer: str, options: Group) -> None:
    """Raise ValueError for an invalid learning rate, weight decay or switch; all optimizers share these options."""
    refuse_differentiable(optimizer, options)
    lr = options["lr"]
    if isinstance(lr, Tensor) and lr.numel() != 1:
        raise ValueError(f"Tensor lr must be 1-element, and this one has {lr.numel()}")
    at_least_zero(options, "lr", "weight_decay")
    for name in SWITCHES:
        undecided = name in UNDECIDED and options[name] is None
        if not (undecided or isinstance(options.get(name, False), bool)):
            raise ValueError(f"{name} is true or false, got {options[name]!r}")
    if options["foreach"] and options["fused"]:
        raise ValueError("foreach and fused exclude each other; choose one")
