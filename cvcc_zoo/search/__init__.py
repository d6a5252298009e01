"""Hyperparameter search: spaces of values, methods that choose the next trial, and the record of trials."""

from cvcc_zoo.search.goal import Goal
from cvcc_zoo.search.loop import search
from cvcc_zoo.search.methods import METHODS, make_method, number_of_trials
from cvcc_zoo.search.record import Trial, as_record, check_record, own_folder, read_trials
from cvcc_zoo.search.space import OWN, Choice, Range, Space, Values, flags, parse_space, plain, text_of, unusual

__all__ = [
    "METHODS",
    "OWN",
    "Choice",
    "Goal",
    "Range",
    "Space",
    "Trial",
    "Values",
    "as_record",
    "check_record",
    "flags",
    "make_method",
    "number_of_trials",
    "own_folder",
    "parse_space",
    "plain",
    "read_trials",
    "search",
    "text_of",
    "unusual",
]
