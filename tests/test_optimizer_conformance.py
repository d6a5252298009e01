"""Every optimizer of the package passes every check."""

from typing import Any

import pytest

from cvcc_zoo.optim.build import OWN
from tests.optimizer_checks import CHECKS, VARIANTS, Subject

CASES = [(name, options) for name, variants in VARIANTS.items() for options in variants]


def test_all_optimizers_are_checked() -> None:
    assert set(VARIANTS) == set(OWN)
    assert len(CHECKS) >= 24


@pytest.mark.parametrize(("name", "options"), CASES, ids=lambda value: str(value))
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_it_conforms(check: Any, name: str, options: dict[str, Any]) -> None:
    check(Subject(OWN[name], options))
