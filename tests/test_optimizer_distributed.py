"""Optimizers on parameters that are split over processes, as FSDP2 does it, are right or refused."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

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


def test_a_network_split_over_processes_is_trained_as_a_whole_one_or_refused() -> None:
    script = Path(__file__).with_name("sharded_training.py")
    launch = [sys.executable, "-W", "ignore", "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    environment = {**os.environ, "PYTHONPATH": str(script.parents[1]), "OMP_NUM_THREADS": "1"}
    command = [*launch, str(script), json.dumps(CASES + REFUSED)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found[: len(CASES)] == [0.0] * len(CASES)
    for (name, _), answer in zip(REFUSED, found[len(CASES) :], strict=True):
        assert answer.startswith(f"{name} needs whole matrices") and "train with DDP" in answer
