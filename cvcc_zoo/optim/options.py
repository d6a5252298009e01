"""Whether the options of an optimizer are in range."""

from collections.abc import Sequence

from torch import Tensor

from cvcc_zoo.optim.paths import Group


def at_least_zero(options: Group, *names: str) -> None:
    """Raise ValueError unless these options are numbers from 0 on."""
    for name in names:
        if not isinstance(options[name], int | float | Tensor):
            raise ValueError(f"{name} must be a number, got {options[name]!r}")
        if not options[name] >= 0:
            raise ValueError(f"{name} must be at least 0, got {options[name]}")


def in_unit_interval(options: Group, *names: str) -> None:
    """Raise ValueError unless these options, or all their entries, are in [0, 1)."""
    for name in names:
        value = options[name]
        for share in value if isinstance(value, Sequence) else (value,):
            if not 0 <= share < 1:
                raise ValueError(f"{name} must be in [0, 1), got {value}")


UNDECIDED = ("foreach", "fused")  # None leaves the choice to the optimizer
SWITCHES = ("nesterov", "lr_inside", "unit_norm", "amsgrad", "centered", "eps_inside", "maximize", "capturable",
            "differentiable", *UNDECIDED)  # fmt: skip


def check_options(options: Group) -> None:
    """Raise ValueError for a rate, a decay or a switch, which all optimizers share, that is out of range."""
    lr = options["lr"]
    if isinstance(lr, Tensor) and lr.numel() != 1:
        raise ValueError(f"Tensor lr must be 1-element, and this one has {lr.numel()}")
    at_least_zero(options, "lr", "weight_decay")
    for name in SWITCHES:
        undecided = name in UNDECIDED and options[name] is None
        if not (undecided or isinstance(options.get(name, False), bool)):
            raise ValueError(f"{name} is true or false, got {options[name]!r}")
    chosen = [name for name in ("foreach", "fused", "differentiable") if options[name]]
    if len(chosen) > 1:
        raise ValueError(f"{' and '.join(chosen)} exclude each other; choose one")
