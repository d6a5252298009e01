"""Optimizers, parameter groups and learning-rate schedules, chosen by name."""

from cvcc_zoo.optim.build import check_optimizer, make_optimizer, plain_spec
from cvcc_zoo.optim.param_groups import param_groups
from cvcc_zoo.optim.schedules import check_lr_scheduler, make_lr_scheduler

__all__ = [
    "check_lr_scheduler",
    "check_optimizer",
    "make_lr_scheduler",
    "make_optimizer",
    "param_groups",
    "plain_spec",
]
