"""Names with dots in files of options, such as `data.batch_size: 64`, and groups without options."""

from collections.abc import Mapping
from typing import Any

import yaml
from jsonargparse import get_loader

from cvcc_zoo.cli.expansion import dump_yaml
from cvcc_zoo.cli.refusals import check_keys

GROUPS = ("model", "init_args", "data", "trainer", "optimizer", "lr_scheduler")
"""What a file may name with an option and a dot."""


def spelt_out(text: str) -> str:
    """Return a whole file of options with `data: {batch_size: 64}` in the place of `data.batch_size: 64`.

    A group whose options are all commented out has none. Raises ValueError for an option that is named in both ways,
    and for options without a value that need one.
    """
    try:
        check_keys(text)
        config = get_loader("yaml")(text)
    except (yaml.YAMLError, RecursionError):  # which the parser tells
        return text
    whole = nested(config) if isinstance(config, dict) else config
    return text if whole == config else dump_yaml(whole)


def nested(config: Mapping[Any, Any], *, inside: bool = False) -> dict[Any, Any]:
    """Return options as `spelt_out` does.

    Only names of GROUPS are taken apart, and all that are `inside` one of them: others may be data, such as classes.
    """
    whole: dict[Any, Any] = {}
    for name, value in config.items():
        key, found = name, value
        group, dot, option = name.partition(".") if isinstance(name, str) else ("", "", "")
        if dot and (inside or group in GROUPS):
            key, found = group, {option: value}
        if value is None and not inside and name in ("model", "monitor", "test"):
            raise ValueError(f"{name} has no value; give it one, or leave it out")
        if value is None and not inside and name in ("data", "trainer"):
            found = {}
        if key in GROUPS and isinstance(found, dict):
            found = nested(found, inside=True)
        whole[key] = _merged(key, whole[key], found) if key in whole else found
    return whole


def _merged(name: str, before: Any, found: Any) -> dict[str, Any]:
    """Return the options of both; one may be a name alone, as in `optimizer: SGD` beside `optimizer.lr: 0.1`."""
    if isinstance(before, str) and isinstance(found, dict):
        before = {"class_path" if name == "model" else "name": before}
    elif isinstance(found, str) and isinstance(before, dict):
        found = {"class_path" if name == "model" else "name": found}
    if not (isinstance(before, dict) and isinstance(found, dict)):
        raise ValueError(f"{name} occurs twice, with a dot and without; write it once")
    return before | {key: _merged(key, before[key], value) if key in before else value for key, value in found.items()}
