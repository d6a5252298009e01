"""Optimizers on parameters that are split over processes, as FSDP2 does it, are right or refused."""

import json
from pathlib import Path
from typing import Any

from tests.reliability.processes import at_once
from tests.sharded_training import work

CASES: list[tuple[str, dict[str, Any]]] = [
    ("SGD", {"momentum": 0.9}),
    ("Adagrad", {}),
    ("RMSprop", {"momentum": 0.5}),
    ("Adam", {}),
    ("AdamW", {"foreach": True}),
    ("AdamW", {"fused": True}),
    ("LowRankAdam", {"rank": 8}),
]
REFUSED: list[tuple[str, dict[str, Any]]] = [("Muon", {}), ("Adafactor", {}), ("LowRankAdam", {"rank": 2})]


def test_a_network_split_over_processes_is_trained_as_a_whole_one_or_refused(tmp_path: Path) -> None:
    at_once(2, work, tmp_path, CASES + REFUSED)
    found = json.loads((tmp_path / "found.json").read_text())
    assert found[: len(CASES)] == [0.0] * len(CASES)
    for (name, _), answer in zip(REFUSED, found[len(CASES) :], strict=True):
        assert answer.startswith(f"{name} needs whole matrices") and "train with DDP" in answer
