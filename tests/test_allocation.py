"""Memory that a program frees stays with it, unless its user has chosen otherwise."""

import subprocess
import sys

import pytest

from cvcc_zoo.__main__ import main
from cvcc_zoo.cli.allocation import CHOSEN

FAULTS = """
import ctypes, resource, sys
from cvcc_zoo.cli.allocation import keep_freed_memory
kept = keep_freed_memory() if sys.argv[1] == "keep" else None
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
size = 48 << 20
def use():
    block = libc.malloc(size)
    ctypes.memset(block, 1, size)
    libc.free(block)
use()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(4):
    use()
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
PAGES = 4 * (48 << 20) // 4096
pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's malloc")


def run(choice: str, **environment: str) -> tuple[str, int]:
    env = {"PATH": "/usr/bin:/bin", **environment}
    found = subprocess.run([sys.executable, "-c", FAULTS, choice], env=env, capture_output=True, text=True, check=True)
    kept, faults = found.stdout.split()
    return kept, int(faults)


def test_blocks_are_used_again_without_asking_the_system() -> None:
    kept, faults = run("keep")
    assert kept == "True" and faults < PAGES // 20
    assert run("leave")[1] >= PAGES // 2  # what it costs otherwise


@pytest.mark.parametrize("name", CHOSEN[:3])
def test_the_choice_of_the_user_is_left_alone(name: str) -> None:
    value = "glibc.malloc.check=0" if name == "GLIBC_TUNABLES" else "131072"
    kept, faults = run("keep", **{name: value})
    assert kept == "False" and faults >= PAGES // 2


def test_a_program_that_calls_a_command_keeps_its_own_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[bool] = []
    monkeypatch.setattr("cvcc_zoo.__main__.keep_freed_memory", lambda: kept.append(True))
    assert main(["--version"]) == 0 and not kept
