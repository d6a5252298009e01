"""Optimizers, parameter groups and learning-rate schedules, chosen by name."""

from cvcc_zoo.optim.adafactor import Adafactor
from cvcc_zoo.optim.adagrad import Adagrad
from cvcc_zoo.optim.adam import Adam, AdamW
from cvcc_zoo.optim.build import OPTIMIZERS, check_optimizer, make_optimizer, plain_spec
from cvcc_zoo.optim.low_rank_adam import LowRankAdam
from cvcc_zoo.optim.muon import Muon
from cvcc_zoo.optim.param_groups import describe_groups, param_groups
from cvcc_zoo.optim.rmsprop import RMSprop
from cvcc_zoo.optim.schedules import SCHEDULES, check_lr_scheduler, make_lr_scheduler
from cvcc_zoo.optim.sgd import SGD

__all__ = [
    "OPTIMIZERS",
    "SCHEDULES",
    "SGD",
    "Adafactor",
    "Adagrad",
    "Adam",
    "AdamW",
    "LowRankAdam",
    "Muon",
    "RMSprop",
    "check_lr_scheduler",
    "check_optimizer",
    "describe_groups",
    "make_lr_scheduler",
    "make_optimizer",
    "param_groups",
    "plain_spec",
]
