"""The space of a search: names of options, each with a list of values or a range of numbers."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml
from jsonargparse import get_loader

from cvcc_zoo.files.own import expanded
from cvcc_zoo.registry import check_known

KEYS = ("from", "to", "log", "steps")
OWN = ("config", "run", "ckpt_path", "test", "allow_changes")
"""Options of `cvcc-zoo fit` that cannot be searched, because each trial sets them, or they do not affect training."""

EXAMPLE = "{optimizer.lr: {from: 1e-4, to: 1e-1, log: true}, data.batch_size: [64, 128, 256]}"
Values = dict[str, Any]
"""The values of one trial by option: numbers, texts, lists and dicts."""


@dataclass(frozen=True)
class Choice:
    """A choice of values, all equally likely; `log` says that they are steps of a logarithmic range."""

    values: tuple[Any, ...]
    log: bool = False

    def at(self, share: float) -> Any:
        """Return the value at a position in [0, 1) from the first to the last."""
        return self.values[int(share * len(self.values))]


@dataclass(frozen=True)
class Range:
    """A number from `low` to `high`, both included; an integer if both are. With `log` its logarithm is uniform."""

    low: float
    high: float
    log: bool = False

    @property
    def whole(self) -> bool:
        """True if all numbers of the range are integers."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    def at(self, share: float) -> float:
        """Return the number at a position in [0, 1]; integers have intervals of equal length."""
        low, high = (self.low - 0.5, self.high + 0.5) if self.whole else (self.low, self.high)
        number = low * (high / low) ** share if self.log else low + (high - low) * share
        return min(max(round(number) if self.whole else number, self.low), self.high)

    def steps(self, count: int) -> tuple[float, ...]:
        """Return `count` numbers from `low` to `high`, evenly spaced, in the logarithm with `log`; each only once."""
        ends = Range(float(self.low), float(self.high), self.log)
        numbers = [ends.at(step / (count - 1)) for step in range(count)]
        return tuple(dict.fromkeys(round(number) if self.whole else number for number in numbers))


Space = dict[str, Choice | Range]


def parse_space(text: str) -> Space:
    """Parse a space from YAML, or from a file if `text` is its path.

    Raises FileNotFoundError if the file is missing, and ValueError, with what to write instead, for an invalid space.
    """
    if (path := expanded(text)).suffix in (".yaml", ".yml", ".json"):
        if not path.is_file():
            raise FileNotFoundError(f"there is no file {path}; the space is YAML or the path of a YAML file: {EXAMPLE}")
        text = path.read_text(encoding="utf-8")
    try:
        content = get_loader("yaml")(text)
    except yaml.YAMLError as error:
        raise ValueError(
            f"the space is not valid YAML ({' '.join(str(error).split())}); write it like {EXAMPLE}"
        ) from error
    if not isinstance(content, dict) or not content:
        raise ValueError(f"the space has no options; give their names with lists or ranges of values: {EXAMPLE}")
    return {str(name): _dimension(str(name), found) for name, found in content.items()}


def _dimension(name: str, found: Any) -> Choice | Range:
    """Return the values to search for one option."""
    if name.partition(".")[0] in OWN:
        raise ValueError(f"{name} cannot be searched: each trial has its own run, and reads no test images; remove it")
    if isinstance(found, list):
        if not found:
            raise ValueError(f"{name} has an empty list; give at least one value")
        texts = [text_of(value) for value in found]
        if twice := [text for text in texts if texts.count(text) > 1]:
            raise ValueError(f"{name} has {twice[0]} twice; give each value once")
        return Choice(tuple(found))
    if not isinstance(found, dict) or not {"from", "to"} <= found.keys():
        raise ValueError(
            f"{name} is searched over a list of values, [64, 128], or over a range, {{from: 1e-4, to: 1e-1, log: true}}"
            f"; got {text_of(found)}"
        )
    check_known(f"key of the range {name}", KEYS, *found)
    return _range(name, found["from"], found["to"], found.get("log", False), found.get("steps"))


def _range(name: str, low: Any, high: Any, log: Any, steps: Any) -> Choice | Range:
    """Return a range, or its values if it has steps."""
    for end in (low, high):
        if isinstance(end, bool) or not isinstance(end, int | float) or not math.isfinite(end):
            raise ValueError(f"{name}: the ends of a range must be numbers, got {text_of(end)}")
    if low >= high:
        raise ValueError(f"{name}: `from` must be smaller than `to`, got {low:g} and {high:g}")
    if not isinstance(log, bool):
        raise ValueError(f"{name}: log must be true or false, got {text_of(log)}")
    if log and low <= 0:
        raise ValueError(f"{name}: {low:g} has no logarithm; start above 0, or leave out log")
    found = Range(low, high, log)
    if steps is None:
        return found
    most = high - low + 1 if found.whole else math.inf
    if isinstance(steps, bool) or not isinstance(steps, int) or not 2 <= steps <= most:
        whole = f" and at most {most}, the number of integers in the range" if found.whole else ""
        raise ValueError(f"{name}: steps must be an integer of at least 2{whole}, got {text_of(steps)}")
    return Choice(found.steps(steps), log)


def text_of(value: Any) -> str:
    """Return a value as it is written in a flag: in YAML, which has other escapes than JSON above U+FFFF."""
    if isinstance(value, str):
        return value
    text = json.dumps(value, ensure_ascii=False)
    return "".join(each if each.isprintable() else f"\\U{ord(each):08x}" for each in text)


def flags(values: Values) -> list[str]:
    """Return values as options of `cvcc-zoo fit`, with a model before its options."""
    ordered = sorted(values, key=lambda name: name.count("."))
    return [f"--{name}={text_of(values[name])}" for name in ordered]


def plain(space: Mapping[str, Choice | Range]) -> dict[str, Any]:
    """Return a space as plain data for YAML; steps are written out."""
    return {
        name: list(found.values)
        if isinstance(found, Choice)
        else {"from": found.low, "to": found.high, "log": found.log}
        for name, found in space.items()
    }


def unusual(space: Mapping[str, Choice | Range]) -> Iterator[Values]:
    """Yield the first values, then these with one other value, for each that is not a number.

    Building them once finds names that do not exist before the first trial.
    """
    start = {name: found.at(0.0) for name, found in space.items()}
    yield start
    for name, found in space.items():
        others: Sequence[Any] = found.values[1:] if isinstance(found, Choice) else ()
        for value in others:
            if isinstance(value, bool) or not isinstance(value, int | float):
                yield {**start, name: value}
