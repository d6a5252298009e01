"""The temperature that a file of trained weights names: plain data that is checked before it is used."""

import reprlib
from collections.abc import Mapping
from typing import Any

HIGHEST = 2**53


def check_calibration(calibration: Any, what: str) -> None:
    """Raise ValueError unless it is empty or has a `temperature` above 0, and words in `fitted_on` if it has that."""
    if calibration == {}:
        return
    known = calibration if isinstance(calibration, Mapping) else {}
    temperature, words = known.get("temperature"), known.get("fitted_on", "")
    number = isinstance(temperature, int | float) and not isinstance(temperature, bool) and 0 < temperature < HIGHEST
    if not number or not isinstance(words, str):
        raise ValueError(f"{what} is {reprlib.repr(calibration)}, without a valid temperature")
