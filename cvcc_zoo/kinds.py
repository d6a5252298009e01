"""Check that values of options are of the kind that their parameters say, and no larger than a file may have."""

import math
import operator
from collections.abc import Mapping, Sequence
from inspect import Parameter
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin

WORDS = {Sequence[int]: "a list of whole numbers", bool: "True or False", int: "a whole number", float: "a number"}
KINDS = (*WORDS, NoneType)  # a tuple, as an annotation may have no hash
MOST_CLASSES = 10_000  # the confusion matrix of a model has as many rows and columns
LARGEST_IMAGE = 4096  # pixels
MOST_VALUES = 1 << 24  # of one image: 3 x 2,364 x 2,364


def as_plain(value: Any) -> Any:
    """Convert NumPy numbers and 0-d tensors, also in lists and dicts, to Python numbers, as checkpoints need them."""
    if isinstance(value, Mapping):
        return {key: as_plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(as_plain, value))
    return value.item() if getattr(value, "ndim", None) == 0 and hasattr(value, "item") else value


def plain_defaults(parameters: Mapping[str, Parameter]) -> dict[str, Any]:
    """Return the defaults that a file can hold: text, finite numbers, True, False, None, and lists of these.

    A tuple becomes a list, as in a file. Parameters that nobody can give by name are left out.
    """
    found = {}
    for name, parameter in parameters.items():
        value = parameter.default
        values = list(value) if isinstance(value, list | tuple) else [value]
        by_name = parameter.kind in (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY) and name[0] != "_"
        if by_name and all(map(_is_plain, values)):
            found[name] = values if isinstance(value, list | tuple) else value
    return found


def is_number(value: Any) -> bool:
    """Return whether a value is a number. True and False are none, though Python counts with them."""
    plain = as_plain(value)
    return isinstance(plain, int | float) and not isinstance(plain, bool)


def check_whole(name: str, value: Any, least: int | None = None, most: int | None = None) -> None:
    """Raise ValueError unless `value` is a whole number, at least `least` and, if that is given too, at most `most`."""
    if not _is_whole(value) or (least is not None and value < least) or (most is not None and value > most):
        bounds = "" if least is None else f" of at least {least}" if most is None else f" from {least} to {most}"
        raise ValueError(f"{name} must be a whole number{bounds}, got {value!r}")


def check_kinds(parameters: Mapping[str, Parameter], values: Mapping[str, Any], owner: str = "") -> None:
    """Raise ValueError, whose message `owner` begins, for the first value of another kind than its annotation says.

    Only annotations of the kinds in WORDS are checked, and unions of them, also with None. Defaults may be anything.
    """
    for name, parameter in parameters.items():
        annotation = parameter.annotation
        kinds = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
        if name not in values or values[name] is parameter.default or not all(kind in KINDS for kind in kinds):
            continue
        if not any(_is(values[name], kind) for kind in kinds):
            words = [text for kind, text in WORDS.items() if kind in kinds and not (kind is int and float in kinds)]
            raise ValueError(f"{owner}{name} must be {' or '.join(words)}, got {values[name]!r}")


def check_bounds(hparams: Mapping[str, Any], what: str) -> None:
    """Raise ValueError, whose message `what` begins, for more classes or larger images than a file may have."""
    for name, most in (("num_classes", MOST_CLASSES), ("image_size", LARGEST_IMAGE), ("in_channels", MOST_VALUES)):
        value = hparams.get(name, 0)
        if not isinstance(value, int) or value > most:
            raise ValueError(f"{what}: {name} is {value!r}, but files may have at most {most:,}")
    channels, size = hparams.get("in_channels", 3), hparams.get("image_size", 32)
    if channels * size**2 > MOST_VALUES:
        raise ValueError(
            f"{what}: its images have {channels} x {size} x {size} values, but files may have at most {MOST_VALUES:,}"
        )


def _is(value: Any, kind: Any) -> bool:
    """Return whether a value is of a kind; numbers may be those of NumPy, and 0-d tensors."""
    if kind == Sequence[int]:
        return isinstance(value, Sequence) and not isinstance(value, str | bytes) and all(map(_is_whole, value))
    if kind is int:
        return _is_whole(value)
    return is_number(value) if kind is float else isinstance(as_plain(value), kind)


def _is_whole(value: Any) -> bool:
    """Return whether a value is a whole number. True and False are none, though Python counts with them."""
    plain = as_plain(value)
    try:
        operator.index(plain)
    except TypeError:
        return False
    return not isinstance(plain, bool)


def _is_plain(value: Any) -> bool:
    return type(value) in (str, bool, int, NoneType) or (type(value) is float and math.isfinite(value))
